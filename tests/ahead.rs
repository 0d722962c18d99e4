//! Tests that queueing the next step before the last result is read does not change any result.
//!
//! A device runs ahead of the host: the next step is queued before the last one's token or loss is
//! read back. Tokens and losses must equal those of a device that is waited for.

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::checkpoint::record::AttentionRecord;
use longreach::checkpoint::weights::WeightSource;
use longreach::data::dataset::{Dataset, Example, Split};
use longreach::generate::{GenerateRequest, Generated, generate};
use longreach::gpu::{CpuExecutor, Executor};
use longreach::kernels::sample::Sampling;
use longreach::train::{Observer, StepLine, Summary, TrainJob, Trainer};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k")
}

/// Generates at most 40 tokens; the callback stops after `most`.
fn generated(device: &mut dyn Executor, sampling: Sampling, stop: &[u32], most: usize) -> Generated {
    let source = WeightSource::open(&folder()).unwrap();
    let mut loaded = load(device, &source, None, Train::Nothing).unwrap();
    let attention = Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap());
    let request = GenerateRequest {
        prompt_ids: &[1],
        max_tokens: 40,
        sampling,
        attention,
        chunk: 5,
        stop,
        stop_texts: &[],
        shown: &[],
        seed: 3,
    };
    let mut n = 0;
    let mut on_token = |_: longreach::generate::NewToken<'_>| {
        n += 1;
        if n < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    generate(device, &mut loaded.model, None, &request, &mut on_token).unwrap()
}

#[test]
fn tokens_are_those_of_an_executor_that_waits() {
    let Some(mut device) = common::software_device() else { return };
    let greedy = Sampling::default();
    let drawn = Sampling { temperature: 0.8, top_k: 40, ..greedy };
    let penalised = Sampling { repetition_penalty: 1.3, ..drawn };
    for sampling in [greedy, drawn, penalised] {
        let all = generated(&mut CpuExecutor::<f32>::new(), sampling, &[], 100);
        assert_eq!(all.ids.len(), 40);
        for (stop, most) in [(vec![], 100), (vec![all.ids[17]], 100), (vec![all.ids[0]], 100), (vec![], 9), (vec![], 1)]
        {
            let waits = generated(&mut CpuExecutor::<f32>::new(), sampling, &stop, most);
            let ahead = generated(&mut device, sampling, &stop, most);
            assert_eq!(
                (waits.ids, waits.stopped_by, waits.kv_entries, waits.kv_bytes),
                (ahead.ids, ahead.stopped_by, ahead.kv_entries, ahead.kv_bytes),
                "{sampling:?}, stop {stop:?}, {most}"
            );
        }
    }
}

/// The observer's calls in order, and the step at which it cancels.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    losses: Vec<f64>,
    stop_after: usize,
}

impl Observer for Told {
    fn step(&mut self, line: &StepLine) {
        self.lines.push(format!("step {}", line.step));
        self.losses.push(line.loss);
        assert!(line.seconds > 0.0 && line.grad_norm > 0.0 && line.tokens > 0, "{line:?}");
    }
    fn evaluated(&mut self, line: &longreach::train::EvalLine) {
        self.lines.push(format!("evaluated {}", line.step));
    }
    fn cancelled(&self) -> bool {
        self.stop_after > 0 && self.losses.len() >= self.stop_after
    }
}

fn trained(device: &mut dyn Executor, stop_after: usize) -> (Told, Summary) {
    let files = ModelFiles::open(folder().to_str().unwrap(), None).unwrap();
    let attention = Some(AttentionRecord::Lrsa { sink: 2, lag: 8, keep: 0.25 });
    let job = TrainJob {
        epochs: Some(2),
        lr: Some(1e-2),
        rank: Some(4),
        attention,
        eval_every: 3,
        accumulate: 2,
        ..TrainJob::default()
    };
    let example = |i: usize| {
        let ids: Vec<u32> = (0..40 + i).map(|t| ((t * (3 + i)) % 60 + 10) as u32).collect();
        Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }
    };
    let split = |n| Split { examples: (0..n).map(example).collect(), ..Split::default() };
    let data = Dataset { train: split(7), valid: Some(split(2)) };
    let mut trainer = Trainer::new(device, &files, &job).unwrap();
    let mut told = Told { stop_after, ..Told::default() };
    let summary = trainer.fit(device, &data, None, &mut told).unwrap();
    (told, summary)
}

#[test]
fn losses_are_told_in_order_and_are_those_of_an_executor_that_waits() {
    let Some(mut device) = common::software_device() else { return };
    let (waits, _) = trained(&mut CpuExecutor::<f32>::new(), 0);
    let (ahead, summary) = trained(&mut device, 0);
    assert_eq!(waits.lines, ahead.lines);
    assert!(ahead.lines.len() > ahead.losses.len() && ahead.losses.len() == summary.steps as usize);
    for (a, b) in waits.losses.iter().zip(&ahead.losses) {
        assert!((a - b).abs() < 1e-3 * a, "{:?}\n{:?}", waits.losses, ahead.losses);
    }
    assert_eq!(summary.loss, ahead.losses.last().copied());
}

#[test]
fn a_run_that_is_broken_off_tells_of_every_step_it_did() {
    let Some(mut device) = common::software_device() else { return };
    let (told, summary) = trained(&mut device, 2);
    assert!(summary.cancelled);
    assert_eq!((told.losses.len(), summary.steps), (3, 3), "one was queued when the second was told");
    let (told, summary) = trained(&mut CpuExecutor::<f32>::new(), 2);
    assert_eq!((told.losses.len(), summary.steps), (2, 2), "the CPU has nothing to wait for");
}
