//! Tests of the trainer as a library: data in memory, and an observer that watches and stops.

use std::cell::Cell;
use std::path::Path;

use super::*;
use crate::attention::Lrsa;
use crate::checkpoint::record::AttentionRecord;
use crate::data::dataset::{Dataset, Split};
use crate::data::token_count::TokenCount;
use crate::gpu::CpuExecutor;
use crate::train::{EVAL, Keep, METRICS, Observer, StepLine, Teacher};

/// Records its calls and stops a run after some steps.
#[derive(Default)]
struct Watcher {
    total: u64,
    steps: Vec<u64>,
    evaluated: Vec<u64>,
    saved: Vec<u64>,
    lines: Vec<StepLine>,
    stop_after: usize,
    /// How often the run asked whether to stop, and at which time the answer is yes.
    asked: Cell<usize>,
    stop_at: Option<usize>,
}

impl Observer for Watcher {
    fn started(&mut self, total_steps: u64, _: usize) {
        self.total = total_steps;
    }
    fn step(&mut self, line: &StepLine) {
        self.steps.push(line.step);
        self.lines.push(*line);
    }
    fn evaluated(&mut self, line: &EvalLine) {
        self.evaluated.push(line.step);
    }
    fn saved(&mut self, step: u64) {
        self.saved.push(step);
    }
    fn cancelled(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        self.stop_at == Some(self.asked.get()) || self.stop_after > 0 && self.steps.len() >= self.stop_after
    }
}

fn files(adapter: Option<&Path>) -> ModelFiles {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
    ModelFiles::open(model.to_str().unwrap(), adapter).unwrap()
}

fn split(n: usize) -> Split {
    let example = |i: usize| {
        let ids: Vec<u32> = (0..40 + i).map(|t| ((t * (3 + i)) % 60 + 10) as u32).collect();
        Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }
    };
    Split { examples: (0..n).map(example).collect(), ..Split::default() }
}

fn job() -> TrainJob {
    let attention = Some(AttentionRecord::Lrsa { sink: 2, lag: 8, keep: 0.25 });
    TrainJob { epochs: Some(2), lr: Some(1e-2), dropout: Some(0.2), rank: Some(4), attention, ..TrainJob::default() }
}

#[test]
fn what_the_steps_take_is_planned_by_the_longest_text() {
    let mut device = CpuExecutor::<f32>::new();
    let mut planned = |keeps: Option<&[f64]>, n: usize| {
        let keeps = keeps.map(|keeps| keeps.iter().map(|&keep| Keep::Fixed(keep)).collect());
        let job = TrainJob { keeps, max_positions: Some(n), ..job() };
        let mut trainer = Trainer::new(&mut device, &files(None), &job).unwrap();
        let ids: Vec<u32> = (0..n as u32).map(|t| t % 60 + 10).collect();
        let example = Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None };
        trainer.planned_bytes(&mut device, &[example]).unwrap()
    };
    let dense_steps = planned(None, 8192);
    assert_eq!(dense_steps, planned(Some(&[0.25, 0.125, 1.0, 1.0]), 8192));
    assert_ne!(dense_steps, planned(Some(&[0.25, 0.125]), 8192));
    assert_eq!(planned(None, 8193), planned(Some(&[0.25, 0.125, 0.5]), 8193));
}

#[test]
fn dense_steps_on_shorter_texts_are_planned_beside_the_longest() {
    let mut device = CpuExecutor::<f32>::new();
    // A dense step keeps more pairs of 8,000 tokens than a compressed one of 8,200.
    let job = TrainJob { max_positions: Some(8200), chunk: ChunkLength::Tokens(1024), ..job() };
    let mut trainer = Trainer::new(&mut device, &files(None), &job).unwrap();
    let example = |n: u32| {
        let ids: Vec<u32> = (0..n).map(|t| t % 60 + 10).collect();
        Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }
    };
    let mut planned = |lengths: &[u32]| {
        let examples: Vec<Example> = lengths.iter().map(|&n| example(n)).collect();
        trainer.planned_bytes(&mut device, &examples).unwrap()
    };
    let (short, long) = (planned(&[8000]), planned(&[8200]));
    assert!(short > long, "{short} and {long}");
    assert!(planned(&[8000, 8200]) >= short, "the longest one takes the fewest bytes");
    assert!(planned(&[8200, 100]) < short, "none is long and dense");
}

