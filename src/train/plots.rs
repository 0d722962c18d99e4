//! Plots of training runs from their logs: the loss, and the other curves of `metrics.jsonl`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::keep_group::KeepGroup;
use super::log_values::tokens_per_second;
use super::observer::StepLine;
use super::run_log::{Logs, METRICS};
use crate::error::{Error, Result};
use crate::plot::{Axis, LineChart, Look, Scale, Series};

/// A curve of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Curve {
    /// Training loss, with the validation loss
    #[default]
    Loss,
    /// Learning rate
    Lr,
    /// Global gradient norm before clipping
    GradNorm,
    /// Tokens per second of each step
    TokensPerSecond,
}

/// One step in so many of a run is in the moving mean.
const MEAN_OF: usize = 10;
/// Fewest steps of a run with a moving mean.
const FEWEST_FOR_MEAN: usize = 20;
/// Most points of the pale line, so that a plot of a long run stays small.
const MOST_POINTS: usize = 2000;

impl Curve {
    fn title(self) -> &'static str {
        match self {
            Self::Loss => "Loss",
            Self::Lr => "Learning rate",
            Self::GradNorm => "Gradient norm",
            Self::TokensPerSecond => "Speed",
        }
    }

    /// `is_entropy`: the loss is cross-entropy alone.
    fn axis(self, is_entropy: bool) -> Axis {
        match self {
            Self::Loss if is_entropy => Axis::new("loss (nats per token)", Scale::Fitted),
            Self::Loss => Axis::new("loss", Scale::Fitted),
            Self::Lr => Axis::new("learning rate", Scale::Linear),
            Self::GradNorm => Axis::new("gradient norm before clipping", Scale::Linear),
            Self::TokensPerSecond => Axis::new("tokens per second", Scale::Linear),
        }
    }

    fn value(self, line: &StepLine) -> Option<f64> {
        let value = match self {
            Self::Loss => Some(line.loss),
            Self::Lr => Some(line.lr),
            Self::GradNorm => Some(line.grad_norm),
            Self::TokensPerSecond => tokens_per_second(line),
        };
        value.filter(|value| value.is_finite())
    }
}

/// Draws a curve of one or more runs against the steps. Each run is the folder that `train` wrote or
/// still writes to. The steps of a single run have one line for each r that they have.
///
/// Fails for a folder without `metrics.jsonl`, and where no run has a value to draw.
pub fn run_chart(runs: &[PathBuf], curve: Curve) -> Result<LineChart> {
    let names = names(runs);
    let (mut series, mut subtitle) = (Vec::new(), String::new());
    let mut title = curve.title().to_string();
    let mut is_entropy = true;
    let mut group = 0;
    for (run, name) in runs.iter().zip(names) {
        let logs = logs_of(run)?;
        is_entropy &= logs.steps.iter().all(|line| line.kl.is_none() && line.pairs.is_none());
        let of_group =
            |group, look, label: &str, points| Series { look, group: Some(group), ..Series::new(label, points) };
        let begun = series.len();
        let validation = logs.evaluations.iter().filter(|line| curve == Curve::Loss && line.loss.is_finite());
        let validation: Vec<_> = validation.map(|line| (line.step as f64, line.loss)).collect();
        let lines = match runs.len() {
            1 if curve != Curve::Lr => KeepGroup::lines(&logs.steps, &name),
            _ => vec![(name.clone(), logs.steps.iter().collect())],
        };
        let has_one_line = lines.len() == 1;
        if !has_one_line {
            title = format!("{title} of {name}"); // which the legend does not name
        }
        for (label, steps) in lines {
            let value = |line: &StepLine| Some((line.step as f64, curve.value(line)?));
            let points: Vec<(f64, f64)> = steps.into_iter().filter_map(value).collect();
            let n = mean_length(points.len());
            if n > 1 && curve != Curve::Lr {
                subtitle = "thin: each step; thick: moving mean over a tenth of the steps".to_string();
                series.push(of_group(group, Look::Pale, "", thinned(&points)));
                series.push(of_group(group, Look::Solid, &label, moving_mean(&points, n)));
            } else if !points.is_empty() {
                series.push(of_group(group, Look::Solid, &label, thinned(&points)));
            }
            group += 1;
        }
        if series.len() == begun {
            return Err(Error::new(format!(
                "{} has no step with a finite {} yet: wait for the first steps of the run",
                run.display(),
                curve.title().to_lowercase()
            )));
        }
        if !validation.is_empty() {
            // In the colour of the run, or in one of its own beside several lines.
            let group = if has_one_line { group - 1 } else { group };
            series.push(of_group(group, Look::Markers, "validation", validation));
        }
    }
    // Pale lines first, so that none hides another run's mean.
    series.sort_by_key(|s| s.look != Look::Pale);
    Ok(LineChart { title, subtitle, x: Axis::new("step", Scale::Linear), y: curve.axis(is_entropy), series })
}

