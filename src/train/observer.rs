//! The events of a run, for the command line's progress bar, the app's charts and tests.

use serde::{Deserialize, Deserializer, Serialize};

use super::planned::Forecast;
use super::preference::PairStats;
use crate::attention::cache_name;
use crate::error::Error;

/// One line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Number of the optimiser step, from 1.
    pub step: u64,
    /// Sum over the labelled tokens of the whole step divided by their count, before the update. With
    /// distillation, (1 - `distill`) · ce + `distill` · kl. With preference pairs, the mean over them.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// r of LRSA, if the steps of the run differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<f64>,
    /// Tokens of the chunks in which long sequences stream, if they do. `--chunk auto` chooses it by the
    /// memory of the machine. Results of different chunks differ by rounding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<usize>,
    /// With distillation, the mean cross-entropy over the labelled tokens, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ce: Option<f64>,
    /// With distillation, the mean divergence from the teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// With preference pairs, their statistics.
    #[serde(flatten)]
    pub pairs: Option<PairStats>,
    /// Learning rate of the update.
    pub lr: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Tokens processed.
    pub tokens: usize,
    /// Duration of the step.
    pub seconds: f64,
    /// Device memory: persistent buffers plus the planned peak of transients.
    pub bytes: u64,
}

impl StepLine {
    /// The loss, and with which cache if the steps differ in it: `0.4312 at 4x`, `0.2310 dense`.
    pub fn loss_text(&self) -> String {
        match self.keep.map(cache_name).as_deref() {
            None => format!("{:.4}", self.loss),
            Some("dense") => format!("{:.4} dense", self.loss),
            Some(compressed) => format!("{:.4} at {compressed}", self.loss),
        }
    }
}

/// One line of `eval.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalLine {
    /// Optimiser steps done before the evaluation.
    pub step: u64,
    /// Mean loss over the labelled tokens, or over the preference pairs, of the validation data, with
    /// the training attention.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// exp(loss), if the loss is a mean over tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// With preference pairs, their statistics.
    #[serde(flatten)]
    pub pairs: Option<PairStats>,
    /// Labelled tokens.
    pub tokens: usize,
}

/// The evaluation with the lowest loss, the first of equal ones.
pub(super) fn best_of(evaluations: &[EvalLine]) -> Option<EvalLine> {
    let finite = evaluations.iter().copied().filter(|e| e.loss.is_finite());
    finite.min_by(|a, b| a.loss.total_cmp(&b.loss))
}

/// JSON has no infinity and no NaN: both are written as null.
fn null_is_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// Summary of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Optimiser steps done.
    pub steps: u64,
    /// Loss of the last step, before its update.
    pub loss: Option<f64>,
    /// Mean losses of the first and of the last tenth of the steps, of a run of at least twenty steps
    /// that was neither stopped nor resumed. Where steps differ in r, those of the r that most have, if it
    /// is that of ten steps.
    pub first_loss: Option<f64>,
    /// See `first_loss`.
    pub last_loss: Option<f64>,
    /// Loss of the last evaluation.
    pub eval_loss: Option<f64>,
    /// The evaluation with the lowest loss.
    pub best: Option<EvalLine>,
    /// Tokens processed in all steps.
    pub tokens: usize,
    /// Duration of the whole run, including evaluations and saves.
    pub seconds: f64,
    /// Tokens per second of the steps alone.
    pub tokens_per_s: f64,
    /// Device memory: persistent buffers plus the planned peak of transients.
    pub peak_bytes: u64,
    /// Whether the observer ended the run early.
    pub cancelled: bool,
    /// Whether the run ended early because evaluations no longer improved.
    pub stopped_early: bool,
}

/// Observes a run. All methods do nothing by default.
pub trait Observer {
    /// A notice for the user, such as truncated examples or positions beyond the model's limit.
    fn note(&mut self, _text: &str) {}
    /// Something begins that may take long, in words such as "loading the model". It ends with the next
    /// call that is not a note.
    fn stage(&mut self, _what: &str) {}
    /// The run is forecast; this comes before its first step.
    fn forecast(&mut self, _forecast: &Forecast) {}
    /// The run starts: number of optimiser steps and of training examples.
    fn started(&mut self, _total_steps: u64, _n_examples: usize) {}
    /// A step is finished.
    fn step(&mut self, _line: &StepLine) {}
    /// An evaluation is finished.
    fn evaluated(&mut self, _line: &EvalLine) {}
    /// The state after `step` is on disk.
    fn saved(&mut self, _step: u64) {}
    /// Saving failed at the end of the run. Returns whether to try again, for example after the
    /// user freed disk space; may block. On false the run fails, and training since the last save
    /// is lost.
    fn retries_save(&mut self, _why: &Error) -> bool {
        false
    }
    /// Called before each recording of a step or an evaluation: true gives that up and ends the run,
    /// which keeps the steps that are done. May block to pause the run; the pause does not count as step
    /// time.
    fn cancelled(&self) -> bool {
        false
    }
}

impl Observer for () {}