#[test]
fn a_run_in_memory_learns_and_evaluates_under_any_attention() {
    let mut device = CpuExecutor::<f32>::new();
    let mut trainer = Trainer::new(&mut device, &files(None), &job()).unwrap();
    let data = Dataset { train: split(6), valid: Some(split(2)) };
    let lrsa = trainer.attention;
    assert_eq!(lrsa, Attention::Lrsa(Lrsa::new(2, 8, 0.25).unwrap()));
    let held_out = split(2).examples;
    let losses = |trainer: &mut Trainer, device: &mut CpuExecutor<f32>| {
        [Attention::Dense, lrsa].map(|a| trainer.evaluate(device, &held_out, a).unwrap())
    };
    let before = losses(&mut trainer, &mut device);
    assert_eq!(before, losses(&mut trainer, &mut device), "no dropout, nothing trained, the same bits");
    let mut watcher = Watcher::default();
    let summary = trainer.fit(&mut device, &data, None, &mut watcher).unwrap();
    let after = losses(&mut trainer, &mut device);
    assert_eq!((watcher.total, watcher.steps.len(), watcher.evaluated), (12, 12, vec![12]));
    assert!(watcher.saved.is_empty() && !summary.cancelled);
    assert_eq!((summary.steps, summary.eval_loss), (12, Some(after[1].loss)));
    for (a, b) in after.iter().zip(&before) {
        assert!(a.loss < b.loss && a.tokens == 39 + 40, "{b:?}, then {a:?}");
    }
}

#[test]
fn a_stopped_run_keeps_what_was_trained_and_goes_on_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (out, opened) = (dir.path().join("a/b"), files(None));
    let mut device = CpuExecutor::<f32>::new();
    let mut trainer = Trainer::new(&mut device, &opened, &TrainJob { save_every: 2, ..job() }).unwrap();
    let data = Dataset { train: split(6), valid: Some(split(2)) };
    let mut folder = RunFolder::open(&TrainJob { out: out.clone(), ..job() }, &opened).unwrap();
    folder.make([&data.train.examples, &[]]).unwrap();
    let mut watcher = Watcher { stop_after: 3, ..Watcher::default() };
    let summary = trainer.fit(&mut device, &data, Some(&mut folder), &mut watcher).unwrap();
    assert_eq!((summary.steps, summary.cancelled, summary.eval_loss), (3, true, None));
    assert_eq!(watcher.saved, [2, 3]);
    assert_eq!(std::fs::read_to_string(out.join(METRICS)).unwrap().lines().count(), 3);
    assert!(!out.join(EVAL).exists());
    let loss = trainer.evaluate(&mut device, &data.train.examples, Attention::Dense).unwrap().loss;
    let continued = TrainJob { rank: None, adapter: Some(out.clone()), ..job() };
    let mut again = Trainer::new(&mut device, &files(Some(&out)), &continued).unwrap();
    let found = again.evaluate(&mut device, &data.train.examples, Attention::Dense).unwrap().loss;
    assert!((found - loss).abs() < 1e-6, "{found} and {loss}");
}

