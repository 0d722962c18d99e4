//! The interface of an update rule: settings, slots, and the commands of one step over one slice.

use std::fmt::Debug;

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Recording, Span};
use crate::tensor::ArenaSlice;

/// One optimiser step over one arena slice.
pub struct SliceUpdate<'a> {
    /// Values, gradients, and whether weight decay applies.
    pub slice: &'a ArenaSlice,
    /// The rule's state, in the order of [`UpdateRule::slots`]; each slot is as long as the slice
    /// and zero before step 1.
    pub slots: &'a [Buffer],
    /// [norm, factor] on the device; the rule multiplies the gradients by the factor.
    pub clipping: &'a Span,
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
}

/// An update rule. It holds settings and no state.
pub trait UpdateRule: Debug {
    /// Its name in files and on the command line.
    fn name(&self) -> &'static str;
    /// Names of the state slots of each parameter, as in PyTorch.
    fn slots(&self) -> &'static [&'static str];
    /// Rejects invalid settings; the error names the field.
    fn validate(&self) -> Result<()>;
    /// Appends one step over one slice.
    fn record(&self, rec: &mut Recording, update: &SliceUpdate<'_>);
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
            let own: Vec<String> = self.settings.iter().map(|s| format!("`{s}`")).collect();
            return Err(Error::usage(format!(
                "`{name}` is not a setting of `optimizer` {}, which has {} and `weight_decay`",
                self.name,
                own.join(", ")
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
