//! Jobs through an engine on the bundled model.

use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_file::Adapter;
use crate::checkpoint::adapter_targets::{ModuleSet, Targets};
use crate::checkpoint::load::{SharedWeights, Train, load, load_shared};
use crate::checkpoint::model_files::ModelFiles;
use crate::formats::host_tensor::HostTensor;
use crate::gpu::CpuExecutor;
use crate::kernels::case::random;
use crate::kernels::sample::Sampling;
use crate::serve::job::testing::job;
use crate::serve::{Door, EngineDoor, Metrics, Refused, TokenLogprob};

const LIMITS: EngineLimits = EngineLimits { cache_bytes: 64 << 20, prefix_bytes: 8 << 20, sequences: 16, step: 16 };

fn lrsa() -> Attention {
    Attention::Lrsa(Lrsa::new(4, 16, 0.25).unwrap())
}

/// An adapter that changes every layer.
fn adapter(files: &ModelFiles) -> Adapter {
    let modules = ModuleSet::Names(vec!["q_proj".into(), "down_proj".into()]);
    let config = AdapterConfig::new(3, 6.0, Targets::of(modules));
    let mut adapter = Adapter::fresh(config, files.config(), 1).unwrap();
    for pair in &mut adapter.pairs {
        let n = pair.b.shape.iter().product();
        pair.b = HostTensor::from_f32(&pair.b.shape.clone(), &random(n as u64, n, 0.3));
    }
    adapter
}

/// A running engine with the base and an adapter.
struct Site {
    door: EngineDoor,
    shared: Arc<Shared>,
    files: Arc<ModelFiles>,
}

impl Site {
    fn new(limits: EngineLimits, most_waiting: usize) -> Self {
        let files = Arc::new(ModelFiles::bundled(None).unwrap());
        let shared = Shared::new(Arc::new(Metrics::default()));
        let (sender, mut jobs) = unbounded_channel();
        let door = EngineDoor::new(shared.clone(), sender, most_waiting);
        let (of_thread, own) = (files.clone(), shared.clone());
        thread::spawn(move || {
            let mut device: Device = Box::<CpuExecutor<f32>>::default();
            let mut weights = SharedWeights::default();
            let adapter = adapter(&of_thread);
            let models = [None, Some(&adapter)]
                .map(|adapter| load_shared(&mut *device, &of_thread.source, adapter, &mut weights).unwrap());
            own.ready();
            let tokenizer = of_thread.tokenizer().unwrap();
            Engine::new(device, models.into(), tokenizer, limits, own).run(&mut jobs).unwrap();
        });
        while shared.check() == Err(Refused::Loading) {
            thread::sleep(Duration::from_millis(2));
        }
        Self { door, shared, files }
    }

    fn job(&self, text: &str) -> (Job, UnboundedReceiver<Event>) {
        let (events, received) = unbounded_channel();
        let prompt = self.files.tokenizer().unwrap().encode_prompt(text).unwrap();
        (Job { seed: 5, events, ..job(prompt, 24, lrsa()) }, received)
    }

    /// Submits a job that is changed by `change`.
    fn submit(&self, text: &str, change: impl FnOnce(&mut Job)) -> UnboundedReceiver<Event> {
        let (mut job, events) = self.job(text);
        change(&mut job);
        self.door.submit(job).unwrap();
        events
    }

    fn answers(&self, text: &str, change: impl FnOnce(&mut Job)) -> Told {
        told(self.submit(text, change))
    }
}

/// The base model of a site, on a device of its own.
fn model_of(site: &Site) -> Llama {
    load(&mut CpuExecutor::<f32>::new(), &site.files.source, None, Train::Nothing).unwrap().model
}

/// All events of a job.
#[derive(Debug, Default, PartialEq)]
struct Told {
    cached_tokens: usize,
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    logprobs: Vec<TokenLogprob>,
    prompt: Vec<Option<TokenLogprob>>,
    finishes: Vec<Finish>,
    failure: Option<Failure>,
}