#[test]
fn a_stop_gives_up_the_step_or_the_evaluation_and_the_next_run_repeats_it() {
    let limits = TrainJob { steps: Some(4), epochs: None, chunk: ChunkLength::Tokens(16), eval_every: 2, ..job() };
    let data = Dataset { train: split(6), valid: Some(split(2)) };
    let stopped_at = |stop_at: Option<usize>| {
        let mut device = CpuExecutor::<f32>::new();
        let mut trainer = Trainer::new(&mut device, &files(None), &limits).unwrap();
        let mut watcher = Watcher { stop_at, ..Watcher::default() };
        let first = trainer.fit(&mut device, &data, None, &mut watcher).unwrap();
        assert_eq!((first.cancelled, first.steps), (stop_at.is_some(), trainer.n_steps()));
        watcher.stop_at = None;
        if first.cancelled {
            let second = trainer.fit(&mut device, &data, None, &mut watcher).unwrap();
            assert_eq!((second.steps, second.cancelled), (4, false));
        }
        assert_eq!(watcher.steps, [1, 2, 3, 4], "each step counts once");
        watcher.evaluated.dedup(); // without a folder, the second run knows of none
        assert_eq!(watcher.evaluated, [2, 4]);
        (trainer.state(&mut device).unwrap(), watcher.asked.get(), first.steps)
    };
    let (whole, n, _) = stopped_at(None);
    let mut ends = Vec::new();
    for at in (1..=n).step_by(5).chain([n]) {
        let (state, _, steps) = stopped_at(Some(at));
        assert!(state.parameters == whole.parameters, "stopped at {at} of {n}");
        assert_eq!((state.micro_batches, state.position), (whole.micro_batches, whole.position));
        ends.push(steps);
    }
    ends.dedup();
    assert_eq!(ends, [0, 1, 2, 3, 4], "in each step, and in the last evaluation");
}

#[test]
fn a_run_of_long_steps_saves_by_time() {
    for (minutes, expected) in [(1e-9, vec![1, 2, 3, 4]), (15.0, vec![4]), (0.0, vec![4])] {
        let dir = tempfile::tempdir().unwrap();
        let opened = files(None);
        let mut device = CpuExecutor::<f32>::new();
        let limits =
            TrainJob { save_minutes: minutes, steps: Some(4), epochs: None, out: dir.path().join("a"), ..job() };
        let mut trainer = Trainer::new(&mut device, &opened, &limits).unwrap();
        let data = Dataset { train: split(6), valid: None };
        let mut folder = RunFolder::open(&limits, &opened).unwrap();
        folder.make([&data.train.examples, &[]]).unwrap();
        let mut watcher = Watcher::default();
        trainer.fit(&mut device, &data, Some(&mut folder), &mut watcher).unwrap();
        assert_eq!(watcher.saved, expected, "every {minutes} minutes");
    }
}

#[test]
fn a_diverging_run_says_so_and_names_what_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let opened = files(None);
    let mut device = CpuExecutor::<f32>::new();
    let reckless = TrainJob { lr: Some(1e18), clip: 0.0, save_every: 1, epochs: Some(20), rank: None, ..job() };
    let reckless = TrainJob { method: Method::Full, dropout: None, ..reckless };
    let mut trainer = Trainer::new(&mut device, &opened, &reckless).unwrap();
    let data = Dataset { train: split(6), valid: None };
    let mut folder = RunFolder::open(&TrainJob { out: dir.path().into(), ..reckless }, &opened).unwrap();
    folder.make([&data.train.examples, &[]]).unwrap();
    let e = trainer.fit(&mut device, &data, Some(&mut folder), &mut ()).unwrap_err().to_string();
    assert!(e.contains("diverged") && e.contains("`lr`") && e.contains("is kept in"), "{e}");
    let saved = ModelFiles::open(dir.path().to_str().unwrap(), None).unwrap();
    assert!(saved.tokenizer().is_ok(), "the folder is a whole model with its tokenizer");
}

#[test]
fn values_that_are_not_finite_do_not_replace_what_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (out, opened) = (dir.path().join("out"), files(None));
    let mut device = CpuExecutor::<f32>::new();
    let data = Dataset { train: split(2), valid: None };
    let sane = TrainJob { epochs: None, steps: Some(1), out: out.clone(), ..job() };
    let mut folder = RunFolder::open(&sane, &opened).unwrap();
    folder.make([&data.train.examples, &[]]).unwrap();
    let mut trainer = Trainer::new(&mut device, &opened, &sane).unwrap();
    trainer.fit(&mut device, &data, Some(&mut folder), &mut ()).unwrap();
    let saved = || std::fs::read(out.join("adapter_model.safetensors")).unwrap();
    let before = saved();
    // Step 1 starts from finite values; only its update overflows.
    let reckless = TrainJob { lr: Some(f64::from(f32::MAX)), weight_decay: 1e3, ..sane };
    drop(folder);
    let mut folder = RunFolder::open(&TrainJob { overwrite: true, ..reckless.clone() }, &opened).unwrap();
    folder.make([&data.train.examples, &[]]).unwrap();
    let mut trainer = Trainer::new(&mut device, &opened, &reckless).unwrap();
    let e = trainer.fit(&mut device, &data, Some(&mut folder), &mut ()).unwrap_err().to_string();
    assert!(e.contains("not finite") && e.contains("lora_A") && e.contains("`lr`"), "{e}");
    assert_eq!(saved(), before);
    assert!(std::fs::read_dir(&out).unwrap().all(|f| !f.unwrap().file_name().to_string_lossy().ends_with(".tmp")));
}

