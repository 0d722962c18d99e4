//! Counts the examples of training data, and says what a run evaluates and how often.

use std::path::{Path, PathBuf};

use crate::data::sources::files::Files;
use crate::data::sources::read::read;
use crate::error::Result;
use crate::train::TrainJob;

/// The share of the examples to hold out where there is no validation data, and about how many of
/// them at most.
const HELD_OUT: f64 = 0.1;
const MOST_HELD_OUT: f64 = 50.0;
/// Fewest and most evaluations of a run.
const EVALUATIONS: (u64, u64) = (4, 10);
/// Steps of a run whose data is not counted yet, for the interval of its evaluations.
const SOME_STEPS: u64 = 200;

/// The number of examples of training data, or why they cannot be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataCounts {
    pub path: PathBuf,
    pub n_train: usize,
    /// Of the validation data beside it.
    pub n_valid: usize,
    pub problem: Option<String>,
}

impl DataCounts {
    /// Counts the records of the files that a run reads.
    pub fn of(path: &Path) -> Self {
        let count = |files: &[PathBuf]| -> Result<usize> {
            let mut n = 0;
            for file in files {
                read(file, &mut |_, _| {
                    n += 1;
                    Ok(())
                })?;
            }
            Ok(n)
        };
        let counted = || -> Result<(usize, usize)> {
            Files::check_named(path)?;
            let files = Files::find(path)?;
            Ok((count(&files.train)?, count(&files.valid)?))
        };
        let found = Self { path: path.to_path_buf(), ..Self::default() };
        match counted() {
            Ok((n_train, n_valid)) => Self { n_train, n_valid, ..found },
            Err(e) => Self { problem: Some(super::labels::in_words(&e.to_string())), ..found },
        }
    }

    /// The fraction of the examples to hold out for validation.
    pub fn held_out(&self) -> Option<f64> {
        let n = self.n_train as f64;
        if self.n_valid > 0 || self.n_train == 1 {
            return None;
        }
        let most = (MOST_HELD_OUT / n.max(1.0) * 1e4).round().max(1.0) / 1e4;
        Some(HELD_OUT.min(most))
    }
}

/// The fraction to hold out of data, if its counts are known or not.
pub fn held_out(counts: Option<&DataCounts>) -> Option<f64> {
    counts.map_or(Some(HELD_OUT), DataCounts::held_out)
}

/// After how many steps a run evaluates: 4 to 10 times, fewer where the validation data is large
/// beside what the run trains on.
pub fn eval_every(job: &TrainJob, counts: Option<&DataCounts>) -> u64 {
    let per_step = (job.batch_size * job.accumulate).max(1) as u64;
    let n_train = counts.map_or(0, |counts| counts.n_train) as f64;
    let (n_train, n_valid) = match (counts, job.valid_fraction) {
        (Some(counts), None) => (n_train, counts.n_valid as f64),
        (_, fraction) => (n_train * (1.0 - fraction.unwrap_or(0.0)), n_train * fraction.unwrap_or(0.0)),
    };
    let steps = match (job.steps, counts) {
        (Some(steps), _) => steps,
        (None, Some(_)) => job.epochs.unwrap_or(1).saturating_mul((n_train as u64).div_ceil(per_step)),
        (None, None) => SOME_STEPS,
    };
    // An evaluation costs about a third of a training step on as many examples.
    let affordable = 3.0 * steps.saturating_mul(per_step) as f64 / n_valid.max(1.0);
    let times = (affordable as u64).clamp(EVALUATIONS.0, EVALUATIONS.1);
    (steps / times).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(n_train: usize, n_valid: usize) -> DataCounts {
        DataCounts { n_train, n_valid, ..DataCounts::default() }
    }

    #[test]
    fn a_tenth_is_held_out_unless_there_is_validation_data() {
        assert_eq!(held_out(None), Some(0.1));
        assert_eq!(counts(300, 0).held_out(), Some(0.1));
        assert_eq!(counts(10_000, 0).held_out(), Some(0.005));
        assert_eq!(counts(300, 5).held_out(), None);
        assert_eq!(counts(1, 0).held_out(), None, "there is nothing left to hold out");
        assert_eq!(counts(10_000_000, 0).held_out(), Some(0.0001));
    }

    #[test]
    fn a_run_evaluates_several_times() {
        let steps = |n| TrainJob { steps: Some(n), ..TrainJob::default() };
        assert_eq!(eval_every(&steps(100), Some(&counts(300, 20))), 10);
        assert_eq!(
            eval_every(&steps(100), Some(&counts(300, 60))),
            20,
            "5 evaluations of 60 cost as much as 100 steps"
        );
        assert_eq!(eval_every(&steps(20), Some(&counts(300, 1000))), 5, "4 at least");
        assert_eq!(eval_every(&steps(3), None), 1);
        let epochs = TrainJob { epochs: Some(3), batch_size: 2, accumulate: 5, ..TrainJob::default() };
        assert_eq!(eval_every(&epochs, Some(&counts(400, 10))), 12, "3 epochs of 40 steps");
        let held = TrainJob { valid_fraction: Some(0.1), ..epochs };
        assert_eq!(eval_every(&held, Some(&counts(400, 0))), 10, "3 epochs of 36 steps, each of 10 examples");
        assert_eq!(eval_every(&held, None), 20);
    }

    #[test]
    fn records_of_both_parts_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train.jsonl"), "{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
        assert_eq!(DataCounts::of(dir.path()), DataCounts { path: dir.path().into(), ..counts(2, 0) });
        std::fs::write(dir.path().join("valid.jsonl"), "{\"text\": \"c\"}\n").unwrap();
        assert_eq!(DataCounts::of(dir.path()), DataCounts { path: dir.path().into(), ..counts(2, 1) });
        let missing = DataCounts::of(&dir.path().join("none"));
        assert!(missing.problem.as_ref().is_some_and(|why| why.contains("data") && why.contains("does not exist")));
        assert!(DataCounts::of(Path::new("moby-dick")).n_valid > 0);
    }
}
