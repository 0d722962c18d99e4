//! Runs the missing parts of a study: trains each model, then computes its cells and saves each at
//! once.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::cell::{Answer, Cell, CellName, ModelName, TrainingRecord, checksum, read_json, write_json};
use super::plan::StudyPlan;
use super::recipe::{LossOn, Recipe};
use super::source::Source;
use super::test_set::{Test, TestSet};
use crate::atomic_file::write_file;
use crate::checkpoint::load::{Loaded, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::data::dataset::Reader;
use crate::error::{Context, Error, Result};
use crate::eval::{Outcome, Policy, Subject};
use crate::generate::DEFAULT_CHUNK;
use crate::gpu::Executor;
use crate::train::{Held, Observer, StepLine, held, read_steps, run_opened};

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

/// Name of a cell, the test and the policy, and the cell itself if it is computed.
struct Place {
    name: CellName,
    /// Index in [`Study::tests`].
    test: usize,
    policy: Policy,
    cell: Option<Cell>,
}

fn is_complete(cells: &[Place]) -> bool {
    cells.iter().all(|place| place.cell.is_some())
}

struct Study<'a> {
    plan: &'a StudyPlan,
    dir: &'a Path,
    work: &'a Path,
    /// Maximum number of answers at once.
    batch: usize,
    device: &'a mut dyn Executor,
    files: ModelFiles,
    source: Source,
    /// The main test, and the plan's others.
    tests: Vec<(Option<Test>, TestSet)>,
    observer: &'a mut dyn StudyObserver,
}

/// Runs the missing parts of the study in `dir`. Adapters and training data go to `work`. Fails if
/// either folder belongs to another study; one with fewer recipes, seeds, attentions or tests grows.
/// Up to `batch` answers are generated at once, which changes none of them ([`Subject::batch`]).
pub fn run(
    plan: &StudyPlan,
    dir: &Path,
    work: &Path,
    batch: usize,
    device: &mut dyn Executor,
    observer: &mut dyn StudyObserver,
) -> Result<()> {
    plan.validate()?;
    // Check both folders first, so that a rejected study leaves no files.
    for folder in [dir, work] {
        if read_plan(folder)?.is_some_and(|kept| !plan.extends(&kept)) {
            return Err(Error::usage(format!(
                "{} holds a study with other settings ({PLAN}): choose another folder, or omit the settings to continue it",
                folder.display()
            )));
        }
    }
    let files = ModelFiles::open(&plan.model, None)?;
    let source = Source::open(plan, &files)?;
    let mut tests = vec![(None, source.main_test(plan, &files)?)];
    for &test in &plan.also {
        tests.push((Some(test), source.test(plan, &files, test)?));
    }
    let (longest, limit) =
        (tests.iter().map(|(_, set)| set.longest()).max().unwrap_or(0), files.config().max_positions);
    if longest > limit {
        return Err(Error::usage(format!(
            "prompts with their answers have up to {longest} tokens, more than the {limit} positions that the model allows: \
             ask for shorter ones (`length`, `also`)"
        )));
    }
    let mut study = Study { plan, dir, work, batch, device, files, source, tests, observer };
    if read_plan(dir)?.is_none() {
        // Find missing training data now, not after hours of work.
        let most = plan.recipes.iter().map(|recipe| plan.steps_of(recipe)).max().unwrap_or(plan.steps);
        plan.seeds.iter().try_for_each(|&seed| study.training_lines(most, seed).map(|_| ()))?;
    }
    for folder in [dir, work] {
        write_json(&folder.join(PLAN), plan)?;
    }
    study.evaluate(&ModelName::base())?;
    for &seed in &plan.seeds {
        for recipe in &plan.recipes {
            study.train(recipe, seed)?;
            study.evaluate(&ModelName::trained(&recipe.name, seed))?;
        }
    }
    Ok(())
}

