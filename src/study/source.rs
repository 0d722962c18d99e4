//! The source of a study's questions: a text or a file, opened for a model.

use super::plan::{StudyPlan, StudyTask};
use super::test_set::{Test, TestKind, TestSet};
use crate::checkpoint::bundled::MOBY_DICK;
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::eval::{
    Conversation, Haystack, NeedleGrid, Part, QaFile, QuestionGrid, RulerTask, Sample, Task, needle_samples,
    needle_training, qa_samples, qa_training, ruler_samples, ruler_training,
};

/// Number of depths of hidden keys, spaced evenly over the text.
const N_DEPTHS: usize = 8;

/// An open source of questions.
pub struct Source {
    /// The text to hide facts in; its last two fifths are held out.
    haystack: Haystack,
    /// Questions about documents, for the task qa.
    file: Option<QaFile>,
}

impl Source {
    /// Opens a plan's text and file.
    pub fn open(plan: &StudyPlan, files: &ModelFiles) -> Result<Self> {
        let read = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        let text = plan.text.as_ref().map_or_else(|| Ok(MOBY_DICK.to_string()), read)?;
        let file = match (plan.task, &plan.data) {
            (StudyTask::Qa, None) => return Err(Error::usage("`data` is missing")),
            (StudyTask::Qa, Some(path)) => Some(QaFile::read(path)?),
            _ => None,
        };
        Ok(Self { haystack: Haystack::new(&text, files)?, file })
    }

    /// The main questions.
    pub fn main_test(&self, plan: &StudyPlan, files: &ModelFiles) -> Result<TestSet> {
        let (task, samples) = match &self.file {
            None => (Task::Needle, self.needles(plan, files, plan.length)?),
            Some(file) => {
                let grid = grid(plan, plan.length, plan.questions);
                (if file.is_hotpot { Task::HotpotQa } else { Task::Qa }, qa_samples(files, file, &grid)?)
            }
        };
        Ok(TestSet::Questions { task, samples })
    }

    /// Another test of the plan.
    pub fn test(&self, plan: &StudyPlan, files: &ModelFiles, test: Test) -> Result<TestSet> {
        let Test { kind, length } = test;
        let set = match kind {
            TestKind::Needle => TestSet::Questions { task: Task::Needle, samples: self.needles(plan, files, length)? },
            TestKind::Ruler(task) => {
                let per_text = match plan.task {
                    StudyTask::Retrieval => plan.questions.min(task.questions()),
                    StudyTask::Needle | StudyTask::Qa => 1,
                };
                let samples = ruler_samples(files, &self.haystack, task, &grid(plan, length, per_text))?;
                TestSet::Questions { task: Task::Ruler, samples }
            }
            TestKind::Perplexity | TestKind::Agreement => {
                let ids = self.book(plan, files)?;
                if plan.windows.checked_mul(length).is_none_or(|wanted| ids.len() < wanted) {
                    return Err(Error::usage(format!(
                        "the held-out text has {} tokens, fewer than the {} windows of {length} that {test} reads: \
                         lower `windows` or give a longer `book`",
                        ids.len(),
                        plan.windows
                    )));
                }
                match kind {
                    TestKind::Perplexity => TestSet::Perplexity { ids, length, windows: plan.windows },
                    _ => TestSet::Agreement { ids, length, prompts: plan.windows },
                }
            }
        };
        Ok(set)
    }

    fn needles(&self, plan: &StudyPlan, files: &ModelFiles, length: usize) -> Result<Vec<Sample>> {
        let n_depths = N_DEPTHS.min(plan.samples);
        let grid = NeedleGrid {
            lengths: vec![length],
            depths: (0..n_depths).map(|i| (i as f64 + 0.5) / n_depths as f64).collect(),
            n_samples: plan.samples.div_ceil(n_depths),
            seed: plan.eval_seed,
        };
        let mut samples = needle_samples(files, &self.haystack, &grid)?;
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

    /// The tokens of the plan's book, or of the held-out part of the text.
    fn book(&self, plan: &StudyPlan, files: &ModelFiles) -> Result<Vec<u32>> {
        let text = match &plan.book {
            Some(path) => {
                std::fs::read_to_string(path).with_context(|| format!("reading `book` {}", path.display()))?
            }
            None => self.haystack.text(Part::HeldOut),
        };
        files.tokenizer()?.encode(&text, true)
    }

    /// Training data of `n` steps for this seed, one conversation per step.
    pub fn training(&self, files: &ModelFiles, plan: &StudyPlan, n: usize, seed: u64) -> Result<Vec<Conversation>> {
        let alone = |s: Sample| vec![(s.prompt, s.answers[0].clone())];
        let text = &self.haystack;
        match (plan.task, &self.file) {
            (_, Some(file)) => qa_training(files, file, plan.length, n, plan.questions, seed),
            (StudyTask::Retrieval, None) => {
                let keys = needle_training(files, text, plan.length, n.div_ceil(2), seed)?;
                let size = (plan.length, plan.questions);
                let codes = ruler_training(files, text, RulerTask::MultiKey, size, n / 2, seed)?;
                Ok(keys.into_iter().map(alone).chain(codes).collect())
            }
            _ => Ok(needle_training(files, text, plan.length, n, seed)?.into_iter().map(alone).collect()),
        }
    }
}

/// The held-out questions of a plan about texts of this length.
fn grid(plan: &StudyPlan, length: usize, per_text: usize) -> QuestionGrid {
    QuestionGrid { lengths: vec![length], n_samples: plan.samples, per_text, seed: plan.eval_seed }
}
