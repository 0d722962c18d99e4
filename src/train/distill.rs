//! Distillation: the settings, and the loss of a student that learns from the dense model.
//!
//! loss = (1 - weight) · cross-entropy(labels) + weight · KL(teacher ‖ student), in natural
//! logarithms. The cross-entropy is the mean over the labelled tokens of the optimiser step, KL the
//! mean over every position that has a next token in its sequence, labelled or not.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::autograd::{Tape, Var};
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::Span;
use crate::kernels::distill::{Parts, Scales, distillation};
use crate::kernels::head::Head;
use crate::kernels::loss::Need;
use crate::model::llama::Llama;
use crate::nn::Adapters;
use crate::optim::require;
use crate::tensor::Tensor;

/// The model to learn from. It attends densely, without dropout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
pub enum Teacher {
    /// The model with the adapter off
    #[default]
    #[serde(rename = "base")]
    #[value(name = "base")]
    Base,
    /// The model in training, as it is at each step
    #[serde(rename = "self")]
    #[value(name = "self")]
    Oneself,
}

impl Teacher {
    /// Whether the teacher applies the adapters.
    pub fn adapters(self) -> Adapters {
        match self {
            Teacher::Base => Adapters::Off,
            Teacher::Oneself => Adapters::On(None),
        }
    }

    /// The teacher in words.
    pub fn described(self) -> &'static str {
        match self {
            Teacher::Base => "dense model with the adapter off",
            Teacher::Oneself => "dense model as it is at each step",
        }
    }

    /// Rejects the base model as teacher where training changes it: without an adapter, and if the
    /// adapter replaces whole modules.
    pub fn check(self, adapter: Option<&AdapterConfig>) -> Result<()> {
        let Teacher::Base = self else { return Ok(()) };
        let Some(adapter) = adapter else {
            return Err(Error::usage(
                "`teacher` base is the model with its adapter off, and there is no adapter: use `teacher` self",
            ));
        };
        match adapter.targets.to_save.as_slice() {
            [] => Ok(()),
            modules => Err(Error::usage(format!(
                "`teacher` base is the untouched model, but `modules_to_save` replaces {}: use `teacher` self",
                modules.join(", ")
            ))),
        }
    }
}

/// Distillation of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distill {
    /// Weight of the teacher in the loss, from 0 to 1.
    pub weight: f64,
    /// The model to learn from.
    pub teacher: Teacher,
}

impl Distill {
    /// Rejects a weight outside 0 to 1, and a teacher that does not exist beside `adapter`.
    pub fn check(&self, adapter: Option<&AdapterConfig>) -> Result<()> {
        self.check_weight()?;
        self.teacher.check(adapter)
    }

    /// Rejects a weight outside 0 to 1.
    pub fn check_weight(&self) -> Result<()> {
        let Self { weight, .. } = self;
        require((0.0..=1.0).contains(weight), || {
            format!("`distill` {weight} is not a weight: give a number from 0 to 1")
        })
    }
}

/// The counts that the loss of an optimiser step divides by, over all its batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Labelled tokens.
    pub targets: usize,
    /// Positions that have a next token in their sequence.
    pub positions: usize,
}

impl Counts {
    /// The counts of some batches.
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Self {
        let mut counts = Self::default();
        for batch in batches {
            counts.targets += batch.n_targets;
            counts.positions += batch.ids.len() - batch.sequences.len();
        }
        counts
    }

    /// Whether there is anything to learn.
    pub fn trains(&self, distill: Option<Distill>) -> bool {
        let labels = distill.is_none_or(|d| d.weight < 1.0) && self.targets > 0;
        labels || (distill.is_some() && self.positions > 0)
    }

    /// The factors of the summed cross-entropy and of the summed divergence.
    pub fn scales(&self, distill: Option<Distill>) -> Scales {
        let weight = distill.map_or(0.0, |d| d.weight);
        let mean = |weight: f64, n: usize| if n == 0 { 0.0 } else { (weight / n as f64) as f32 };
        Scales { ce: mean(1.0 - weight, self.targets), kl: mean(weight, self.positions) }
    }
}

/// Appends the loss [1, 1] of hidden states of the student, given those of the teacher at the same
/// positions, and the two sums that it consists of. All are [rows, channels], with a label for each
/// row; a label outside the vocabulary has no cross-entropy.
pub fn distilled_loss(
    tape: &mut Tape,
    model: &Llama,
    student: &Var,
    teacher: &Tensor,
    labels: &Span,
    scales: Scales,
    max_elements: usize,
) -> Result<(Var, Parts)> {
    let head = tape.param(model.head());
    let need = Need { hidden: tape.needs(student), head: tape.needs(&head) };

    let mut parts = None;
    let loss = tape.apply1(&[student, &head], |rec, t| {
        let head = Head { weight: &t[1], ..model.output() };
        let (applied, sums) =
            distillation(rec, (&t[0], head), (teacher, model.output()), labels, scales, need, max_elements)?;
        parts = Some(sums);
        Ok(applied)
    })?;
    Ok((loss, parts.expect("the op ran")))
}
