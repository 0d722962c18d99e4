//! A run whose state moves to a new trainer after five of ten steps ends bit for bit the same.
//!
//! Tests every optimiser; data order, dropout, noise and drawn attentions continue.

mod common;

use std::cell::Cell;

use common::stories::MODEL;
use longreach::ErrorKind;
use longreach::checkpoint::model_files::ModelFiles;
use longreach::checkpoint::record::AttentionRecord;
use longreach::data::dataset::{Dataset, Example, Split};
use longreach::data::sampler::Order;
use longreach::data::token_count::TokenCount;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::optim::OptimizerKind;
use longreach::train::{Keep, Method, ObjectiveKind, Observer, RunFolder, StepLine, TrainJob, Trainer, TrainerState};

/// Collects the losses and stops the run once, after a given step. A device that works ahead has begun
/// the next one by then.
struct Watch {
    losses: Vec<f64>,
    stop_at: usize,
    has_stopped: Cell<bool>,
}

impl Watch {
    fn stopping_after(steps: usize) -> Self {
        Self { losses: Vec::new(), stop_at: steps, has_stopped: Cell::new(false) }
    }
}

impl Observer for Watch {
    fn step(&mut self, line: &StepLine) {
        self.losses.push(line.loss);
    }
    fn cancelled(&self) -> bool {
        self.losses.len() >= self.stop_at && !self.has_stopped.replace(true)
    }
}

/// Seven examples of different lengths, up to four per step: two steps per epoch, the second one
/// short.
fn data() -> Dataset {
    data_of(example)
}

fn example(i: usize) -> Example {
    let ids: Vec<u32> = (0..24 + 3 * i).map(|t| ((t * (3 + i)) % 60 + 10) as u32).collect();
    Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }
}

fn data_of(example: impl Fn(usize) -> Example) -> Dataset {
    Dataset { train: Split { examples: (0..7).map(example).collect(), ..Split::default() }, valid: None }
}

fn job(optimizer: OptimizerKind) -> TrainJob {
    TrainJob {
        optimizer,
        steps: Some(10),
        batch_size: 2,
        accumulate: 2,
        warmup: 2,
        rank: Some(4),
        dropout: Some(0.2),
        neftune: 5.0,
        lora_plus: Some(4.0),
        seed: 11,
        lr: Some(1e-2),
        weight_decay: 0.1,
        clip: 0.5,
        attention: Some(AttentionRecord::Lrsa { sink: 2, lag: 8, keep: 0.25 }),
        keeps: Some(vec![Keep::Fixed(0.25), Keep::Anneal { from: 0.5, to: 0.125 }, Keep::Fixed(1.0)]),
        ..TrainJob::default()
    }
}

fn full(optimizer: OptimizerKind) -> TrainJob {
    TrainJob { method: Method::Full, rank: None, dropout: None, lora_plus: None, ..job(optimizer) }
}

/// Steps of a new trainer that starts from `state`: returns their losses and the final state.
fn train(
    device: &mut dyn Executor,
    job: &TrainJob,
    state: Option<&TrainerState>,
    stop_at: usize,
) -> (Vec<f64>, TrainerState) {
    let files = ModelFiles::open(MODEL, None).unwrap();
    let mut trainer = Trainer::new(device, &files, job).unwrap();
    if let Some(state) = state {
        trainer.load_state(device, state).unwrap();
    }
    let mut watch = Watch::stopping_after(stop_at);
    let pair = |i: usize| Example { rejected: Some(Box::new(example(7 - i))), ..example(i) };
    let data = if job.objective.takes_pairs() { data_of(pair) } else { data() };
    trainer.fit(device, &data, None, &mut watch).unwrap();
    (watch.losses, trainer.state(device).unwrap())
}

