//! Runs the missing parts of a study: trains each model, then computes its cells and saves each at
//! once.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::cell::{Answer, Cell, CellName, TrainingRecord, checksum, model_name, read_json, write_json};
use super::plan::{Arm, Source, StudyPlan};
use crate::atomic_file::write_file;
use crate::checkpoint::load::{Loaded, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::eval::{Outcome, Policy, Sample, Subject, answer_all};
use crate::generate::DEFAULT_CHUNK;
use crate::gpu::Executor;
use crate::train::{Observer, StepLine, run_opened};

/// File name of the plan.
const PLAN: &str = "study.json";

/// Receives the progress of a study.
pub trait StudyObserver {
    /// A training run or a cell starts.
    fn started(&mut self, _what: &str) {}
    /// Progress of the current training run or cell.
    fn progress(&mut self, _done: usize, _total: usize) {}
    /// A training run or a cell is done and saved.
    fn finished(&mut self, _what: &str) {}
}

impl StudyObserver for () {}

/// Reads the plan from a study's folder, if there is one.
pub fn read_plan(dir: &Path) -> Result<Option<StudyPlan>> {
    read_json(&dir.join(PLAN))
}

/// Policy and name of a cell, and the cell itself if it is computed.
type Place = (Policy, CellName, Option<Cell>);

fn is_complete(cells: &[Place]) -> bool {
    cells.iter().all(|(_, _, cell)| cell.is_some())
}

struct Study<'a> {
    plan: &'a StudyPlan,
    dir: &'a Path,
    work: &'a Path,
    device: &'a mut dyn Executor,
    files: ModelFiles,
    source: Source,
    held_out: Vec<Sample>,
    observer: &'a mut dyn StudyObserver,
}

/// Runs the missing parts of the study in `dir`. Adapters and training data go to `work`. Fails if
/// either folder belongs to another study.
pub fn run(
    plan: &StudyPlan,
    dir: &Path,
    work: &Path,
    device: &mut dyn Executor,
    observer: &mut dyn StudyObserver,
) -> Result<()> {
    plan.validate()?;
    // Check both folders first, so that a rejected study leaves no files.
    for folder in [dir, work] {
        if read_plan(folder)?.is_some_and(|kept| kept != *plan) {
            return Err(Error::usage(format!(
                "{} holds a study with other settings ({PLAN}): choose another folder, or omit the settings to continue it",
                folder.display()
            )));
        }
    }
    let files = ModelFiles::open(&plan.model, None)?;
    let source = plan.source(&files)?;
    let held_out = source.held_out(&files, plan)?;
    let mut study = Study { plan, dir, work, device, files, source, held_out, observer };
    if read_plan(dir)?.is_none() {
        // Find missing training data now, not after hours of work.
        plan.seeds.iter().try_for_each(|&seed| study.training_lines(seed).map(|_| ()))?;
    }
    for folder in [dir, work] {
        write_json(&folder.join(PLAN), plan)?;
    }
    study.evaluate(Arm::Base, None)?;
    for &seed in &plan.seeds {
        for arm in [Arm::LrsaTuned, Arm::DenseTuned] {
            study.train(arm, seed)?;
            study.evaluate(arm, Some(seed))?;
        }
    }
    Ok(())
}

