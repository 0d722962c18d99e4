//! A conversation that goes on elsewhere: saved and restored, in a larger cache, from an earlier
//! place, and where its reading was stopped, whatever the layers, the attention and the rotation.

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use common::layered;
use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::load::{Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::error::ErrorKind;
use longreach::generate::{Answer, Conversation, Mark, Progress, Reply, SavedConversation, StoppedBy};
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
        question_start: None,
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
        assert_eq!(saved.marks.iter().map(|mark| mark.n_tokens).collect::<Vec<_>>(), [n_prompt]);
        let mut other = bench.restored(&saved);
        for talk in [&mut talk, &mut other] {
            let again = bench.ask(talk, &reply(prompt, attention, 0, limit));
            assert_eq!(again, Answer { n_reused: n_prompt, ..first.clone() }, "{attention}");
        }
        // The next question has a mark of its own.
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
    let damages: [(Damage, &str); 10] = [
        (|s| s.snapshot.capacity = usize::MAX, "room for"),
        (|s| s.snapshot.length = usize::MAX, "room for"),
        (|s| s.n_fed = 1000, "1000 of"),
        (|s| s.n_fed = 0, "logits after 0 tokens"),
        (|s| s.ends[0].n_bytes = 1000, "outside the text"),
        (|s| s.ends[0].n_tokens = 1000, "outside the text"),
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
    // A mark that does not fit is left out.
    type Change = fn(&mut Mark);
    let changes: [(Change, bool); 6] = [
        (|_| {}, true),
        (|m| m.length = usize::MAX, false),
        (|m| m.n_tokens = 0, false),
        (|m| m.n_tokens = 4, false),
        (|m| m.logits.truncate(3), false),
        (|m| m.rings.truncate(1), false),
    ];
    for (change, fits) in changes {
        let mut changed = saved.clone();
        change(&mut changed.marks[0]);
        let mut other = bench.restored(&changed);
        let kept = other.save(&mut bench.device).unwrap().unwrap();
        assert_eq!((kept.text, kept.marks.len()), (saved.text.clone(), usize::from(fits)));
        let again = bench.ask(&mut other, &reply("Once upon a time", lrsa, 0, limit));
        assert_eq!((again.n_reused, &again.text), (if fits { 5 } else { 0 }, &first.text));
    }
    let stop: String = first.text.chars().skip(3).take(3).collect();
    let stops = [stop.clone()];
    let with_stop = Reply { stop_texts: &stops, ..reply("Once upon a time", lrsa, 0, limit) };
    let mut stopped = Conversation::default();
    let short = bench.ask(&mut stopped, &with_stop);
    assert_eq!(short.text, first.text[..first.text.find(&stop).unwrap()]);
    let text = format!("Once upon a time{} Then", short.text);
    let next = bench.ask(&mut stopped, &reply(&text, lrsa, 1, limit));
    let n_prompt = short.n_tokens - short.n_said;
    assert_eq!(next.n_reused, n_prompt + 1, "the text that was not shown is read anew: {next:?}");
}

/// A document of 20 tokens and 21 for each further story.
fn document(n: usize) -> String {
    vec!["Once upon a time there was a girl called Lily. She liked to"; n].join(" play. ")
}

/// A question about a document, and where it begins.
fn about(document: &str, question: &str) -> (String, Option<usize>) {
    (format!("{document} {question}"), Some(document.len() + 1))
}

impl Bench {
    /// Stops after `n` chunks of the prompt.
    fn stop_after(&mut self, talk: &mut Conversation, reply: &Reply<'_>, n: usize) -> Answer {
        let mut n_left = n;
        let mut watch = |_: Progress<'_>| {
            n_left -= 1;
            if n_left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (device, model) = (&mut self.device, &mut self.loaded.model);
        let answer = talk.answer(device, model, &self.tokenizer, reply, &mut watch).unwrap();
        assert_eq!((answer.n_said, answer.stopped_by), (0, StoppedBy::Caller));
        answer
    }

    fn saved(&mut self, talk: &Conversation) -> SavedConversation {
        talk.save(&mut self.device).unwrap().unwrap()
    }
}

fn more_attentions() -> [Attention; 5] {
    let lrsa = [(2, 8, 0.5), (0, 16, 0.25), (5, 4, 0.5), (100, 8, 0.5)];
    let [a, b, c, d] = lrsa.map(|(sink, lag, keep)| Attention::Lrsa(Lrsa::new(sink, lag, keep).unwrap()));
    [Attention::Dense, a, b, c, d]
}

#[test]
fn another_question_about_a_document_reads_only_the_question() {
    for norms in [BlockNorms::Before, BlockNorms::After] {
        let mut bench = Bench::new(layered::config(norms));
        for attention in more_attentions() {
            let ask = |(prompt, question_start): &(String, Option<usize>), seed: u64| Reply {
                question_start: *question_start,
                ..reply(Box::leak(prompt.clone().into_boxed_str()), attention, seed, 256)
            };
            let document = document(5);
            let [one, two] = ["She liked", "The dog ran"].map(|question| about(&document, question));
            let mut talk = Conversation::default();
            let first = bench.ask(&mut talk, &ask(&one, 0));
            let n_document = first.n_tokens - first.n_said - 3; // ▁She ▁li ked
            // A second turn, which is taken back with the first.
            let further = format!("{}{} Then Tom came", one.0, first.text);
            bench.ask(&mut talk, &reply(&further, attention, 1, 256));
            let other = bench.ask(&mut talk, &ask(&two, 2));
            assert_eq!((other.n_reused, other.n_tokens - other.n_said), (n_document, n_document + 5), "{attention}");
            // The same bits as without the question before it: text, cache, logits and marks.
            let mut fresh = Conversation::default();
            let anew = bench.ask(&mut fresh, &ask(&two, 2));
            assert_eq!(other, Answer { n_reused: n_document, ..anew });
            assert_eq!(bench.saved(&talk), bench.saved(&fresh), "{attention}");
            // The first question once more, also after the conversation was saved.
            let saved = bench.saved(&talk);
            for mut talk in [talk, bench.restored(&saved)] {
                let again = bench.ask(&mut talk, &ask(&one, 0));
                assert_eq!(again, Answer { n_reused: n_document, ..first.clone() });
            }
        }
    }
}

#[test]
fn an_answer_that_the_next_prompt_changes_is_read_again_and_nothing_else() {
    let mut bench = Bench::new(layered::config(BlockNorms::Before));
    for attention in more_attentions() {
        let prompt = document(4);
        let mut talk = Conversation::default();
        let first = bench.ask(&mut talk, &reply(&prompt, attention, 0, 256));
        let n_prompt = first.n_tokens - first.n_said;
        let changed = format!("{prompt} Then Tom came"); // as if a template had cut the answer off
        let next = bench.ask(&mut talk, &reply(&changed, attention, 1, 256));
        assert_eq!((next.n_reused, next.n_tokens), (n_prompt, n_prompt + 7 + 12), "{attention}");
        // And the last turn can be taken back.
        let text = format!("{changed}{}", next.text);
        let [yes, no] = [" She", " The dog"].map(|question| format!("{text}{question}"));
        bench.ask(&mut talk, &reply(&yes, attention, 2, 256));
        let other = bench.ask(&mut talk, &reply(&no, attention, 3, 256));
        assert_eq!(other.n_reused, next.n_tokens - 1, "{attention}");
    }
}

#[test]
fn a_stopped_reading_goes_on_where_it_stopped() {
    let mut bench = Bench::new(layered::config(BlockNorms::After));
    for attention in more_attentions() {
        let ask = |(prompt, question_start): &(String, Option<usize>)| Reply {
            question_start: *question_start,
            ..reply(Box::leak(prompt.clone().into_boxed_str()), attention, 4, 256)
        };
        let document = document(5); // 104 tokens
        let long = "She liked to play. She liked to play. She liked to play. She liked"; // 21 tokens
        let [one, two] = [long, "The dog ran"].map(|question| about(&document, question));
        // The seventh chunk ends where the question begins, and the eighth is in the question.
        for (n_chunks, n_read) in [(1, 16), (3, 48), (6, 96), (7, 104), (8, 120)] {
            for (question, is_same) in [(&one, true), (&two, false)] {
                let mut talk = Conversation::default();
                let stopped = bench.stop_after(&mut talk, &ask(&one), n_chunks);
                assert_eq!((stopped.n_reused, talk.cache().unwrap().n_tokens()), (0, n_read), "{attention}");
                assert_eq!(stopped.n_tokens, talk.ids().len());
                let saved = bench.saved(&talk);
                let mut fresh = Conversation::default();
                let whole = bench.ask(&mut fresh, &ask(question));
                let n_reused = if is_same { n_read } else { n_read.min(104) };
                for mut talk in [talk, bench.restored(&saved)] {
                    let answer = bench.ask(&mut talk, &ask(question));
                    assert_eq!(answer, Answer { n_reused, ..whole.clone() }, "{attention}, {n_chunks} chunks");
                    assert_eq!(bench.saved(&talk), bench.saved(&fresh), "{attention}, {n_chunks} chunks");
                }
            }
        }
    }
}

#[test]
fn frequencies_that_switch_do_not_mix() {
    let scaling = RopeScaling::LongRope {
        short: vec![1.0, 1.2, 1.5, 2.0],
        long: vec![1.0, 2.0, 4.0, 8.0],
        original_max_positions: ORIGINAL,
        attention_factor: 1.1,
    };
    let ropes = vec![RopeConfig { scaling, ..RopeConfig::plain(1e4, 8) }, RopeConfig::plain(1e3, 8)];
    let mut bench = Bench::new(ModelConfig { ropes, ..layered::config(BlockNorms::Before) });
    for attention in attentions() {
        let ask = |(prompt, question_start): &(String, Option<usize>)| Reply {
            question_start: *question_start,
            ..reply(Box::leak(prompt.clone().into_boxed_str()), attention, 4, 256)
        };
        // A document of 20 tokens: a long question takes all beyond the switch, and a short one stays before it.
        let long = about(&document(1), &document(2));
        let other = about(&document(1), &format!("The dog {}", document(2)));
        let short = about(&document(1), "She liked");
        // 41 tokens, whose answer crosses the switch.
        let crossing = (document(2), None);
        let back_and_forth = [(&short, 0), (&long, 0), (&other, 20), (&short, 0)];
        let again = [(&crossing, 0), (&crossing, 0)];
        for asked in [&back_and_forth[..], &again[..]] {
            let mut talk = Conversation::default();
            for &(asked, n_reused) in asked {
                let here = bench.ask(&mut talk, &ask(asked));
                let mut fresh = Conversation::default();
                let anew = bench.ask(&mut fresh, &ask(asked));
                assert_eq!(here, Answer { n_reused, ..anew }, "{attention}");
                let [here, anew] = [&talk, &fresh].map(|talk| bench.saved(talk).snapshot);
                assert!(here.entries == anew.entries && here.logits == anew.logits, "{attention}");
            }
        }
    }
}

#[test]
fn a_conversation_that_cannot_grow_stays() {
    let config = ModelConfig { max_positions: 8192, ..layered::config(BlockNorms::Before) };
    let mut bench = Bench::new(config);
    for attention in attentions() {
        let mut talk = Conversation::default();
        let text = document(4);
        let first = bench.ask(&mut talk, &reply(&text, attention, 0, 8192));
        let before = bench.saved(&talk);
        let remember = |bench: &mut Bench, bytes: u64| {
            bench.device = std::mem::take(&mut bench.device).pretending_memory(bytes);
        };
        remember(&mut bench, 0);
        let large = format!("{text}{}{}", first.text, document(100));
        let other = format!("The dog {}", document(100));
        for prompt in [&large, &other] {
            let Bench { device, loaded, tokenizer, .. } = &mut bench;
            let mut never = |_: Progress<'_>| panic!("nothing is read");
            let large = reply(prompt, attention, 1, 8192);
            let e = talk.answer(device, &mut loaded.model, tokenizer, &large, &mut never).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::OutOfMemory, "{e}");
        }
        remember(&mut bench, u64::MAX);
        assert_eq!(bench.saved(&talk), before);
        let next = bench.ask(&mut talk, &reply(&format!("{text}{} She", first.text), attention, 1, 8192));
        assert_eq!(next.n_reused, first.n_tokens - 1, "{attention}");
    }
}
