//! The plan of a study: the models to compare and all settings, saved as `study.json` next to the
//! results.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attention::Lrsa;
use crate::checkpoint::bundled::MOBY_DICK;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::record::AttentionRecord;
use crate::error::{Context, Error, Result};
use crate::eval::{
    Haystack, NeedleGrid, Policy, QaFile, QaGrid, Sample, Task, needle_samples, needle_training, qa_samples,
    qa_training,
};
use crate::optim::Schedule;
use crate::train::{Keep, TrainJob};

/// Number of depths of hidden keys, spaced evenly over the text.
const N_DEPTHS: usize = 8;

/// The kind of questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StudyTask {
    /// A pass key hidden in a text.
    #[default]
    Needle,
    /// Questions about documents.
    Qa,
}

/// A model to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The unchanged model.
    Base,
    /// Fine-tuned with dense attention.
    DenseTuned,
    /// Fine-tuned with LRSA, on the same data for the same number of steps.
    LrsaTuned,
}

impl Arm {
    /// All arms.
    pub const ALL: [Self; 3] = [Self::Base, Self::DenseTuned, Self::LrsaTuned];

    /// Name, also used in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::DenseTuned => "dense-tuned",
            Self::LrsaTuned => "LRSA-tuned",
        }
    }
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
    /// Questions per document, in evaluation and in a training step. A text has one pass key.
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
    /// S, in training and evaluation.
    pub sink: usize,
    /// L, in training and evaluation.
    pub lag: usize,
    /// Values of r for training with LRSA; each step draws one.
    pub keeps: Vec<Keep>,
    /// Names of the attentions to evaluate every model with.
    pub attentions: Vec<String>,
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
            sink: 16,
            lag: 64,
            keeps: [0.5, 0.25, 0.125].map(Keep::Fixed).to_vec(),
            attentions: ["dense", "2x", "4x", "8x"].map(String::from).to_vec(),
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
            ("`attentions`", self.attentions.len()),
        ] {
            if n == 0 {
                return Err(Error::usage(format!("{what}: a study needs at least one")));
            }
        }
        let mut names: Vec<&str> = self.attentions.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() < self.attentions.len() || names.iter().any(|n| n.trim() != *n) {
            return Err(Error::usage("`attentions`: each name once, without spaces"));
        }
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() < self.seeds.len() {
            return Err(Error::usage("`seeds`: each seed once"));
        }
        if self.task == StudyTask::Qa && self.data.is_none() {
            return Err(Error::usage("`data`: the task qa needs a file of questions"));
        }
        if self.task == StudyTask::Needle && self.questions > 1 {
            return Err(Error::usage("`questions`: a text has one pass key; more than one question needs `task` qa"));
        }
        self.policies()?;
        let ends = self.keeps.iter().flat_map(|keep| keep.ends());
        ends.into_iter().try_for_each(|keep| Lrsa::new(self.sink, self.lag, keep).map(|_| ()))
    }

    /// The attention policies to evaluate every model with.
    pub fn policies(&self) -> Result<Vec<Policy>> {
        self.attentions.iter().map(|name| Policy::parse(name, self.sink, self.lag, self.eval_seed)).collect()
    }

    /// The training job of one arm with one seed, without its paths. `None` for the base model.
    pub fn job(&self, arm: Arm, seed: u64) -> Option<TrainJob> {
        let (attention, keeps) = match arm {
            Arm::Base => return None,
            Arm::DenseTuned => (AttentionRecord::Dense, vec![]),
            Arm::LrsaTuned => {
                let (sink, lag, keep) = (self.sink, self.lag, self.keeps[0].end());
                (AttentionRecord::Lrsa { sink, lag, keep }, self.keeps.clone())
            }
        };
        Some(TrainJob {
            model: self.model.clone(),
            steps: Some(self.steps),
            rank: Some(self.rank),
            lr: Some(self.lr),
            warmup: self.warmup,
            schedule: self.schedule,
            recompute: self.recompute,
            save_every: 0,
            seed,
            attention: Some(attention),
            keeps,
            ..TrainJob::default()
        })
    }

    /// Opens the source of the questions.
    pub fn source(&self, files: &ModelFiles) -> Result<Source> {
        match self.task {
            StudyTask::Needle => {
                let text = match &self.text {
                    Some(path) => {
                        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?
                    }
                    None => MOBY_DICK.to_string(),
                };
                Ok(Source::Text(Haystack::new(&text, files)?))
            }
            StudyTask::Qa => {
                let path = self.data.as_ref().ok_or_else(|| Error::usage("`data` is missing"))?;
                Ok(Source::Questions(QaFile::read(path)?))
            }
        }
    }
}