impl Study<'_> {
    fn adapter(&self, arm: Arm, seed: u64) -> PathBuf {
        self.work.join(model_name(arm, Some(seed)))
    }

    /// The cells of a model with their policies, and their results so far.
    fn cells(&self, arm: Arm, seed: Option<u64>) -> Result<Vec<Place>> {
        let read = |policy: Policy| {
            let name = CellName { arm, seed, attention: policy.name().to_string() };
            let cell = name.read(self.dir)?;
            let asked =
                |cell: &Cell| cell.answers.iter().map(|a| &a.id).eq(self.held_out.iter().map(|sample| &sample.id));
            crate::ensure!(
                cell.as_ref().is_none_or(asked),
                "the cell of {}, {} has other questions than this version draws: remove its file to compute it again",
                name.model(),
                name.attention
            );
            Ok((policy, name, cell))
        };
        self.plan.policies()?.into_iter().map(read).collect()
    }

    /// Whether the adapter of a training record is in its folder.
    fn is_trained(&self, arm: Arm, seed: u64) -> Result<bool> {
        let out = self.adapter(arm, seed);
        let Some(record) = TrainingRecord::read(self.dir, arm, seed)? else { return Ok(false) };
        if !out.join("adapter_config.json").exists() {
            return Ok(false);
        }
        Ok(record.adapter.is_none_or(|recorded| checksum(&out).is_ok_and(|found| found == recorded)))
    }

    /// Trains a model if it has missing cells and no adapter yet.
    fn train(&mut self, arm: Arm, seed: u64) -> Result<()> {
        let out = self.adapter(arm, seed);
        if self.is_trained(arm, seed)? || is_complete(&self.cells(arm, Some(seed))?) {
            return Ok(());
        }
        let what = format!("training {}", model_name(arm, Some(seed)));
        self.observer.started(&what);
        let Some(mut job) = self.plan.job(arm, seed) else { return Ok(()) };
        job.data = self.training_data(seed).with_context(|| what.clone())?;
        job.out = out;
        let mut watch = Watch { observer: self.observer, total: job.steps.unwrap_or(0) as usize, losses: vec![] };
        let summary = run_opened(&job, &self.files, self.device, &mut watch).with_context(|| what.clone())?;
        let losses = watch.losses;
        let adapter = checksum(&self.adapter(arm, seed))?;
        self.ensure_same(arm, seed, &adapter, &self.cells(arm, Some(seed))?)?;
        let last = &losses[losses.len().saturating_sub(10)..];
        let record = TrainingRecord {
            arm,
            seed,
            adapter: Some(adapter),
            steps: summary.steps,
            last_loss: last.iter().sum::<f64>() / last.len().max(1) as f64,
            tokens: summary.tokens,
            seconds: summary.seconds,
            peak_bytes: summary.peak_bytes,
            device: self.device.name(),
            losses,
        };
        record.write(self.dir)?;
        self.observer.finished(&format!("{what}: loss {:.4} at the end, {:.0} s", record.last_loss, record.seconds));
        Ok(())
    }

    /// The training data of one seed as JSON lines.
    fn training_lines(&self, seed: u64) -> Result<String> {
        let mut text = String::new();
        for turns in self.source.training(&self.files, self.plan, seed)? {
            let line = match (&self.files.template, turns.as_slice()) {
                (Some(_), turns) => {
                    let said = turns.iter().flat_map(|(user, answer)| {
                        [json!({"role": "user", "content": user}), json!({"role": "assistant", "content": answer})]
                    });
                    json!({"messages": said.collect::<Vec<_>>()})
                }
                (None, [(prompt, answer)]) => json!({"prompt": prompt, "completion": answer}),
                (None, _) => {
                    return Err(Error::usage(
                        "`questions`: the model has no chat template, so that it cannot be asked twice about a document",
                    ));
                }
            };
            let _ = writeln!(text, "{line}");
        }
        Ok(text)
    }

    /// Writes the training data of one seed, which both arms share, and returns its folder.
    fn training_data(&self, seed: u64) -> Result<PathBuf> {
        let dir = self.work.join(format!("data-seed-{seed}"));
        let text = self.training_lines(seed)?;
        write_file(&dir.join("train.jsonl"), text)?;
        Ok(dir)
    }

    /// Computes the missing cells of a model.
    fn evaluate(&mut self, arm: Arm, seed: Option<u64>) -> Result<()> {
        let cells = self.cells(arm, seed)?;
        if is_complete(&cells) {
            return Ok(());
        }
        let (mut adapter, mut sum) = (None, None);
        if let Some(seed) = seed {
            let folder = self.adapter(arm, seed);
            adapter = ModelFiles::open(&self.plan.model, Some(&folder))?.adapter;
            let found = checksum(&folder)?;
            self.ensure_same(arm, seed, &found, &cells)?;
            sum = Some(found);
        }
        let mut loaded = load(self.device, &self.files.source, adapter.as_ref(), Train::Nothing)?;
        for (policy, name, _) in cells.into_iter().filter(|(_, _, cell)| cell.is_none()) {
            let what = format!("{}, {}", name.model(), policy.name());
            self.observer.started(&what);
            let cell = self.cell(name, sum.clone(), &policy, &mut loaded).with_context(|| what.clone())?;
            cell.write(self.dir)?;
            let means: Vec<String> = cell.means.iter().map(|m| format!("{m:.3}")).collect();
            let figures = cell.metrics.iter().zip(&means).map(|(metric, mean)| format!("{metric} {mean}"));
            let figures = figures.collect::<Vec<_>>().join(", ");
            self.observer.finished(&format!("{what}: {figures}, {:.0} s", cell.seconds));
        }
        Ok(())
    }

    /// Fails if existing cells were computed with another adapter.
    fn ensure_same(&self, arm: Arm, seed: u64, sum: &str, cells: &[Place]) -> Result<()> {
        for (_, name, cell) in cells {
            let other = cell.as_ref().and_then(|cell| cell.adapter.as_deref());
            crate::ensure!(
                other.is_none_or(|other| other == sum),
                "the cell of {}, {} was computed with another adapter than the one in {}: remove the model's cells to compute them again",
                name.model(),
                name.attention,
                self.adapter(arm, seed).display()
            );
        }
        Ok(())
    }

    fn cell(&mut self, name: CellName, adapter: Option<String>, policy: &Policy, loaded: &mut Loaded) -> Result<Cell> {
        let start = Instant::now();
        let (task, device) = (self.source.task(), self.device.name());
        let mut subject = Subject {
            max_positions: self.files.config().max_positions,
            device: self.device,
            model: &mut loaded.model,
            files: &self.files,
            chunk: DEFAULT_CHUNK,
            chat: true,
        };
        let observer = &mut self.observer;
        let mut watch = |done, total| {
            observer.progress(done, total);
            ControlFlow::Continue(())
        };
        let outcomes = answer_all(&mut subject, task, &self.held_out, std::slice::from_ref(policy), &mut watch)?;
        let n = outcomes.len() as f64;
        let mean = |f: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(f).sum::<f64>() / n;
        let means = (0..task.metrics().len()).map(|i| mean(&|o| o.scores[i])).collect();
        let kv_entries = mean(&|o| o.kv_entries as f64);
        let answer = |o: Outcome| Answer {
            id: o.id,
            document: o.document,
            answer: o.answer,
            expected: o.expected,
            scores: o.scores,
        };
        Ok(Cell {
            name,
            adapter,
            metrics: task.metrics().map(String::from).to_vec(),
            means,
            kv_entries,
            device,
            layers: self.files.config().windows_note(),
            seconds: start.elapsed().as_secs_f64(),
            answers: outcomes.into_iter().map(answer).collect(),
        })
    }
}

/// Forwards training progress and records the losses.
struct Watch<'a> {
    observer: &'a mut dyn StudyObserver,
    total: usize,
    losses: Vec<f64>,
}

impl Observer for Watch<'_> {
    fn step(&mut self, line: &StepLine) {
        self.losses.push(line.loss);
        self.observer.progress(line.step as usize, self.total);
    }
}
