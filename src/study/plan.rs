//! The plan of a study: the models to compare and all settings, saved as `study.json` next to the
//! results.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::recipe::{Recipe, TrainedWith};
use super::test_set::{Test, TestKind};
use crate::attention::Lrsa;
use crate::checkpoint::record::AttentionRecord;
use crate::error::{Context, Error, Result};
use crate::eval::{Policy, RulerTask};
use crate::optim::Schedule;
use crate::train::{ChunkLength, Keep, TrainJob};

/// The kind of questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StudyTask {
    /// A pass key hidden in a text.
    #[default]
    Needle,
    /// Questions about documents.
    Qa,
    /// Pass keys; training alternates them with named codes, four in a text (multi-key), which `also`
    /// can ask for.
    Retrieval,
}

/// The settings of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StudyPlan {
    /// Folder, GGUF file or Hugging Face repo id of the model.
    pub model: String,
    pub task: StudyTask,
    /// Text to hide keys in; by default the bundled one.
    pub text: Option<PathBuf>,
    /// File of questions in the format of SQuAD or HotpotQA.
    pub data: Option<PathBuf>,
    /// Most tokens of a prompt.
    pub length: usize,
    /// Held-out questions, the same for every model.
    pub samples: usize,
    /// Questions per document, in evaluation and in a training step; for the task retrieval, per
    /// text of several codes. A text has one pass key.
    pub questions: usize,
    /// Seed of the held-out questions.
    pub eval_seed: u64,
    /// Seeds of the training runs. Each determines the data, its order and the adapter's
    /// initialisation.
    pub seeds: Vec<u64>,
    /// Optimiser steps. Each uses one new text with its questions.
    pub steps: u64,
    pub rank: usize,
    pub lr: f64,
    pub warmup: u64,
    pub schedule: Schedule,
    pub recompute: bool,
    /// Tokens of the chunks in which long texts stream in training.
    pub chunk: ChunkLength,
    /// S, in training and evaluation.
    pub sink: usize,
    /// L, in training and evaluation.
    pub lag: usize,
    /// Values of r for training with LRSA; each step draws one.
    pub keeps: Vec<Keep>,
    /// The models to train. Every study also evaluates the unchanged model.
    pub recipes: Vec<Recipe>,
    /// Names of the attentions to evaluate every model with.
    pub attentions: Vec<String>,
    /// More tests for every model beside the main questions.
    pub also: Vec<Test>,
    /// Held-out text for perplexity and agreement; by default the held-out part of `text`.
    pub book: Option<PathBuf>,
    /// Windows of that text.
    pub windows: usize,
}

impl Default for StudyPlan {
    /// The settings of the published study, without the model.
    fn default() -> Self {
        Self {
            model: String::new(),
            task: StudyTask::Needle,
            text: None,
            data: None,
            length: 1000,
            samples: 64,
            questions: 1,
            eval_seed: 1_000_000,
            seeds: vec![0, 1, 2],
            steps: 60,
            rank: 16,
            lr: 5e-4,
            warmup: 5,
            schedule: Schedule::Linear,
            recompute: false,
            chunk: ChunkLength::Auto,
            sink: 16,
            lag: 64,
            keeps: vec![Keep::Fixed(0.5), Keep::Fixed(0.25), Keep::Fixed(0.125)],
            recipes: vec![Recipe::dense_tuned(), Recipe::lrsa_tuned()],
            attentions: ["dense", "2x", "4x", "8x"].map(String::from).to_vec(),
            also: vec![],
            book: None,
            windows: 16,
        }
    }
}