fn check(device: &mut dyn Executor, job: &TrainJob) {
    let (losses, end) = train(device, job, None, usize::MAX);
    let (first, middle) = train(device, job, None, 5);
    let (second, resumed) = train(device, job, Some(&middle), usize::MAX);
    assert_eq!((losses.len(), first.len() + second.len()), (10, 10));
    assert!([5, 6].contains(&first.len()), "a device that works ahead ends the step that it has begun");
    assert_eq!(middle.optimizer.step, first.len() as u64);
    if first.len() == 5 {
        assert_eq!((middle.epoch, middle.position), (2, 4));
        assert_eq!(
            middle.micro_batches, 10,
            "two batches of two in each step, and one of two and one of one at an epoch's end"
        );
    }
    assert_eq!([first, second].concat(), losses, "{job:?}");
    assert!(middle.parameters != end.parameters && middle.optimizer.slots != end.optimizer.slots);
    assert_eq!(resumed, end, "{job:?}");
}

#[test]
fn five_steps_and_five_more_are_ten_on_the_cpu() {
    for &kind in OptimizerKind::ALL {
        check(&mut CpuExecutor::<f32>::new(), &job(kind));
        check(&mut CpuExecutor::<f32>::new(), &full(kind));
    }
}

#[test]
fn a_run_that_fills_batches_by_tokens_goes_on_within_its_epoch() {
    for order in [Order::Random, Order::Length] {
        let job = TrainJob {
            batch_size: 1,
            batch_tokens: Some(TokenCount::Tokens(70)),
            accumulate: 1,
            order,
            ..job(OptimizerKind::AdamW)
        };
        let device = &mut CpuExecutor::<f32>::new();
        let (losses, end) = train(device, &job, None, usize::MAX);
        for n in [1, 4, 6] {
            let (first, middle) = train(device, &job, None, n);
            let (second, resumed) = train(device, &job, Some(&middle), usize::MAX);
            assert_eq!([first, second].concat(), losses, "{order:?}, {n} steps first");
            assert_eq!(resumed, end, "{order:?}, {n} steps first");
        }
        // A batch holds one or two of the examples of 24 to 42 tokens.
        let (_, middle) = train(device, &job, None, 2);
        assert!((2..=4).contains(&middle.position) && middle.micro_batches == 2, "{}", middle.position);
        let by_examples = TrainJob { batch_tokens: None, batch_size: 2, accumulate: 4, ..job };
        let files = ModelFiles::open(MODEL, None).unwrap();
        let mut trainer = Trainer::new(device, &files, &by_examples).unwrap();
        trainer.load_state(device, &TrainerState { position: 3, ..middle }).unwrap();
        let e = trainer.fit(device, &data(), None, &mut ()).unwrap_err().to_string();
        assert!(e.contains("resume at example 3") && e.contains("no batch"), "{e}");
    }
}

#[test]
fn preference_training_goes_on_too() {
    let device = &mut CpuExecutor::<f32>::new();
    check(device, &TrainJob { objective: ObjectiveKind::Dpo, ..job(OptimizerKind::AdamW) });
    check(device, &TrainJob { objective: ObjectiveKind::Orpo, recompute: true, ..job(OptimizerKind::AdamW) });
    check(device, &TrainJob { objective: ObjectiveKind::Orpo, ..full(OptimizerKind::Sgd) });
    // Each pair has 69 tokens: a batch of up to 150 holds two of them, as in the runs above.
    let of_tokens = TrainJob {
        objective: ObjectiveKind::Dpo,
        batch_size: 1,
        batch_tokens: Some(TokenCount::Tokens(150)),
        ..job(OptimizerKind::AdamW)
    };
    check(device, &of_tokens);
    let of_pairs = TrainJob { batch_size: 2, batch_tokens: None, ..of_tokens.clone() };
    assert_eq!(train(device, &of_tokens, None, 3), train(device, &of_pairs, None, 3), "the same batches");
}

#[test]
fn five_steps_and_five_more_are_ten_on_a_device() {
    let Some(mut device) = common::software_device() else { return };
    for &kind in OptimizerKind::ALL {
        check(&mut device, &job(kind));
    }
}

#[test]
fn parameters_that_are_cut_into_slices_go_on_too() {
    for kind in [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::Adafactor] {
        check(&mut CpuExecutor::<f32>::with_binding_limit(64 << 10), &full(kind));
    }
}

