//! The interface of an update rule: settings, slots, and the commands of one step.

use std::fmt::Debug;

use super::slots::Slots;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Recording, Span};
use crate::tensor::{ArenaSlice, Group, Parameters, Trainable};

/// One optimiser step over all parameters.
pub struct Update<'a> {
    /// Values, gradients, and where weight decay applies.
    pub parameters: Parameters<'a>,
    /// The buffers of [`UpdateRule::slots`], zero before step 1.
    pub slots: &'a [Vec<Buffer>],
    /// [norm, factor] on the device; the rule multiplies the gradients by the factor.
    pub clipping: &'a Span,
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Factor of the learning rate for the group `LoraB`.
    pub lora_plus: f64,
}

/// One optimiser step over a part of the parameters: a slice of the arena, or a tensor.
pub struct PartUpdate<'a, T> {
    /// Values and gradients.
    pub part: &'a T,
    /// The value to which weight decay pulls the part, if it applies.
    pub decay: Option<f32>,
    /// The rule's buffers for the part, in order.
    pub slots: &'a [Buffer],
    /// As [`Update::clipping`].
    pub clipping: &'a Span,
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate of the part.
    pub lr: f64,
}

impl Update<'_> {
    /// The step over each slice, for slots that lie beside slices.
    pub fn slices(&self) -> impl Iterator<Item = PartUpdate<'_, ArenaSlice>> {
        self.parameters.arena.slices.iter().zip(self.slots).map(|(slice, slots)| self.part(slice, slice, slots))
    }

    /// The step over each tensor, for slots of tensors.
    pub fn tensors(&self) -> impl Iterator<Item = PartUpdate<'_, Trainable>> {
        let Parameters { arena, trainables } = self.parameters;
        let slice_of = |t: &Trainable| &arena.slices[arena.slice_of(&t.value.pieces()[0])];
        trainables.iter().zip(self.slots).map(move |(t, slots)| self.part(t, slice_of(t), slots))
    }

    fn part<'a, T>(&'a self, part: &'a T, slice: &ArenaSlice, slots: &'a [Buffer]) -> PartUpdate<'a, T> {
        let ratio = if slice.group == Group::LoraB { self.lora_plus } else { 1.0 };
        let Self { clipping, step, .. } = *self;
        PartUpdate { part, decay: slice.decay, slots, clipping, step, lr: self.lr * ratio }
    }
}

/// An update rule. It holds settings and no state.
pub trait UpdateRule: Debug {
    /// Its name in files and on the command line.
    fn name(&self) -> &'static str;
    /// The state slots, with PyTorch's names.
    fn slots(&self, parameters: Parameters<'_>) -> Slots;
    /// Rejects invalid settings; the error names the field.
    fn validate(&self) -> Result<()>;
    /// Appends one step.
    fn record(&self, rec: &mut Recording, update: &Update<'_>);
}

/// Settings for any update rule; `None` selects the rule's default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OptimizerSettings {
    /// Weight decay of the slices that decay.
    pub weight_decay: f64,
    /// Decay rates of the running means.
    pub betas: Option<(f64, f64)>,
    /// Added to the denominator.
    pub eps: Option<f64>,
    /// Momentum factor.
    pub momentum: Option<f64>,
}

/// Static description of a rule.
#[derive(Debug)]
pub struct OptimizerInfo {
    /// Its name.
    pub name: &'static str,
    /// Default learning rates: for LoRA, and for full fine-tuning.
    pub default_lr: [f64; 2],
    /// The settings among `betas`, `eps` and `momentum` that the rule has.
    pub settings: &'static [&'static str],
    /// Creates the rule; ignores settings that it does not have.
    pub make: fn(&OptimizerSettings) -> Box<dyn UpdateRule>,
}

impl OptimizerInfo {
    /// Creates the rule. Rejects invalid settings and settings that the rule does not have.
    pub fn rule(&self, settings: &OptimizerSettings) -> Result<Box<dyn UpdateRule>> {
        let OptimizerSettings { betas, eps, momentum, .. } = settings;
        let given = [("betas", betas.is_some()), ("eps", eps.is_some()), ("momentum", momentum.is_some())];
        let foreign = given.iter().find(|(name, given)| *given && !self.settings.contains(name));
        if let Some((name, _)) = foreign {
            let own: String = self.settings.iter().map(|s| format!("`{s}` and ")).collect();
            return Err(Error::usage(format!(
                "`{name}` is not a setting of `optimizer` {}, which has {own}`weight_decay`",
                self.name
            )));
        }
        let rule = (self.make)(settings);
        rule.validate()?;
        Ok(rule)
    }
}

/// Rejects NaN and values below 0.
pub fn at_least_zero(field: &str, value: f64) -> Result<()> {
    require(value.is_finite() && value >= 0.0, || format!("`{field}` {value} is not a number of at least 0"))
}

/// Rejects a fraction outside [0, 1).
pub fn below_one(field: &str, value: f64) -> Result<()> {
    require((0.0..1.0).contains(&value), || format!("`{field}` {value} is not in [0, 1)"))
}

/// A usage error unless the condition holds.
pub fn require(ok: bool, message: impl FnOnce() -> String) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::usage(message())) }
}