impl StudyPlan {
    /// Fails if the study cannot run.
    pub fn validate(&self) -> Result<()> {
        for (what, n) in [
            ("`samples`", self.samples),
            ("`questions`", self.questions),
            ("`seeds`", self.seeds.len()),
            ("`steps`", self.steps as usize),
            ("`keep`", self.keeps.len()),
            ("`recipe`", self.recipes.len()),
            ("`attentions`", self.attentions.len()),
            ("`windows`", self.windows),
        ] {
            if n == 0 {
                return Err(Error::usage(format!("{what}: a study needs at least one")));
            }
        }
        if repeats(self.attentions.iter()) || self.attentions.iter().any(|n| n.trim() != n) {
            return Err(Error::usage("`attentions`: each name once, without spaces"));
        }
        if repeats(self.seeds.iter()) {
            return Err(Error::usage("`seeds`: each seed once"));
        }
        if repeats(self.recipes.iter().map(|recipe| &recipe.name)) {
            return Err(Error::usage("`recipe`: each name once"));
        }
        if repeats(self.also.iter().map(Test::to_string)) {
            return Err(Error::usage("`also`: each test once"));
        }
        if self.task == StudyTask::Qa && self.data.is_none() {
            return Err(Error::usage("`data`: the task qa needs a file of questions"));
        }
        let (most, why) = match self.task {
            StudyTask::Needle => (1, "a text has one pass key; the tasks qa and retrieval take more"),
            StudyTask::Retrieval => (RulerTask::MultiKey.questions(), "a text has four codes"),
            StudyTask::Qa => (usize::MAX, ""),
        };
        if self.questions > most {
            return Err(Error::usage(format!("`questions`: {why}")));
        }
        self.policies()?;
        self.recipes.iter().try_for_each(|recipe| {
            recipe.check_name()?;
            self.job(recipe, 0).validate().with_context(|| format!("`recipe` {}", recipe.name))
        })
    }

    /// Steps of a recipe.
    pub fn steps_of(&self, recipe: &Recipe) -> u64 {
        recipe.steps.unwrap_or(self.steps)
    }

    /// Whether this plan is `kept` with nothing changed but with recipes, seeds, attentions or tests
    /// added, so that the results so far are results of both. Settings of tests that `kept` lacks may
    /// change, too.
    pub fn extends(&self, kept: &Self) -> bool {
        fn has<T: PartialEq>(all: &[T], some: &[T]) -> bool {
            some.iter().all(|one| all.contains(one))
        }
        let reads_book = |test: &Test| matches!(test.kind, TestKind::Perplexity | TestKind::Agreement);
        let of_book = if kept.also.iter().any(reads_book) { kept } else { self };
        let (book, windows) = (of_book.book.clone(), of_book.windows);
        let Self { recipes, seeds, attentions, also, .. } = self.clone();
        *self == Self { recipes, seeds, attentions, also, book, windows, ..kept.clone() }
            && has(&self.recipes, &kept.recipes)
            && has(&self.seeds, &kept.seeds)
            && has(&self.attentions, &kept.attentions)
            && has(&self.also, &kept.also)
    }

    /// The attention policies to evaluate every model with.
    pub fn policies(&self) -> Result<Vec<Policy>> {
        self.attentions.iter().map(|name| self.policy(name)).collect()
    }

    /// The attention policy of this name.
    pub fn policy(&self, name: &str) -> Result<Policy> {
        Policy::parse(name, self.sink, self.lag, self.eval_seed)
    }

    /// The training job of a recipe with one seed, without its paths.
    pub fn job(&self, recipe: &Recipe, seed: u64) -> TrainJob {
        let keeps = if recipe.keeps.is_empty() { &self.keeps } else { &recipe.keeps };
        let (attention, keeps) = match recipe.attention {
            TrainedWith::Dense => (AttentionRecord::Dense, Some(recipe.keeps.clone())),
            TrainedWith::Lrsa => {
                let keep = keeps.first().map_or(Lrsa::DEFAULT_KEEP, |keep| keep.end());
                (AttentionRecord::Lrsa { sink: self.sink, lag: self.lag, keep }, Some(keeps.clone()))
            }
        };
        TrainJob {
            model: self.model.clone(),
            steps: Some(self.steps_of(recipe)),
            rank: Some(self.rank),
            lr: Some(recipe.lr.unwrap_or(self.lr)),
            warmup: self.warmup,
            schedule: self.schedule,
            recompute: self.recompute,
            chunk: self.chunk,
            save_every: 20,
            keep_checkpoints: 1,
            seed,
            attention: Some(attention),
            keeps,
            distill: recipe.distill,
            teacher: recipe.teacher,
            ..TrainJob::default()
        }
    }
}