#[test]
fn no_batch_filled_by_tokens_takes_more_than_is_planned() {
    let example = |n: usize, i: usize| {
        let ids: Vec<u32> = (0..n).map(|t| ((t * (3 + i)) % 60 + 10) as u32).collect();
        Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }
    };
    let short: Vec<Example> = (0..60).map(|i| example(2 + i % 9, i)).collect();
    let mixed = [short.clone(), vec![example(70, 0), example(90, 1), example(140, 2)]].concat();
    for (examples, most) in [(short, 128), (mixed.clone(), 128), (mixed, 40)] {
        let mut device = CpuExecutor::<f32>::new();
        let job = TrainJob { batch_tokens: Some(TokenCount::Tokens(most)), epochs: Some(3), dropout: None, ..job() };
        let mut trainer = Trainer::new(&mut device, &files(None), &job).unwrap();
        let planned = trainer.planned_bytes(&mut device, &examples).unwrap();
        let longest = examples.iter().map(|e| e.ids.len()).max().unwrap();
        assert_eq!(trainer.most_tokens(&examples), most.max(longest));
        let data = Dataset { train: Split { examples, ..Split::default() }, valid: None };
        let summary = trainer.fit(&mut device, &data, None, &mut ()).unwrap();
        assert!(summary.peak_bytes <= planned, "{most}: {} and {planned} bytes", summary.peak_bytes);
    }
}

#[test]
fn tokens_of_both_sequences_of_a_pair_fill_a_batch() {
    let [a, b, c] = [0, 1, 2].map(|i| split(12).examples[i * 4].clone()); // 40, 44 and 48 tokens
    let pair =
        |chosen: &Example, rejected: &Example| Example { rejected: Some(Box::new(rejected.clone())), ..chosen.clone() };
    let examples = vec![pair(&a, &b), pair(&b, &a), pair(&a, &a), pair(&c, &b), pair(&a, &c)];
    for objective in [ObjectiveKind::Dpo, ObjectiveKind::Orpo] {
        // Two pairs have 164 to 180 tokens, three more than 240.
        for (most, n_steps, n_tokens) in [(180, 3, 180), (91, 5, 92)] {
            let mut device = CpuExecutor::<f32>::new();
            let batch_tokens = Some(TokenCount::Tokens(most));
            let job = TrainJob { objective, batch_tokens, epochs: Some(1), dropout: None, ..job() };
            let mut trainer = Trainer::new(&mut device, &files(None), &job).unwrap();
            let forecast = trainer.forecast(&mut device, &examples, false).unwrap();
            assert_eq!((forecast.steps, forecast.data.examples, forecast.data.sequences), (n_steps, 5, 10));
            assert_eq!((forecast.data.tokens, forecast.data.longest), (428, 48));
            assert_eq!(trainer.most_tokens(&examples), n_tokens);
            let data = Dataset { train: Split { examples: examples.clone(), ..Split::default() }, valid: None };
            let mut watcher = Watcher::default();
            let summary = trainer.fit(&mut device, &data, None, &mut watcher).unwrap();
            assert_eq!(watcher.lines.len() as u64, n_steps);
            assert!(watcher.lines.iter().all(|line| line.pairs.is_some() && line.loss.is_finite()));
            let planned = forecast.memory.peak();
            assert!(summary.peak_bytes <= planned, "{most}: {} and {planned} bytes", summary.peak_bytes);
            let one = TrainJob { batch_tokens: None, ..job };
            let mut alone = Trainer::new(&mut device, &files(None), &one).unwrap();
            let state = trainer.state(&mut device).unwrap();
            alone.load_state(&mut device, &state).unwrap();
            let [found, expected] =
                [&mut trainer, &mut alone].map(|t| t.evaluate(&mut device, &examples, Attention::Dense).unwrap());
            assert!((found.loss - expected.loss).abs() < 1e-5 && found.tokens == expected.tokens);
        }
    }
}