fn logs_of(run: &Path) -> Result<Logs> {
    if !run.join(METRICS).is_file() {
        let what = if run.exists() { "holds no" } else { "does not exist, so it has no" };
        return Err(Error::usage(format!(
            "{} {what} {METRICS}: give a folder that a training run writes to (its `out`), and wait for its first step",
            run.display()
        )));
    }
    Logs::read(run)
}

/// The names of the folders; the whole path where two have the same name.
fn names(runs: &[PathBuf]) -> Vec<String> {
    let last = |run: &PathBuf| {
        let whole = std::path::absolute(run).unwrap_or_else(|_| run.clone());
        whole.file_name().map_or_else(|| run.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let short: Vec<String> = runs.iter().map(last).collect();
    let is_unique = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    runs.iter()
        .zip(&short)
        .map(|(r, name)| if is_unique(name) { name.clone() } else { r.display().to_string() })
        .collect()
}

/// The steps in the moving mean of a run: an odd number, so that a mean has a middle. 1 for a run that
/// is too short for a mean.
fn mean_length(n_steps: usize) -> usize {
    match n_steps {
        ..FEWEST_FOR_MEAN => 1,
        n => (n / MEAN_OF).max(3) | 1,
    }
}

/// The mean of the `n` points around each point, or of those that there are at the ends.
fn moving_mean(points: &[(f64, f64)], n: usize) -> Vec<(f64, f64)> {
    let mean = |i: usize| {
        let window = &points[i.saturating_sub(n / 2)..(i + n / 2 + 1).min(points.len())];
        (points[i].0, window.iter().map(|p| p.1).sum::<f64>() / window.len() as f64)
    };
    let stride = points.len().div_ceil(MOST_POINTS);
    let mut places: Vec<usize> = (0..points.len()).step_by(stride).collect();
    places.extend(Some(points.len() - 1).filter(|last| places.last() != Some(last)));
    places.into_iter().map(mean).collect()
}

/// At most [`MOST_POINTS`] points: the lowest and the highest of each stretch.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MOST_POINTS {
        return points.to_vec();
    }
    let ends = |stretch: &[(f64, f64)]| {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (stretch.iter().min_by(by_value), stretch.iter().max_by(by_value));
        let mut ends: Vec<(f64, f64)> = low.into_iter().chain(high).copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends
    };
    points.chunks((2 * points.len()).div_ceil(MOST_POINTS)).flat_map(ends).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::train::{EVAL, EvalLine};

    fn run(dir: &Path, name: &str, n: u64) -> PathBuf {
        let run = dir.join(name);
        std::fs::create_dir_all(&run).unwrap();
        let line = |step: u64| {
            let loss = if step == 5 { f64::NAN } else { 2.0 + (step % 2) as f64 };
            json!({"step": step, "loss": loss, "lr": 1e-4, "grad_norm": 1.0, "tokens": 100, "seconds": 0.5, "bytes": 1})
        };
        let steps: String = (1..=n).map(|step| format!("{}\n", line(step))).collect();
        std::fs::write(run.join(METRICS), steps + "{\"step\": 99").unwrap();
        let eval = EvalLine { step: n, loss: 2.25, perplexity: Some(9.5), tokens: 7, pairs: None };
        std::fs::write(run.join(EVAL), serde_json::to_string(&eval).unwrap() + "\n").unwrap();
        run
    }

    #[test]
    fn a_chart_has_steps_their_mean_and_the_validation_loss() {
        let dir = tempfile::tempdir().unwrap();
        let runs = [run(dir.path(), "one", 40), run(dir.path(), "two", 4)];
        let chart = run_chart(&runs, Curve::Loss).unwrap();
        let shape: Vec<_> = chart.series.iter().map(|s| (s.look, s.label.as_str(), s.group, s.points.len())).collect();
        let expected = [
            (Look::Pale, "", Some(0), 39), // without the loss that is not finite
            (Look::Solid, "one", Some(0), 39),
            (Look::Markers, "validation", Some(0), 1),
            (Look::Solid, "two", Some(1), 4),
            (Look::Markers, "validation", Some(1), 1),
        ];
        assert_eq!(shape, expected);
        assert_eq!(chart.series[1].points[1], (2.0, (3.0 + 2.0 + 3.0) / 3.0), "a mean of three steps");
        let speed = run_chart(&runs[1..], Curve::TokensPerSecond).unwrap();
        assert_eq!(speed.series.len(), 1);
        assert!(speed.series[0].points.iter().all(|p| p.1 == 200.0));
        let rates = run_chart(&runs[..1], Curve::Lr).unwrap();
        assert_eq!(rates.series.len(), 1, "a learning rate needs no mean");
    }

    #[test]
    fn a_run_alone_has_a_line_for_each_r() {
        let dir = tempfile::tempdir().unwrap();
        let [run, other] = ["one", "two"].map(|name| run(dir.path(), name, 4));
        let line = |step: u64| {
            let keep = if step.is_multiple_of(2) { 1.0 } else { 0.25 };
            json!({"step": step, "loss": 2.0, "keep": keep, "lr": 1e-4, "grad_norm": 1.0, "tokens": 100, "seconds": 0.5,
                   "bytes": 1})
        };
        let steps: String = (1..=43).map(|step| format!("{}\n", line(step))).collect();
        std::fs::write(run.join(METRICS), steps).unwrap();
        assert_eq!(run_chart(std::slice::from_ref(&run), Curve::Loss).unwrap().title, "Loss of one");
        let series = |runs: &[PathBuf], curve| run_chart(runs, curve).unwrap().series;
        let shape = |series: &[Series]| {
            series.iter().map(|s| (s.look, s.label.clone(), s.group.unwrap(), s.points.len())).collect::<Vec<_>>()
        };
        let expected = [
            (Look::Pale, String::new(), 0, 21),
            (Look::Pale, String::new(), 1, 22),
            (Look::Solid, "dense".into(), 0, 21),
            (Look::Solid, "4x".into(), 1, 22),
            (Look::Markers, "validation".into(), 2, 1),
        ];
        assert_eq!(shape(&series(std::slice::from_ref(&run), Curve::Loss)), expected);
        assert_eq!(series(std::slice::from_ref(&run), Curve::Lr).len(), 1);
        let labels: Vec<_> = series(&[run, other], Curve::GradNorm).into_iter().map(|s| s.label).collect();
        assert_eq!(labels, ["", "one", "two"], "several runs have one line each");
    }

    #[test]
    fn runs_of_the_same_name_have_their_paths_in_the_legend() {
        let dir = tempfile::tempdir().unwrap();
        let runs = [run(dir.path(), "a/out", 3), run(dir.path(), "b/out", 3), run(dir.path(), "c", 3)];
        let labels: Vec<String> =
            run_chart(&runs, Curve::GradNorm).unwrap().series.into_iter().map(|s| s.label).collect();
        assert_eq!(labels, [runs[0].display().to_string(), runs[1].display().to_string(), "c".into()]);
    }

    #[test]
    fn a_folder_that_is_no_run_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("absent")] {
            let e = run_chart(&[path], Curve::Loss).unwrap_err();
            assert!(e.kind() == crate::ErrorKind::Usage && e.to_string().contains("metrics.jsonl"), "{e}");
        }
        std::fs::write(dir.path().join(METRICS), "").unwrap();
        let e = run_chart(&[dir.path().to_path_buf()], Curve::Loss).unwrap_err().to_string();
        assert!(e.contains("no step with a finite loss yet"), "{e}");
    }

    #[test]
    fn a_long_run_keeps_its_extremes() {
        let points: Vec<(f64, f64)> = (0..12_345).map(|i| (f64::from(i), f64::from((i * 7919) % 1000))).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS && thin.is_sorted_by(|a, b| a.0 <= b.0), "{}", thin.len());
        let range =
            |points: &[(f64, f64)]| points.iter().fold((f64::MAX, f64::MIN), |r, p| (r.0.min(p.1), r.1.max(p.1)));
        assert_eq!(range(&thin), range(&points));
        let mean = moving_mean(&points, 601);
        assert!(mean.len() <= MOST_POINTS + 1 && mean.last().unwrap().0 == 12_344.0);
        assert!((mean[1000].1 - 499.5).abs() < 5.0, "{:?}", mean[1000]);
    }
}