/// Whether an element occurs twice.
fn repeats<T: Ord>(all: impl Iterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    all.into_iter().any(|one| !seen.insert(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Teacher;

    #[test]
    fn what_is_no_study_names_its_field() {
        type Change = fn(&mut StudyPlan);
        let cases: [(&str, Change); 16] = [
            ("`samples`", |p| p.samples = 0),
            ("`questions`", |p| p.questions = 0),
            ("`questions`", |p| p.questions = 2),
            ("`questions`", |p| (p.task, p.questions) = (StudyTask::Retrieval, 5)),
            ("`seeds`", |p| p.seeds = vec![]),
            ("`seeds`", |p| p.seeds = vec![1, 2, 1]),
            ("`data`", |p| p.task = StudyTask::Qa),
            ("`keep`", |p| p.keeps = vec![Keep::Fixed(0.001)]),
            ("`keep`", |p| p.keeps = vec![Keep::Anneal { from: 0.5, to: 0.001 }]),
            ("`recipe`", |p| p.recipes = vec![]),
            ("`recipe`", |p| p.recipes[1].name = "dense-tuned".into()),
            ("`also`", |p| p.also = vec!["needle-2000".parse().unwrap(); 2]),
            ("dense", |p| p.attentions = vec!["sparse".into()]),
            ("`steps`", |p| p.steps = 0),
            ("`attentions`", |p| p.attentions = vec!["4x".into(), "4x".into()]),
            ("`attentions`", |p| p.attentions = vec![" 4x".into()]),
        ];
        StudyPlan::default().validate().unwrap();
        for (field, change) in cases {
            let mut plan = StudyPlan::default();
            change(&mut plan);
            let e = plan.validate().expect_err(field).to_string();
            assert!(e.contains(field), "{field}: {e}");
        }
    }

    #[test]
    fn recipes_train_alike_but_for_what_they_say() {
        let plan = StudyPlan::default();
        let [dense, lrsa] = [&plan.recipes[0], &plan.recipes[1]].map(|recipe| plan.job(recipe, 3));
        assert_eq!(TrainJob { attention: lrsa.attention.clone(), keeps: lrsa.keeps.clone(), ..dense }, lrsa);
        let distilled: Recipe = "lrsa-x:distill=0.5,teacher=self,keep=0.5..0.125,lr=1e-3,steps=9".parse().unwrap();
        let job = plan.job(&distilled, 3);
        assert_eq!((job.distill, job.teacher, job.steps, job.lr), (0.5, Teacher::Oneself, Some(9), Some(1e-3)));
        assert_eq!(job.attention, Some(AttentionRecord::Lrsa { sink: 16, lag: 64, keep: 0.125 }));
        assert_eq!(job.keeps, Some(vec![Keep::Anneal { from: 0.5, to: 0.125 }]));
    }

    #[test]
    fn plans_may_grow_but_not_change() {
        type Change = fn(&mut StudyPlan);
        let kept = StudyPlan::default();
        let with = |change: Change| {
            let mut plan = kept.clone();
            change(&mut plan);
            plan.extends(&kept)
        };
        assert!(with(|_| ()));
        assert!(with(|p| p.recipes.insert(0, "lrsa-x:distill=1".parse().unwrap())));
        assert!(with(|p| p.seeds = vec![3, 2, 1, 0]));
        assert!(with(|p| p.attentions.push("16x".into())));
        assert!(with(|p| p.also.push("needle-2000".parse().unwrap())));
        assert!(with(|p| (p.also, p.windows) = (vec!["perplexity-1000".parse().unwrap()], 8)));
        let kept = StudyPlan { also: vec!["agreement-500".parse().unwrap()], ..kept.clone() };
        assert!(!StudyPlan { windows: 8, ..kept.clone() }.extends(&kept));
        assert!(!with(|p| p.steps = 61));
        assert!(!with(|p| p.seeds = vec![0]));
        assert!(!with(|p| p.recipes[1].distill = 0.5));
        assert!(!with(|p| p.recipes.truncate(1)));
        assert!(!with(|p| p.attentions.truncate(3)));
    }

    #[test]
    fn plans_of_the_first_edition_are_read() {
        let text = include_str!("../../docs/study/passkey-1000/study.json");
        let plan: StudyPlan = serde_json::from_str(text).unwrap();
        assert_eq!(plan.keeps, [0.5, 0.25, 0.125].map(Keep::Fixed));
        let names: Vec<&str> = plan.recipes.iter().map(|recipe| recipe.name.as_str()).collect();
        assert_eq!((names, plan.also.len()), (vec!["dense-tuned", "lrsa-tuned"], 0));
        plan.validate().unwrap();
    }
}
