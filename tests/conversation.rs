//! A conversation that goes on elsewhere: saved and restored, in a larger cache, and from before the
//! last answer, whatever the layers, the attention and the rotation.

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use common::layered;
use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::load::{Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::generate::{Answer, Conversation, Progress, Reply, SavedConversation};
use longreach::gpu::CpuExecutor;
use longreach::kernels::sample::Sampling;
use longreach::model::config::{BlockNorms, ModelConfig};
use longreach::model::rope_config::{RopeConfig, RopeScaling};
use longreach::text::tokenizer::Tokenizer;

/// The length beyond which LongRoPE and dynamic RoPE change their frequencies.
const ORIGINAL: usize = 48;

/// A device, a model and its tokenizer.
struct Bench {
    device: CpuExecutor<f32>,
    loaded: Loaded,
    tokenizer: Tokenizer,
    max_positions: usize,
}

impl Bench {
    fn new(config: ModelConfig) -> Self {
        let mut device = CpuExecutor::<f32>::new();
        let max_positions = config.max_positions;
        let loaded = load(&mut device, &WeightSource::random(config, 3).unwrap(), None, Train::Nothing).unwrap();
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
        Self { device, loaded, tokenizer: Tokenizer::from_dir(&assets).unwrap(), max_positions }
    }

    fn ask(&mut self, talk: &mut Conversation, reply: &Reply<'_>) -> Answer {
        let mut silent = |_: Progress<'_>| ControlFlow::Continue(());
        talk.answer(&mut self.device, &mut self.loaded.model, &self.tokenizer, reply, &mut silent).unwrap()
    }

    fn restored(&mut self, saved: &SavedConversation) -> Conversation {
        let mut talk = Conversation::default();
        talk.restore(&mut self.device, &mut self.loaded.model, saved.clone(), self.max_positions).unwrap();
        talk
    }
}

fn reply(prompt: &str, attention: Attention, seed: u64, max_positions: usize) -> Reply<'_> {
    Reply {
        prompt,
        attention,
        sampling: Sampling { temperature: 1.0, repetition_penalty: 1.2, ..Sampling::default() },
        max_tokens: 12,
        chunk: 16,
        add_special: true,
        stop: &[],
        stop_texts: &[],
        seed,
        max_positions,
    }
}

fn attentions() -> [Attention; 2] {
    [Attention::Dense, Attention::Lrsa(Lrsa::new(2, 8, 0.5).unwrap())]
}

/// Asks twice, saves after each answer, and expects the restored conversations to go on alike.
fn goes_on(config: ModelConfig, what: &str) {
    let mut bench = Bench::new(config);
    let limit = bench.max_positions;
    for attention in attentions() {
        let mut talk = Conversation::default();
        let mut text = "Once upon a time".to_string();
        for turn in 0..3 {
            let one = bench.ask(&mut talk, &reply(&text, attention, turn, limit));
            text += &one.text;
            let saved = talk.save(&mut bench.device).unwrap().unwrap();
            assert_eq!((&saved.text, &saved.ids[..]), (&text, talk.ids()), "{what}");
            let mut other = bench.restored(&saved);
            assert_eq!(
                other.save(&mut bench.device).unwrap().unwrap(),
                saved,
                "{what}: what is restored is saved again"
            );
            text += " Then Tom came";
            let next = reply(&text, attention, turn + 1, limit);
            let there = bench.ask(&mut other, &next);
            // The same answer from before it, in the conversation that goes on.
            let here = bench.ask(&mut talk, &next);
            assert_eq!(there, here, "{what}, {attention}, turn {turn}");
            assert!(here.n_reused > 0 && here.text.len() > 3, "{here:?}");
            let again = bench.ask(&mut talk, &next);
            assert_eq!((&again.text, again.n_tokens, again.kv_bytes), (&here.text, here.n_tokens, here.kv_bytes));
            assert_eq!(again.n_reused, again.n_tokens - 12, "{what}: the prompt is not read again");
            text += &again.text;
            text += " She";
        }
    }
}

#[test]
fn layers_of_every_kind_go_on() {
    for norms in [BlockNorms::Before, BlockNorms::After] {
        let name = format!("{norms:?}");
        goes_on(layered::config(norms), &name);
    }
}

#[test]
fn a_rotation_that_depends_on_the_length_goes_on() {
    let longrope = RopeScaling::LongRope {
        short: vec![1.0, 1.2, 1.5, 2.0],
        long: vec![1.0, 2.0, 4.0, 8.0],
        original_max_positions: ORIGINAL,
        attention_factor: 1.1,
    };
    let dynamic = RopeScaling::Dynamic { factor: 4.0, original_max_positions: ORIGINAL };
    for (scaling, what) in [(longrope, "LongRoPE"), (dynamic, "dynamic RoPE")] {
        let plain = layered::config(BlockNorms::Before);
        let ropes = vec![RopeConfig { scaling, ..RopeConfig::plain(1e4, 8) }, RopeConfig::plain(1e3, 8)];
        goes_on(ModelConfig { ropes, ..plain }, what);
    }
}

