//! Several sequences at once: each computes, draws and ends as it does alone.

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::equality::{check_walk, lrsa, tokens};
use common::layered;
use common::stories::Stories;
use longreach::attention::{Attention, Cache, CacheStep, Lrsa, Selection};
use longreach::autograd::Tape;
use longreach::checkpoint::adapter_file::read_adapter;
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::error::ErrorKind;
use longreach::generate::{Batch, GenerateRequest, Generated, NewToken, StoppedBy, generate, generate_all};
use longreach::gpu::{Buffer, CpuExecutor, Executor, Kind, upload_words};
use longreach::kernels::embedding::TokenIndex;
use longreach::kernels::few_rows::MOST_ROWS;
use longreach::kernels::head::logits;
use longreach::kernels::sample::Sampling;
use longreach::model::config::BlockNorms;
use longreach::model::llama::Llama;
use longreach::model::rope_config::RopeScaling;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// Models whose rows begin where a span can and where it cannot, with windows, norms and fused
/// products of all kinds, with biases, and with adapters.
fn models(device: &mut dyn Executor) -> Vec<(String, Llama)> {
    let mut models = Vec::new();
    let mut add = |name: &str, source: &WeightSource, adapter: Option<&Path>| {
        let adapter = adapter.map(|dir| read_adapter(dir, source.config()).unwrap());
        models.push((name.to_string(), load(device, source, adapter.as_ref(), Train::Nothing).unwrap().model));
    };
    add("stories", &WeightSource::open(Path::new(common::stories::MODEL)).unwrap(), None);
    for norms in [BlockNorms::Before, BlockNorms::BeforeAndAfter, BlockNorms::After] {
        add(&format!("{norms:?}"), &WeightSource::random(layered::config(norms), 5).unwrap(), None);
    }
    let open = |name: &str| WeightSource::open(&golden(name)).unwrap();
    add("bias and LoRA", &open("qwen2-bias-tied"), Some(&golden("qwen2-bias-tied/lora")));
    let dora = golden("adapters/dora");
    let base: String = serde_json::from_str(&std::fs::read_to_string(dora.join("base.json")).unwrap()).unwrap();
    add("DoRA", &open(&base), Some(&dora));
    models
}

/// The attention of each of several sequences.
fn attentions() -> [Attention; 5] {
    let lag = Lrsa::new(2, 9, 0.3).unwrap();
    let random = lag.with_selection(Selection::Random { seed: 3 });
    let nothing = lag.with_selection(Selection::Nothing);
    [Attention::Dense, lrsa(4, 8, 0.25), lrsa(0, 11, 0.5), Attention::Lrsa(random), Attention::Lrsa(nothing)]
}

/// Tokens of the prompts.
const PROMPTS: [usize; 8] = [3, 40, 17, 1, 64, 99, 29, 55];
/// Tokens of the longest text.
const LONGEST: usize = 140;

/// A cache with the prompt of sequence `i`.
fn prefilled(device: &mut dyn Executor, model: &mut Llama, i: usize) -> Cache {
    model.reserve_positions(device, LONGEST).unwrap();
    let mut cache = model.cache(attentions()[i % 5], LONGEST, 16).unwrap();
    let ids = tokens(PROMPTS[i], model.config.vocab, i);
    while cache.n_tokens() < ids.len() {
        let n = cache.chunk(ids.len() - cache.n_tokens());
        let index = TokenIndex::upload(device, &ids[cache.n_tokens()..][..n], false).unwrap();
        let step = cache.begin(device, n).unwrap();
        let mut tape = Tape::inference();
        model.forward_cached(&mut tape, &index, &cache, &step).unwrap();
        device.run(&tape.rec).unwrap();
        cache.commit(&step);
    }
    cache
}