#[test]
fn a_distilled_run_learns_from_tokens_without_a_label() {
    let mut device = CpuExecutor::<f32>::new();
    let mut train = split(4);
    train.examples[1].labels.fill(-100);
    let unlabelled =
        Dataset { train: Split { examples: vec![train.examples[1].clone()], ..Split::default() }, valid: None };
    let data = Dataset { train, valid: None };
    let fit = |device: &mut CpuExecutor<f32>, job: &TrainJob, data: &Dataset| {
        let mut watcher = Watcher::default();
        let done = Trainer::new(device, &files(None), job)?.fit(device, data, None, &mut watcher);
        done.map(|_| watcher.lines)
    };
    for (distill, teacher) in [(0.25, Teacher::Base), (1.0, Teacher::Oneself)] {
        let job = TrainJob { distill, teacher, accumulate: 4, ..job() };
        let lines = fit(&mut device, &job, &data).unwrap();
        assert_eq!(lines.len(), 2);
        for line in lines {
            let (ce, kl) = (line.ce.unwrap(), line.kl.unwrap());
            let loss = (1.0 - distill) * ce + distill * kl;
            assert!(kl > 0.0 && ce > kl && (line.loss - loss).abs() < 1e-5 * loss, "{line:?}");
        }
        let lines = fit(&mut device, &job, &unlabelled).unwrap();
        assert!(lines.iter().all(|l| l.ce.is_none() && l.kl.unwrap() > 0.0), "{lines:?}");
    }
    let lines = fit(&mut device, &TrainJob { accumulate: 4, ..job() }, &data).unwrap();
    assert!(lines.iter().all(|l| l.ce.is_none() && l.kl.is_none()));
    let e = fit(&mut device, &job(), &unlabelled).unwrap_err().to_string();
    assert!(e.contains("no token of this step has a label"), "{e}");
}

#[test]
fn the_base_model_teaches_only_where_it_is_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (out, opened) = (dir.path().join("out"), files(None));
    let mut device = CpuExecutor::<f32>::new();
    let whole = TrainJob { modules_to_save: vec!["lm_head".into()], ..job() };
    let trainer = Trainer::new(&mut device, &opened, &whole).unwrap();
    let mut folder = RunFolder::open(&TrainJob { out: out.clone(), ..whole }, &opened).unwrap();
    folder.make([&[], &[]]).unwrap();
    trainer.save(&mut device, &mut folder).unwrap();
    let continued = TrainJob { rank: None, adapter: Some(out.clone()), distill: 0.5, ..job() };
    let Err(e) = Trainer::new(&mut device, &files(Some(&out)), &continued) else { panic!("no base is left") };
    let e = e.to_string();
    assert!(e.contains("`teacher` base") && e.contains("lm_head") && e.contains("self"), "{e}");
    let from_itself = TrainJob { teacher: Teacher::Oneself, ..continued };
    Trainer::new(&mut device, &files(Some(&out)), &from_itself).unwrap();
}

/// A dense teacher of itself predicts what the student does, but for the student's noise.
#[test]
fn noise_is_in_training_alone() {
    let mut device = CpuExecutor::<f32>::new();
    let data = Dataset { train: split(3), valid: Some(split(2)) };
    let mut evaluations = Vec::new();
    for (neftune, chunk) in [(0.0, ChunkLength::Auto), (5.0, ChunkLength::Auto), (5.0, ChunkLength::Tokens(16))] {
        let job = TrainJob {
            neftune,
            chunk,
            distill: 0.5,
            teacher: Teacher::Oneself,
            dropout: None,
            lr: Some(0.0),
            attention: Some(AttentionRecord::Dense),
            ..job()
        };
        let mut watcher = Watcher::default();
        let done = Trainer::new(&mut device, &files(None), &job).unwrap().fit(&mut device, &data, None, &mut watcher);
        evaluations.push(done.unwrap().eval_loss.unwrap());
        for kl in watcher.lines.iter().map(|line| line.kl.unwrap()) {
            assert_eq!(kl > 1e-5, neftune > 0.0, "{kl} with noise of {neftune}");
        }
    }
    assert_eq!(evaluations[0], evaluations[1]);
    assert!((evaluations[0] - evaluations[2]).abs() < 1e-6, "{evaluations:?}");
}