/// An open source of questions.
pub enum Source {
    Text(Haystack),
    Questions(QaFile),
}

impl Source {
    /// The task that scores the answers.
    pub fn task(&self) -> Task {
        match self {
            Self::Text(_) => Task::Needle,
            Self::Questions(file) if file.is_hotpot => Task::HotpotQa,
            Self::Questions(_) => Task::Qa,
        }
    }

    /// The held-out questions.
    pub fn held_out(&self, files: &ModelFiles, plan: &StudyPlan) -> Result<Vec<Sample>> {
        match self {
            Self::Text(haystack) => {
                let n_depths = N_DEPTHS.min(plan.samples);
                let grid = NeedleGrid {
                    lengths: vec![plan.length],
                    depths: (0..n_depths).map(|i| (i as f64 + 0.5) / n_depths as f64).collect(),
                    n_samples: plan.samples.div_ceil(n_depths),
                    seed: plan.eval_seed,
                };
                let mut samples = needle_samples(files, haystack, &grid)?;
                if samples.len() > plan.samples {
                    // Remove samples from every depth, not only from the last ones.
                    let n = grid.n_samples;
                    let mut order: Vec<usize> = (0..samples.len()).collect();
                    order.sort_by_key(|&i| (i % n, i / n));
                    order.truncate(plan.samples);
                    samples = order.into_iter().map(|i| samples[i].clone()).collect();
                }
                Ok(samples)
            }
            Self::Questions(file) => {
                let (lengths, per_document) = (vec![plan.length], plan.questions);
                qa_samples(
                    files,
                    file,
                    &QaGrid { lengths, n_samples: plan.samples, per_document, seed: plan.eval_seed },
                )
            }
        }
    }

    /// Training data for this seed, one conversation per step: a list of user messages with the
    /// right answers.
    pub fn training(&self, files: &ModelFiles, plan: &StudyPlan, seed: u64) -> Result<Vec<Vec<(String, String)>>> {
        let n = plan.steps as usize;
        match self {
            Self::Text(haystack) => {
                let samples = needle_training(files, haystack, plan.length, n, seed)?;
                Ok(samples.into_iter().map(|s| vec![(s.prompt, s.answers[0].clone())]).collect())
            }
            Self::Questions(file) => qa_training(files, file, plan.length, n, plan.questions, seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_study_names_its_field() {
        type Change = fn(&mut StudyPlan);
        let cases: [(&str, Change); 11] = [
            ("`samples`", |p| p.samples = 0),
            ("`questions`", |p| p.questions = 0),
            ("`questions`", |p| p.questions = 2),
            ("`seeds`", |p| p.seeds = vec![]),
            ("`seeds`", |p| p.seeds = vec![1, 2, 1]),
            ("`data`", |p| p.task = StudyTask::Qa),
            ("`keep`", |p| p.keeps = vec![Keep::Fixed(0.001)]),
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
    fn both_arms_train_alike_but_for_the_attention() {
        let plan = StudyPlan::default();
        let dense = plan.job(Arm::DenseTuned, 3).unwrap();
        let lrsa = plan.job(Arm::LrsaTuned, 3).unwrap();
        assert_eq!(TrainJob { attention: lrsa.attention.clone(), keeps: lrsa.keeps.clone(), ..dense }, lrsa);
        assert_eq!(plan.job(Arm::Base, 0), None);
        dense_and_lrsa_are_valid(&plan);
    }

    fn dense_and_lrsa_are_valid(plan: &StudyPlan) {
        for arm in [Arm::DenseTuned, Arm::LrsaTuned] {
            plan.job(arm, 0).unwrap().validate().unwrap();
        }
    }
}