/// Feeds a token to each of several sequences in one pass, and looks at the recording; returns the
/// logits [sequences, vocabulary].
fn fed(
    device: &mut dyn Executor,
    model: &Llama,
    caches: &mut [Cache],
    ids: &[u32],
    look: impl FnOnce(&mut dyn Executor, &Tape),
) -> Vec<f64> {
    let begin = |cache: &mut Cache| cache.begin(device, 1).unwrap();
    let steps: Vec<CacheStep> = caches.iter_mut().map(begin).collect();
    let positions: Vec<u32> = steps.iter().map(|step| step.position as u32).collect();
    let positions = upload_words(device, "positions", &positions).unwrap();
    let index = TokenIndex::upload(device, ids, false).unwrap();
    let sequences: Vec<_> = caches.iter().zip(&steps).collect();
    let mut tape = Tape::inference();
    let hidden = model.forward_sequences(&mut tape, &index, &sequences, &positions).unwrap();
    let logits = logits(&mut tape.rec, &hidden.tensor, model.output());
    let copy = Buffer::persistent("logits", Kind::Real, logits.len()).span();
    tape.rec.copy(logits.span(), &copy);
    look(device, &tape);
    device.run(&tape.rec).unwrap();
    caches.iter_mut().zip(&steps).for_each(|(cache, step)| cache.commit(step));
    device.read_f64(&copy).unwrap()
}

/// Feeds `n_steps` tokens to `n` sequences together and alone, and compares the logits.
fn check_rows(device: &mut dyn Executor, model: &mut Llama, (name, n): (&str, usize), n_steps: usize, tolerance: f64) {
    let vocab = model.config.vocab;
    let mut prefill = || (0..n).map(|i| prefilled(device, model, i)).collect::<Vec<_>>();
    let (mut together, mut alone) = (prefill(), prefill());
    for step in 0..n_steps {
        let ids = tokens(n, vocab, 50 + step);
        let got = fed(device, model, &mut together, &ids, |_, _| ());
        for (i, (got, cache)) in got.chunks(vocab).zip(&mut alone).enumerate() {
            let want = fed(device, model, std::slice::from_mut(cache), &ids[i..=i], |_, _| ());
            let largest = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            assert!(largest > 0.1, "{name}: the model says something");
            for (got, want) in got.iter().zip(&want) {
                let off = (got - want).abs();
                assert!(off <= tolerance * largest, "{name}, {i} of {n}, step {step}: {got} for {want}");
            }
        }
    }
    for (a, b) in together.iter().zip(&alone) {
        assert_eq!((a.n_tokens(), a.n_bytes()), (b.n_tokens(), b.n_bytes()));
    }
}

#[test]
fn the_rows_of_a_pass_are_those_of_each_sequence_alone() {
    let device = &mut CpuExecutor::<f64>::new();
    for (name, mut model) in models(device) {
        check_rows(device, &mut model, (&name, 8), 30, 1e-12);
    }
    let device = &mut CpuExecutor::<f32>::new();
    for (name, mut model) in models(device) {
        for n in [1, 2, 3, 8] {
            check_rows(device, &mut model, (&name, n), 24, 0.0);
        }
    }
}

#[test]
fn the_rows_of_a_pass_are_those_of_each_sequence_alone_on_the_device() {
    let Some(mut device) = common::software_device() else { return };
    let mut models = models(&mut device);
    for at in [0, 1] {
        let (name, model) = &mut models[at];
        check_rows(&mut device, model, (name, 5), 4, 1e-4);
    }
    // Every dispatch of a pass equals its reference.
    for at in [0, 2] {
        let (name, model) = &mut models[at];
        let mut caches: Vec<Cache> = (0..3).map(|i| prefilled(&mut device, model, i)).collect();
        let ids = tokens(3, model.config.vocab, 9);
        fed(&mut device, model, &mut caches, &ids, |device, tape| check_walk(device, &tape.rec, name));
    }
}

const PROMPT_TEXTS: [&str; 7] =
    ["Once upon a time", "The dog", "She said that the big bird", "It", "One day a boy", "Lily and Tom", "A cat sat"];

/// Prompts of different lengths, as ids.
fn prompts(stories: &Stories) -> Vec<Vec<u32>> {
    let ids = |text: &&str| stories.files.prompt_ids(text, false).unwrap();
    PROMPT_TEXTS.iter().map(ids).collect()
}

/// Requests that differ in everything: lengths, attention, sampling, seeds and what ends them.
fn requests<'a>(prompts: &'a [Vec<u32>], stop: &'a [u32], stop_texts: &'a [String]) -> Vec<GenerateRequest<'a>> {
    let request = |(i, ids): (usize, &'a Vec<u32>)| {
        let warm = Sampling {
            temperature: 0.9,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.01,
            repetition_penalty: 1.2,
            ..Sampling::default()
        };
        GenerateRequest {
            sampling: if i % 2 == 1 { warm } else { Sampling::default() },
            attention: attentions()[i % 5],
            chunk: 4 + i,
            stop: if i % 3 == 0 { stop } else { &[] },
            stop_texts: if i % 3 == 1 { stop_texts } else { &[] },
            shown: &[],
            seed: 7 * i as u64,
            ..GenerateRequest::greedy(ids, 5 + 9 * i)
        }
    };
    prompts.iter().enumerate().map(request).collect()
}