fn told(mut events: UnboundedReceiver<Event>) -> Told {
    let mut told = Told::default();
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Started { cached_tokens } => told.cached_tokens = cached_tokens,
            Event::Prompt(logprobs) => told.prompt = logprobs,
            Event::Token { answer, id, text, logprob } => {
                told.texts.resize(told.texts.len().max(answer + 1), String::new());
                told.ids.resize(told.texts.len(), vec![]);
                told.texts[answer] += &text;
                told.ids[answer].push(id);
                told.logprobs.extend(logprob);
            }
            Event::Ended { finish, .. } => told.finishes.push(finish),
            Event::Failed(failure) => told.failure = Some(failure),
        }
    }
    told
}

/// A text of some 300 tokens.
fn long_text() -> String {
    "Once upon a time there was a little girl who had a red ball and a blue dog. ".repeat(12)
}

#[test]
fn a_text_is_the_same_alone_and_in_company_and_after_stored_prefixes() {
    let warm = Sampling { temperature: 0.9, top_p: 0.95, ..Sampling::default() };
    let change = |i: usize| {
        move |job: &mut Job| {
            job.seed = i as u64;
            job.model = i % 2;
            job.attention = if i.is_multiple_of(3) { Attention::Dense } else { lrsa() };
            job.draw.sampling = if i.is_multiple_of(4) { Sampling::default() } else { warm };
        }
    };
    let texts: Vec<String> = (0..9).map(|i| format!("{}{}", &long_text()[..40 * i], "Tom saw a cat")).collect();
    let alone: Vec<Told> = texts
        .iter()
        .enumerate()
        .map(|(i, text)| Site::new(EngineLimits { prefix_bytes: 0, ..LIMITS }, 8).answers(text, change(i)))
        .collect();
    let site = Site::new(LIMITS, 100);
    for round in 0..2 {
        let running: Vec<_> = texts.iter().enumerate().map(|(i, text)| site.submit(text, change(i))).collect();
        for (i, (events, expected)) in running.into_iter().zip(&alone).enumerate() {
            let got = told(events);
            assert_eq!((&got.texts, &got.ids), (&expected.texts, &expected.ids), "job {i}, round {round}");
            assert!(round == 0 || i < 6 || got.cached_tokens > 0, "job {i} reads its text once");
        }
    }
    assert_ne!(alone[1].texts, alone[2].texts, "the adapter changes the text");
}

#[test]
fn a_continued_conversation_reads_only_what_is_new() {
    let site = Site::new(LIMITS, 8);
    let text = long_text();
    let first = site.answers(&text, |_| {});
    assert_eq!(first.cached_tokens, 0);
    let next = format!("{text}{} Then", first.texts[0]);
    let second = site.answers(&next, |_| {});
    let n_first = site.job(&text).0.prompt.len();
    assert!(second.cached_tokens > n_first - 16 - 16, "{} of {n_first}", second.cached_tokens);
    let anew = Site::new(EngineLimits { prefix_bytes: 0, ..LIMITS }, 8).answers(&next, |_| {});
    assert_eq!((anew.cached_tokens, anew.texts), (0, second.texts));
}

#[test]
fn a_prompt_stores_only_what_others_can_find() {
    let site = Site::new(LIMITS, 8);
    let dense = |job: &mut Job| (job.attention, job.max_tokens) = (Attention::Dense, 2);
    let bytes = || {
        thread::sleep(Duration::from_millis(30)); // the engine reports between steps
        site.shared.metrics.prefix_bytes.load(Relaxed)
    };
    let long = long_text();
    let text = |n: usize| &long[..n];
    let short = site.job(text(20)).0.prompt.len();
    assert!(short < 16);
    site.answers(text(20), dense);
    assert_eq!(bytes(), 0, "a prompt shorter than a step");
    site.answers(text(200), dense);
    let whole = bytes();
    let per_token = Session::n_bytes(&model_of(&site), Attention::Dense, 2, 16).unwrap()
        - Session::n_bytes(&model_of(&site), Attention::Dense, 1, 16).unwrap();
    let n_steps = site.job(text(200)).0.prompt.len() as u64 / 16;
    assert_eq!(whole, n_steps * 16 * per_token);
    site.answers(text(200), dense);
    assert_eq!(bytes(), whole);
}

