//! What a run tells whoever watches it: the command line's progress bar, the app's charts, a test.

use serde::Serialize;

use crate::error::Error;

/// One line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepLine {
    /// Number of the optimiser step, from 1.
    pub step: u64,
    /// Sum over the labelled tokens of the whole step divided by their count, before the update.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens fed.
    pub tokens: usize,
    /// Duration of the step.
    pub seconds: f64,
    /// Device memory: what stays plus the planned peak of what comes and goes.
    pub bytes: u64,
}

/// One line of `eval.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EvalLine {
    /// Optimiser steps done before.
    pub step: u64,
    /// Mean loss over the labelled tokens of the validation data, with the training attention.
    pub loss: f64,
    /// exp(loss).
    pub perplexity: f64,
    /// Labelled tokens.
    pub tokens: usize,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Optimiser steps done.
    pub steps: u64,
    /// Loss of the last step, before its update.
    pub loss: Option<f64>,
    /// Loss of the last evaluation.
    pub eval_loss: Option<f64>,
    /// Tokens fed to all steps.
    pub tokens: usize,
    /// Duration of the whole run, evaluations and saves included.
    pub seconds: f64,
    /// Tokens a second of the steps alone.
    pub tokens_per_s: f64,
    /// Device memory: what stays plus the planned peak of what comes and goes.
    pub peak_bytes: u64,
    /// Whether the observer ended it early.
    pub cancelled: bool,
}

/// Watches a run. Every method has a default that does nothing.
pub trait Observer {
    /// Something the user should know: truncated examples, positions beyond the model's.
    fn note(&mut self, _text: &str) {}
    /// The run begins: optimiser steps planned, examples to train on.
    fn started(&mut self, _total_steps: u64, _n_examples: usize) {}
    /// A step is done.
    fn step(&mut self, _line: &StepLine) {}
    /// An evaluation is done.
    fn evaluated(&mut self, _line: &EvalLine) {}
    /// The state after `step` is on disk.
    fn saved(&mut self, _step: u64) {}
    /// What was trained could not be saved at the end. Asked whether to try again, after a person
    /// made room perhaps; may wait. Otherwise the run fails and what it learnt since the last save
    /// is lost.
    fn retries_save(&mut self, _why: &Error) -> bool {
        false
    }
    /// Asked between steps: true ends the run, which keeps what was trained. May wait to hold the
    /// run, which counts to no step.
    fn cancelled(&self) -> bool {
        false
    }
}

impl Observer for () {}