/// All that a text has but its times.
fn told(got: &Generated) -> (&[u32], &str, usize, usize, u64, StoppedBy) {
    (&got.ids, &got.text, got.prompt_tokens, got.kv_entries, got.kv_bytes, got.stopped_by)
}

fn go_on(_: NewToken<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn texts_do_not_depend_on_their_company() {
    let mut stories = Stories::open();
    let prompts = prompts(&stories);
    let Stories { device, files, loaded } = &mut stories;
    let tokenizer = files.tokenizer().ok();
    let mut one =
        |request: &GenerateRequest<'_>| generate(device, &mut loaded.model, tokenizer, request, &mut go_on).unwrap();
    let (stop, stop_texts) = ([one(&requests(&prompts, &[], &[])[6]).ids[20]], [" the".to_string(), "He ".to_string()]);
    let requests = requests(&prompts, &stop, &stop_texts);
    let alone: Vec<Generated> = requests.iter().map(&mut one).collect();
    for why in [StoppedBy::MaxTokens, StoppedBy::StopToken, StoppedBy::StopText] {
        assert!(alone.iter().any(|got| got.stopped_by == why), "{why:?}");
    }
    for most in [1, 2, 3, 8] {
        let mut found = vec![None; requests.len()];
        let mut order = Vec::new();
        let mut note = |i: usize, got: Generated| {
            order.push(i);
            found[i] = Some(got);
            ControlFlow::Continue(())
        };
        generate_all(device, &mut loaded.model, tokenizer, &requests, most, &mut note).unwrap();
        for (i, (got, want)) in found.iter().zip(&alone).enumerate() {
            assert_eq!(told(got.as_ref().unwrap()), told(want), "{most} at once: request {i}");
        }
        assert_eq!(most == 1, order.is_sorted(), "shorter texts overtake longer ones: {order:?}");
        let mut n = 0;
        let mut third = |_: usize, _: Generated| {
            n += 1;
            if n == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        generate_all(device, &mut loaded.model, tokenizer, &requests, most, &mut third).unwrap();
        assert_eq!(n, 3, "a caller ends it");
    }
    let more_than_a_pass: Vec<_> = requests.iter().cycle().take(MOST_ROWS + 3).cloned().collect();
    let mut compare = |i: usize, got: Generated| {
        assert_eq!(told(&got), told(&alone[i % alone.len()]), "request {i} of many");
        ControlFlow::Continue(())
    };
    let most = more_than_a_pass.len();
    generate_all(device, &mut loaded.model, tokenizer, &more_than_a_pass, most, &mut compare).unwrap();
}

#[test]
fn sequences_join_and_leave_between_steps() {
    let mut stories = Stories::open();
    let prompts = prompts(&stories);
    let Stories { device, files, loaded } = &mut stories;
    let (model, tokenizer) = (&mut loaded.model, files.tokenizer().ok());
    let request =
        |i: usize, n| GenerateRequest { attention: attentions()[i], ..GenerateRequest::greedy(&prompts[i], n) };
    let want: Vec<Generated> =
        (0..4).map(|i| generate(device, model, tokenizer, &request(i, 30), &mut go_on).unwrap()).collect();

    let mut batch = Batch::new(tokenizer);
    assert!(batch.step(device, model, &mut |_, _| ControlFlow::Continue(())).unwrap().is_empty());
    let mut shown: Vec<(Vec<u32>, String)> = vec![Default::default(); 4];
    let mut ended = Vec::new();
    assert_eq!(batch.join(device, model, &request(0, 30)).unwrap(), 0);
    for step in 0.. {
        match step {
            // One joins after four steps, two after nine; the first to join is sent away at 14.
            4 => assert_eq!(batch.join(device, model, &request(1, 30)).unwrap(), 1),
            9 => {
                assert!(batch.join(device, model, &request(2, 0)).is_err(), "what cannot be generated does not join");
                assert_eq!(batch.join(device, model, &request(2, 30)).unwrap(), 2);
                assert_eq!(batch.join(device, model, &request(3, 30)).unwrap(), 3);
            }
            14 => {
                let left = batch.leave(0).unwrap();
                assert_eq!((&left.ids[..], left.stopped_by), (&want[0].ids[..14], StoppedBy::Caller));
                assert!(want[0].text.starts_with(&left.text) && batch.leave(0).is_none());
            }
            _ => {}
        }
        if batch.is_empty() {
            break;
        }
        let before = (batch.len(), batch.kv_bytes());
        // The third text is ended by its twelfth token.
        let mut note = |number: u64, token: NewToken<'_>| {
            let (ids, text) = &mut shown[number as usize];
            ids.push(token.id);
            text.push_str(token.text);
            if number == 2 && ids.len() == 12 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let done = batch.step(device, model, &mut note).unwrap();
        assert_eq!(batch.len() + done.len(), before.0);
        assert!(before.1 > 0 && (done.is_empty() || batch.kv_bytes() < before.1));
        ended.extend(done);
    }
    let number = batch.join(device, model, &request(0, 30)).unwrap();
    let left = batch.leave(number).unwrap();
    let speed = left.decode_tokens_per_s();
    assert_eq!((number, left.ids.len(), left.kv_entries, speed), (4, 0, prompts[0].len(), 0.0), "nothing is drawn yet");
    let numbers: Vec<u64> = ended.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [2, 1, 3]);
    for (number, got) in &ended {
        let (n, why) = if *number == 2 { (12, StoppedBy::Caller) } else { (30, StoppedBy::MaxTokens) };
        let (want, (ids, text)) = (&want[*number as usize], &shown[*number as usize]);
        assert_eq!((&got.ids[..], got.stopped_by), (&want.ids[..n], why));
        assert_eq!((ids, text), (&got.ids, &got.text), "each token was passed on");
        assert!(want.text.starts_with(&got.text));
        assert!(got.prefill_seconds > 0.0 && got.decode_seconds > 0.0);
    }
}

#[test]
fn texts_whose_frequencies_depend_on_their_length_are_those_alone() {
    let device = &mut CpuExecutor::<f32>::new();
    let mut config = layered::config(BlockNorms::BeforeAndAfter);
    config.ropes[0].scaling = RopeScaling::LongRope {
        short: vec![1.0, 1.1, 1.3, 1.5],
        long: vec![1.0, 2.0, 5.0, 8.0],
        original_max_positions: 64,
        attention_factor: 1.1,
    };
    let mut model = load(device, &WeightSource::random(config, 5).unwrap(), None, Train::Nothing).unwrap().model;
    let prompts: Vec<Vec<u32>> = [50, 80, 10].into_iter().enumerate().map(|(i, n)| tokens(n, 512, i)).collect();
    let requests: Vec<_> = prompts.iter().map(|ids| GenerateRequest::greedy(ids, 30)).collect();
    let mut one = |request| generate(device, &mut model, None, request, &mut go_on).unwrap().ids;
    let alone: Vec<Vec<u32>> = requests.iter().map(&mut one).collect();
    let mut together = vec![Vec::new(); 3];
    let mut note = |i: usize, got: Generated| {
        together[i] = got.ids;
        ControlFlow::Continue(())
    };
    generate_all(device, &mut model, None, &requests, 3, &mut note).unwrap();
    assert_eq!(together, alone);
}

#[test]
fn a_request_without_memory_waits_for_the_others() {
    let mut stories = Stories::open();
    let prompts = prompts(&stories);
    let Stories { device, loaded, .. } = &mut stories;
    *device = std::mem::take(device).pretending_memory(32 << 20);
    // The second needs a cache of 5 layers with 64 channels of keys and values for 100,000 tokens.
    let lengths = [12, 100_000, 9];
    let requests: Vec<_> = prompts.iter().zip(lengths).map(|(ids, n)| GenerateRequest::greedy(ids, n)).collect();
    let mut done = Vec::new();
    let mut note = |i: usize, got: Generated| {
        done.push((i, got.generated_tokens));
        ControlFlow::Continue(())
    };
    let e = generate_all(device, &mut loaded.model, None, &requests, 3, &mut note).unwrap_err();
    assert_eq!(done, [(0, 12)], "what was there goes on");
    assert_eq!(e.kind(), ErrorKind::OutOfMemory);
    assert!(e.to_string().contains("request 1") && e.to_string().contains("a cache for 1000"), "{e}");
}