#[test]
fn several_answers_follow_one_prompt_each_with_its_seed() {
    let site = Site::new(LIMITS, 8);
    let warm = Sampling { temperature: 1.0, repetition_penalty: 1.1, ..Sampling::default() };
    let several = site.answers("The dog", |job| (job.n, job.draw.sampling) = (3, warm));
    assert_eq!((several.texts.len(), several.finishes.len()), (3, 3));
    for (i, text) in several.texts.iter().enumerate() {
        let one = site.answers("The dog", |job| (job.seed, job.draw.sampling) = (5 + i as u64, warm));
        assert_eq!(&one.texts[0], text, "answer {i}");
    }
    assert_ne!(several.texts[0], several.texts[1]);
}

#[test]
fn probabilities_are_those_of_the_model() {
    let site = Site::new(LIMITS, 8);
    let got = site.answers("Once upon a time there was a boy who", |job| {
        (job.logprobs, job.prompt_logprobs, job.attention) = (Some(2), true, Attention::Dense);
    });
    // The same from all logits of the whole text at once.
    let mut device = CpuExecutor::<f32>::new();
    let mut model = load(&mut device, &site.files.source, None, Train::Nothing).unwrap().model;
    let (job, _) = site.job("Once upon a time there was a boy who");
    let ids: Vec<u32> = job.prompt.iter().chain(&got.ids[0]).copied().collect();
    let (dense, greedy) = (Attention::Dense, Sampling::default());
    let mut session = Session::new(&mut device, &mut model, dense, 200, 200, greedy, 0).unwrap();
    let logits = session.feed_all_logits(&mut device, &model, &ids).unwrap();
    let all: Vec<_> = got.prompt[1..].iter().flatten().chain(&got.logprobs).collect();
    assert_eq!((got.prompt.len(), all.len()), (job.prompt.len(), ids.len() - 1));
    assert!(got.prompt[0].is_none());
    for (i, (row, got)) in logits.chunks_exact(model.config.vocab).zip(all).enumerate() {
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        let expected = |id: u32| row[id as usize] - sum.ln();
        assert_eq!(got.id, ids[i + 1]);
        assert!((f64::from(got.logprob) - expected(got.id)).abs() < 1e-4, "token {i}: {got:?}");
        let best = row.iter().copied().fold(f64::NEG_INFINITY, f64::max) - sum.ln();
        assert!((f64::from(got.top[0].1) - best).abs() < 1e-4 && got.top.len() == 2);
    }
    let none = site.answers("The dog", |job| (job.max_tokens, job.logprobs, job.prompt_logprobs) = (0, Some(0), true));
    assert_eq!((none.ids.len(), none.finishes), (0, vec![Finish::Length]));
    assert!(none.prompt.len() > 1);
}

#[test]
fn biases_and_penalties_change_what_is_drawn() {
    let site = Site::new(LIMITS, 8);
    let plain = site.answers("Once upon a time", |_| {});
    let first = plain.ids[0][0];
    let biased = site.answers("Once upon a time", |job| job.draw.logit_bias = vec![(first, -100.0)]);
    assert!(!biased.ids[0].contains(&first));
    let forced = site.answers("Once upon a time", |job| job.draw.logit_bias = vec![(300, 1000.0)]);
    assert!(forced.ids[0].iter().all(|&id| id == 300));
    // A token costs more each time, so that others come.
    let varied = site.answers("Once upon a time", |job| {
        (job.draw.logit_bias, job.draw.sampling.frequency_penalty) = (vec![(300, 60.0)], 40.0);
    });
    assert_eq!(varied.ids[0][0], 300);
    assert!(varied.ids[0].iter().filter(|&&id| id == 300).count() <= 3, "{:?}", varied.ids);
    let wrong = site.answers("Once", |job| job.draw.logit_bias = vec![(90_000, 1.0)]);
    assert!(matches!(&wrong.failure, Some(Failure::Engine(why)) if why.contains("90000")), "{wrong:?}");
}