#[test]
fn a_cache_that_becomes_too_small_moves_without_reading_again() {
    let config = ModelConfig { max_positions: 4096, ..layered::config(BlockNorms::Before) };
    let mut bench = Bench::new(config);
    for attention in attentions() {
        let mut talk = Conversation::default();
        let mut text = "Once upon a time there was a girl. ".repeat(20);
        let first = bench.ask(&mut talk, &reply(&text, attention, 0, 4096));
        assert_eq!(talk.cache().unwrap().capacity(), 1024);
        text += &first.text;
        text += &" She liked to play.".repeat(200);
        let next = reply(&text, attention, 1, 4096);
        let saved = talk.save(&mut bench.device).unwrap().unwrap();
        let grown = bench.ask(&mut talk, &next);
        assert!(talk.cache().unwrap().capacity() >= 2048 && grown.n_reused >= first.n_tokens - 1, "{grown:?}");
        // One that was large from the start.
        let mut roomy = saved.clone();
        roomy.snapshot.capacity = 4096;
        let mut other = bench.restored(&roomy);
        assert_eq!(bench.ask(&mut other, &next), grown);
    }
}

#[test]
fn another_answer_in_place_of_a_continued_one_reads_nothing() {
    let mut bench = Bench::new(layered::config(BlockNorms::Before));
    let limit = bench.max_positions;
    for attention in attentions() {
        let prompt = "Once upon a time";
        let mut talk = Conversation::default();
        let first = bench.ask(&mut talk, &reply(prompt, attention, 0, limit));
        let n_prompt = first.n_tokens - first.n_said;
        let mut text = format!("{prompt}{}", first.text);
        for (seed, n_before) in [(1, first.n_tokens), (2, first.n_tokens + 12)] {
            let more = bench.ask(&mut talk, &reply(&text, attention, seed, limit));
            assert_eq!((more.n_reused, more.n_said), (n_before - 1, 12), "only the last token is read");
            text += &more.text;
        }
        let saved = talk.save(&mut bench.device).unwrap().unwrap();
        assert_eq!(saved.before.as_ref().unwrap().text, prompt);
        let mut other = bench.restored(&saved);
        for talk in [&mut talk, &mut other] {
            let again = bench.ask(talk, &reply(prompt, attention, 0, limit));
            assert_eq!(again, Answer { n_reused: n_prompt, ..first.clone() }, "{attention}");
        }
        // The next question has a copy of its own.
        text = format!("{prompt}{} Then", first.text);
        for n_read in [None, Some(0)] {
            let next = bench.ask(&mut talk, &reply(&text, attention, 3, limit));
            let read = next.n_tokens - next.n_said - next.n_reused;
            assert!(n_read.map_or(read > 0, |n| read == n), "{next:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_stop_texts_end_an_answer() {
    let mut bench = Bench::new(layered::config(BlockNorms::Before));
    let limit = bench.max_positions;
    let lrsa = attentions()[1];
    let mut talk = Conversation::default();
    let first = bench.ask(&mut talk, &reply("Once upon a time", lrsa, 0, limit));
    let saved = talk.save(&mut bench.device).unwrap().unwrap();
    type Damage = fn(&mut SavedConversation);
    let damages: [(Damage, &str); 8] = [
        (|s| s.snapshot.capacity = usize::MAX, "room for"),
        (|s| s.snapshot.length = usize::MAX, "room for"),
        (|s| s.n_fed = 1000, "1000 of"),
        (|s| s.n_fed = 0, "logits after 0 tokens"),
        (|s| s.ids[0] = 512, "vocabulary"),
        (|s| s.snapshot.logits.truncate(3), "3 logits"),
        (|s| s.attention = Attention::Dense, "parts"),
        (|s| s.snapshot.capacity = 1, "exceed"),
    ];
    for (damage, word) in damages {
        let mut damaged = saved.clone();
        damage(&mut damaged);
        let mut other = Conversation::default();
        let e = other.restore(&mut bench.device, &mut bench.loaded.model, damaged, limit).unwrap_err().to_string();
        assert!(e.contains(word), "{word}: {e}");
        assert!(other.ids().is_empty());
    }
    assert!(saved.fits(limit) && !saved.fits(saved.snapshot.capacity - 1));
    // A copy from before the answer that does not fit is left out.
    type Change = fn(&mut SavedConversation);
    let changes: [(Change, bool); 3] =
        [(|_| {}, true), (|s| s.snapshot.capacity = usize::MAX, false), (|s| s.snapshot.length = usize::MAX, false)];
    for (change, fits) in changes {
        let mut changed = saved.clone();
        change(changed.before.as_mut().unwrap());
        let mut other = bench.restored(&changed);
        let kept = other.save(&mut bench.device).unwrap().unwrap();
        assert_eq!((kept.text, kept.before.is_some()), (saved.text.clone(), fits));
        let again = bench.ask(&mut other, &reply("Once upon a time", lrsa, 0, limit));
        assert_eq!((again.n_reused > 0, &again.text), (fits, &first.text));
    }
    let stop: String = first.text.chars().skip(3).take(3).collect();
    let stops = [stop.clone()];
    let with_stop = Reply { stop_texts: &stops, ..reply("Once upon a time", lrsa, 0, limit) };
    let mut stopped = Conversation::default();
    let short = bench.ask(&mut stopped, &with_stop);
    assert_eq!(short.text, first.text[..first.text.find(&stop).unwrap()]);
    let text = format!("Once upon a time{} Then", short.text);
    let next = bench.ask(&mut stopped, &reply(&text, lrsa, 1, limit));
    assert!(next.n_reused < short.n_tokens - short.n_said + 1, "the text that was not shown is read anew: {next:?}");
}