#[test]
fn a_trainer_that_was_stopped_goes_on_by_itself() {
    let device = &mut CpuExecutor::<f32>::new();
    let job = job(OptimizerKind::AdamW);
    let (losses, end) = train(device, &job, None, usize::MAX);
    let files = ModelFiles::open(MODEL, None).unwrap();
    let mut trainer = Trainer::new(device, &files, &job).unwrap();
    let mut watch = Watch::stopping_after(3);
    assert!(trainer.fit(device, &data(), None, &mut watch).unwrap().cancelled);
    let summary = trainer.fit(device, &data(), None, &mut watch).unwrap();
    assert_eq!((summary.steps, watch.losses), (10, losses));
    assert_eq!(trainer.state(device).unwrap(), end);
    assert_eq!(trainer.fit(device, &data(), None, &mut ()).unwrap().tokens, 0, "nothing is left to do");
    assert_eq!(trainer.state(device).unwrap(), end);
}

#[test]
fn states_of_other_runs_are_refused() {
    let device = &mut CpuExecutor::<f32>::new();
    let files = ModelFiles::open(MODEL, None).unwrap();
    let (_, state) = train(device, &job(OptimizerKind::Lion), None, 1);
    let refusal = |job: &TrainJob, state: &TrainerState| {
        let device = &mut CpuExecutor::<f32>::new();
        let mut trainer = Trainer::new(device, &files, job).unwrap();
        let before = trainer.state(device).unwrap();
        let e = trainer.load_state(device, state).unwrap_err().to_string();
        assert_eq!(trainer.state(device).unwrap(), before, "a refused state changes nothing");
        e
    };
    let e = refusal(&job(OptimizerKind::AdamW), &state);
    assert!(e.contains("lion") && e.contains("adamw"), "{e}");
    let e = refusal(&TrainJob { rank: Some(2), ..job(OptimizerKind::Lion) }, &state);
    assert!(e.contains("shape") && e.contains("lora"), "{e}");
    let e = refusal(&full(OptimizerKind::Lion), &state);
    assert!(e.contains("not trained here"), "{e}");
    let mut lacking = state.clone();
    let (name, _) = lacking.parameters.remove(3);
    let e = refusal(&job(OptimizerKind::Lion), &lacking);
    assert!(e.contains("lacks") && e.contains(&name), "{e}");
}

/// Gradients that overflow: the step is skipped, the run ends, and the weights before it are saved.
fn check_divergence(device: &mut dyn Executor) {
    let dir = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(MODEL, None).unwrap();
    let job = TrainJob {
        out: dir.path().join("out"),
        lr: Some(1e25),
        clip: 0.0,
        warmup: 0,
        save_every: 0,
        weight_decay: 0.0,
        ..full(OptimizerKind::Sgd)
    };
    let mut folder = RunFolder::open(&job, &files).unwrap();
    folder.make([&data().train.examples, &[]]).unwrap();
    let mut trainer = Trainer::new(device, &files, &job).unwrap();
    let e = trainer.fit(device, &data(), Some(&mut folder), &mut ()).unwrap_err();
    assert!(e.kind() == ErrorKind::Diverged && e.to_string().contains("what was learnt before is in"), "{e}");
    let state = trainer.state(device).unwrap();
    assert!(state.parameters.iter().all(|(_, t)| t.to_f32().unwrap().iter().all(|v| v.is_finite())));
    drop(folder);
    let mut folder = RunFolder::open(&job, &files).unwrap();
    folder.make([&data().train.examples, &[]]).unwrap();
    // The file has an order of its own.
    let sorted = |mut state: TrainerState| {
        state.parameters.sort_by(|a, b| a.0.cmp(&b.0));
        state.optimizer.slots.sort_by(|a, b| a.0.cmp(&b.0));
        state
    };
    assert!(folder.take_state().map(sorted) == Some(sorted(state)), "what is saved");
}

#[test]
fn a_diverging_step_leaves_the_weights_as_they_were() {
    check_divergence(&mut CpuExecutor::<f32>::new());
    if let Some(mut device) = common::software_device() {
        check_divergence(&mut device);
    }
}