#[test]
fn what_does_not_fit_is_refused_and_the_rest_waits_its_turn() {
    let (job, _) = Site::new(LIMITS, 1).job("The dog");
    let files = ModelFiles::bundled(None).unwrap();
    let mut device = CpuExecutor::<f32>::new();
    let model = load(&mut device, &files.source, None, Train::Nothing).unwrap().model;
    let bytes = Session::n_bytes(&model, Attention::Dense, job.prompt.len() + 24, 16).unwrap();
    let site = Site::new(EngineLimits { cache_bytes: 2 * bytes, ..LIMITS }, 4);
    let dense = |job: &mut Job| job.attention = Attention::Dense;
    let large = site.answers("The dog", |job| (job.attention, job.max_tokens) = (Attention::Dense, 400));
    assert!(matches!(&large.failure, Some(Failure::TooLarge(why)) if why.contains("MiB")), "{large:?}");
    let many = site.answers("The dog", |job| job.n = 17);
    assert!(matches!(&many.failure, Some(Failure::TooLarge(why)) if why.contains("`n`")), "{many:?}");
    // Two fit at once, four may wait, and more are sent away.
    let mut taken = Vec::new();
    let refused = (0..400).find_map(|_| {
        let (mut job, events) = site.job("The dog");
        dense(&mut job);
        taken.push(events);
        site.door.submit(job).err()
    });
    assert!(matches!(refused, Some(Refused::Full { retry_after_s: 1.. })), "{refused:?}");
    taken.pop();
    let texts: Vec<Told> = taken.into_iter().map(told).collect();
    assert!(texts.iter().all(|told| told.texts == texts[0].texts && told.failure.is_none()));
}

#[test]
fn whoever_leaves_or_is_late_gives_memory_back() {
    let (job, _) = Site::new(LIMITS, 1).job("The dog");
    let files = ModelFiles::bundled(None).unwrap();
    let mut device = CpuExecutor::<f32>::new();
    let model = load(&mut device, &files.source, None, Train::Nothing).unwrap().model;
    let bytes = Session::n_bytes(&model, Attention::Dense, job.prompt.len() + 300, 16).unwrap();
    // Room for one.
    let site = Site::new(EngineLimits { cache_bytes: bytes, ..LIMITS }, 8);
    let endless = |job: &mut Job| {
        (job.attention, job.max_tokens) = (Attention::Dense, 300);
        job.draw.logit_bias = vec![(300, 1000.0)];
    };
    let mut left = site.submit("The dog", endless);
    while !matches!(left.blocking_recv(), Some(Event::Token { .. })) {}
    drop(left);
    let late = site.submit("The dog", |job| {
        endless(job);
        job.deadline = Some(Instant::now() + Duration::from_millis(60));
    });
    let waiting = site.submit("The dog", endless);
    let late = told(late);
    assert_eq!(late.failure, Some(Failure::Deadline));
    assert_eq!(told(waiting).finishes, [Finish::Length]);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    assert_eq!((count(&site.shared.metrics.cancelled), count(&site.shared.metrics.expired)), (1, 1));
    thread::sleep(Duration::from_millis(50));
    assert_eq!((count(&site.shared.metrics.running), count(&site.shared.metrics.cache_bytes)), (0, 0));
}

#[test]
fn a_stopping_engine_finishes_what_runs_and_refuses_what_waits() {
    let site = Site::new(EngineLimits { sequences: 1, ..LIMITS }, 8);
    let mut running = site.submit("The dog", |_| {});
    while !matches!(running.blocking_recv(), Some(Event::Token { .. })) {}
    let waiting = site.submit("The cat", |_| {});
    site.shared.stop(Duration::from_secs(60));
    assert_eq!(told(waiting).failure, Some(Failure::Stopping));
    assert_eq!(told(running).finishes, [Finish::Length]);
    let (job, _) = site.job("The dog");
    assert_eq!(site.door.submit(job).err(), Some(Refused::Stopping));
}

#[test]
fn a_grace_period_ends() {
    let site = Site::new(LIMITS, 8);
    let mut endless = site.submit("The dog", |job| {
        (job.max_tokens, job.draw.logit_bias) = (400, vec![(300, 1000.0)]);
    });
    while !matches!(endless.blocking_recv(), Some(Event::Token { .. })) {}
    site.shared.stop(Duration::ZERO);
    assert_eq!(told(endless).failure, Some(Failure::Stopping));
}