/// A new adapter is its own reference, and only the model that learns sees noise.
#[test]
fn the_reference_of_dpo_sees_no_noise() {
    let mut device = CpuExecutor::<f32>::new();
    let [a, b] = [0, 1].map(|i| split(2).examples[i].clone());
    let pairs =
        || Split { examples: vec![Example { rejected: Some(Box::new(b.clone())), ..a.clone() }], ..Split::default() };
    let data = Dataset { train: pairs(), valid: Some(pairs()) };
    for neftune in [0.0, 5.0] {
        let objective = ObjectiveKind::Dpo;
        let job = TrainJob { objective, neftune, lr: Some(0.0), dropout: None, epochs: Some(1), ..job() };
        let mut watcher = Watcher::default();
        let mut trainer = Trainer::new(&mut device, &files(None), &job).unwrap();
        trainer.fit(&mut device, &data, None, &mut watcher).unwrap();
        let reward = watcher.lines[0].pairs.unwrap().rewards_chosen;
        assert_eq!(reward.abs() > 1e-4, neftune > 0.0, "{reward} with noise of {neftune}");
        let evaluated = trainer.evaluate(&mut device, &data.train.examples, Attention::Dense).unwrap();
        let reward = evaluated.pairs.unwrap().rewards_chosen;
        assert!(reward.abs() < 1e-5, "{reward} in an evaluation");
    }
}

/// The golden adapter has values in B, so that dropout would change what the model predicts.
#[test]
fn pairs_are_learnt_without_the_dropout_of_the_continued_adapter() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama-gqa");
    let mut opened = ModelFiles::open(golden.to_str().unwrap(), Some(&golden.join("lora"))).unwrap();
    opened.adapter.as_mut().unwrap().config.dropout = 0.1;
    let mut device = CpuExecutor::<f32>::new();
    let [a, b] = [0, 1].map(|i| split(2).examples[i].clone());
    let pairs = vec![Example { rejected: Some(Box::new(b)), ..a }];
    let data = Dataset { train: Split { examples: pairs, ..Split::default() }, valid: None };
    let mut first_step = |objective, dropout| {
        let attention = Some(AttentionRecord::Dense);
        let job = TrainJob { objective, dropout, attention, rank: None, epochs: Some(1), ..job() };
        let mut trainer = Trainer::new(&mut device, &opened, &job).unwrap();
        let saved = trainer.adapter.as_ref().unwrap().dropout;
        let same = trainer.evaluate(&mut device, &data.train.examples, Attention::Dense).unwrap();
        let mut watcher = Watcher::default();
        trainer.fit(&mut device, &data, None, &mut watcher).unwrap();
        (watcher.lines[0], same, saved)
    };
    let (line, _, saved) = first_step(ObjectiveKind::Dpo, None);
    let pair = line.pairs.unwrap();
    assert!(pair.rewards_chosen.abs() < 1e-6 && pair.rewards_rejected.abs() < 1e-6, "{pair:?}");
    assert!((line.loss - 2f64.ln()).abs() < 1e-6, "{}", line.loss);
    assert_eq!(saved, 0.1, "the saved adapter keeps its dropout");
    let (line, _, saved) = first_step(ObjectiveKind::Dpo, Some(0.2));
    assert!(line.pairs.unwrap().rewards_chosen.abs() > 1e-4, "a given dropout counts: {line:?}");
    assert_eq!(saved, 0.2);
    // The first step of ORPO has the loss of an evaluation, which never drops anything.
    for (dropout, is_same) in [(None, true), (Some(0.2), false)] {
        let (line, same, _) = first_step(ObjectiveKind::Orpo, dropout);
        assert_eq!((line.loss - same.loss).abs() < 2e-6 * same.loss, is_same, "{} and {}", line.loss, same.loss);
    }
}