impl Study<'_> {
    fn adapter(&self, model: &ModelName) -> PathBuf {
        self.work.join(model.to_string())
    }

    /// The cells of a model, and their results so far.
    fn cells(&self, model: &ModelName) -> Result<Vec<Place>> {
        let read = |name: CellName| {
            let cell = name.read(self.dir)?;
            let test =
                self.tests.iter().position(|(test, _)| *test == name.test).expect("a cell's test is in the plan");
            let ids = self.tests[test].1.ids();
            crate::ensure!(
                cell.as_ref().is_none_or(|cell| cell.answers.iter().map(|answer| &answer.id).eq(&ids)),
                "the cell {name} has other questions than this version draws: remove its file to compute it again"
            );
            let policy = self.plan.policy(&name.attention)?;
            Ok(Place { name, test, policy, cell })
        };
        CellName::of_model(self.plan, model).into_iter().map(read).collect()
    }

    /// Whether the adapter of a training record is in its folder.
    fn is_trained(&self, model: &ModelName) -> Result<bool> {
        let out = self.adapter(model);
        let Some(record) = TrainingRecord::read(self.dir, model)? else { return Ok(false) };
        if !out.join("adapter_config.json").exists() {
            return Ok(false);
        }
        Ok(record.adapter.is_none_or(|recorded| checksum(&out).is_ok_and(|found| found == recorded)))
    }

    /// Trains a model if it has missing cells and no adapter yet.
    fn train(&mut self, recipe: &Recipe, seed: u64) -> Result<()> {
        let model = ModelName::trained(&recipe.name, seed);
        let out = self.adapter(&model);
        if self.is_trained(&model)? || is_complete(&self.cells(&model)?) {
            return Ok(());
        }
        let what = format!("training {model}");
        self.observer.started(&what);
        let mut job = self.plan.job(recipe, seed);
        job.data = self.training_data(recipe, seed).with_context(|| what.clone())?;
        job.out = out.clone();
        // A run that was stopped goes on; one whose result is not what the record says begins anew.
        job.overwrite = held(&job)? != Held::Unfinished;
        let mut watch = Watch { observer: self.observer, total: self.plan.steps_of(recipe) as usize };
        let summary = run_opened(&job, &self.files, self.device, &mut watch).with_context(|| what.clone())?;
        let steps = read_steps(&out)?;
        let losses: Vec<f64> = steps.iter().map(|step| step.loss).collect();
        let adapter = checksum(&out)?;
        self.ensure_same(&model, &adapter, &self.cells(&model)?)?;
        let last = &losses[losses.len().saturating_sub(10)..];
        let record = TrainingRecord {
            model,
            adapter: Some(adapter),
            steps: summary.steps,
            last_loss: last.iter().sum::<f64>() / last.len().max(1) as f64,
            tokens: steps.iter().map(|step| step.tokens).sum(),
            seconds: steps.iter().map(|step| step.seconds).sum(),
            peak_bytes: summary.peak_bytes,
            device: self.device.name(),
            losses,
        };
        record.write(self.dir)?;
        self.observer.finished(&format!("{what}: loss {:.4} at the end, {:.0} s", record.last_loss, record.seconds));
        Ok(())
    }

    /// The training data of one seed for `n` steps as JSON lines.
    fn training_lines(&self, n: u64, seed: u64) -> Result<String> {
        let mut text = String::new();
        for turns in self.source.training(&self.files, self.plan, n as usize, seed)? {
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
                        "`questions`: the model has no chat template, so that it cannot be asked twice about a text",
                    ));
                }
            };
            let _ = writeln!(text, "{line}");
        }
        Ok(text)
    }

    /// Writes the training data of a recipe with one seed, and returns its folder. Recipes share it
    /// unless they have their own steps or loss.
    fn training_data(&self, recipe: &Recipe, seed: u64) -> Result<PathBuf> {
        let name = if recipe.has_own_data() {
            format!("data-{}", ModelName::trained(&recipe.name, seed))
        } else {
            format!("data-seed-{seed}")
        };
        let file = self.work.join(&name).join("train.jsonl");
        write_file(&file, self.training_lines(self.plan.steps_of(recipe), seed)?)?;
        if recipe.loss == LossOn::All {
            // The same tokens, without labels that ignore some of them.
            let mut text = String::new();
            for example in Reader::of_model(&self.files).read_file(&file)?.examples {
                let _ = writeln!(text, "{}", json!({"input_ids": example.ids}));
            }
            write_file(&file, text)?;
        }
        Ok(self.work.join(name))
    }

    /// Computes the missing cells of a model.
    fn evaluate(&mut self, model: &ModelName) -> Result<()> {
        let cells = self.cells(model)?;
        if is_complete(&cells) {
            return Ok(());
        }
        let (mut adapter, mut sum) = (None, None);
        if model.seed.is_some() {
            let folder = self.adapter(model);
            adapter = ModelFiles::open(&self.plan.model, Some(&folder))?.adapter;
            let found = checksum(&folder)?;
            self.ensure_same(model, &found, &cells)?;
            sum = Some(found);
        }
        let mut loaded = load(self.device, &self.files.source, adapter.as_ref(), Train::Nothing)?;
        for place in cells.into_iter().filter(|place| place.cell.is_none()) {
            let what = place.name.to_string();
            self.observer.started(&what);
            let cell = self.cell(place, sum.clone(), &mut loaded).with_context(|| what.clone())?;
            cell.write(self.dir)?;
            let means: Vec<String> = cell.means.iter().map(|m| format!("{m:.3}")).collect();
            let figures = cell.metrics.iter().zip(&means).map(|(metric, mean)| format!("{metric} {mean}"));
            let figures = figures.collect::<Vec<_>>().join(", ");
            self.observer.finished(&format!("{what}: {figures}, {:.0} s", cell.seconds));
        }
        Ok(())
    }

    /// Fails if existing cells were computed with another adapter.
    fn ensure_same(&self, model: &ModelName, sum: &str, cells: &[Place]) -> Result<()> {
        for Place { name, cell, .. } in cells {
            let other = cell.as_ref().and_then(|cell| cell.adapter.as_deref());
            crate::ensure!(
                other.is_none_or(|other| other == sum),
                "the cell {name} was computed with another adapter than the one in {}: remove the model's cells to compute them \
                 again",
                self.adapter(model).display()
            );
        }
        Ok(())
    }

    fn cell(&mut self, place: Place, adapter: Option<String>, loaded: &mut Loaded) -> Result<Cell> {
        let start = Instant::now();
        let (set, device) = (&self.tests[place.test].1, self.device.name());
        let mut subject = Subject {
            max_positions: self.files.config().max_positions,
            device: self.device,
            model: &mut loaded.model,
            files: &self.files,
            chunk: DEFAULT_CHUNK,
            batch: self.batch,
            chat: true,
        };
        let observer = &mut self.observer;
        let mut watch = |done, total| {
            observer.progress(done, total);
            ControlFlow::Continue(())
        };
        let outcomes = set.run(&mut subject, &place.policy, &mut watch)?;
        let n = outcomes.len() as f64;
        let mean = |f: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(f).sum::<f64>() / n;
        let metrics = set.metrics();
        let means = (0..metrics.len()).map(|i| mean(&|o| o.scores[i])).collect();
        let kv_entries = mean(&|o| o.kv_entries as f64);
        let answer = |o: Outcome| Answer {
            id: o.id,
            document: o.document,
            answer: o.answer,
            expected: o.expected,
            scores: o.scores,
        };
        Ok(Cell {
            name: place.name,
            adapter,
            metrics,
            means,
            kv_entries,
            device,
            layers: self.files.config().windows_note(),
            seconds: start.elapsed().as_secs_f64(),
            answers: outcomes.into_iter().map(answer).collect(),
        })
    }
}

/// Forwards training progress.
struct Watch<'a> {
    observer: &'a mut dyn StudyObserver,
    total: usize,
}

impl Observer for Watch<'_> {
    fn step(&mut self, line: &StepLine) {
        self.observer.progress(line.step as usize, self.total);
    }
}
