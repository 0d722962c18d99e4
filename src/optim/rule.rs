//! What an update rule is: settings, slots, and the commands of one step over one arena slice.

use std::fmt::Debug;

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Recording, Span};
use crate::tensor::ArenaSlice;

/// One step over one slice.
pub struct SliceUpdate<'a> {
    /// Values, gradients, and whether weight decay applies.
    pub slice: &'a ArenaSlice,
    /// What the rule remembers, in the order of its [`UpdateRule::slots`]; each as long as the
    /// slice, zero before step 1.
    pub slots: &'a [Buffer],
    /// [norm, factor] on the device; the factor multiplies the gradients.
    pub clipping: &'a Span,
    /// Number of the step, from 1.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
}

/// How gradients change values. A rule holds its settings and no state.
pub trait UpdateRule: Debug {
    /// Its name: in files, and on the command line.
    fn name(&self) -> &'static str;
    /// Names of the values that it remembers for each parameter, as PyTorch has them.
    fn slots(&self) -> &'static [&'static str];
    /// Refuses settings that no run can mean, naming the field.
    fn validate(&self) -> Result<()>;
    /// Appends one step over one slice.
    fn record(&self, rec: &mut Recording, update: &SliceUpdate<'_>);
}

impl UpdateRule for Box<dyn UpdateRule> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn slots(&self) -> &'static [&'static str] {
        (**self).slots()
    }
    fn validate(&self) -> Result<()> {
        (**self).validate()
    }
    fn record(&self, rec: &mut Recording, update: &SliceUpdate<'_>) {
        (**self).record(rec, update);
    }
}

/// Settings that a run chooses for whichever rule it names; `None` is the rule's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OptimizerSettings {
    /// Weight decay of the slices that decay.
    pub weight_decay: f64,
    /// Decays of the running means.
    pub betas: Option<(f64, f64)>,
    /// Added to the denominator.
    pub eps: Option<f64>,
    /// Part of the momentum buffer that stays.
    pub momentum: Option<f64>,
}

/// What is known of a rule before it is made.
#[derive(Debug)]
pub struct OptimizerInfo {
    /// Its name.
    pub name: &'static str,
    /// Learning rate where none is given: of an adapter, and of full fine-tuning.
    pub default_lr: [f64; 2],
    /// Which of `betas`, `eps` and `momentum` it has.
    pub settings: &'static [&'static str],
    /// Makes the rule; settings that are not its own are left aside.
    pub make: fn(&OptimizerSettings) -> Box<dyn UpdateRule>,
}

impl OptimizerInfo {
    /// The rule with these settings. Refuses what no run can mean and settings that the rule does
    /// not have.
    pub fn rule(&self, settings: &OptimizerSettings) -> Result<Box<dyn UpdateRule>> {
        let OptimizerSettings { betas, eps, momentum, .. } = settings;
        let given = [("betas", betas.is_some()), ("eps", eps.is_some()), ("momentum", momentum.is_some())];
        let foreign = given.iter().find(|(name, given)| *given && !self.settings.contains(name));
        if let Some((name, _)) = foreign {
            let own: Vec<String> = self.settings.iter().map(|s| format!("`{s}`")).collect();
            return Err(Error::usage(format!(
                "`{name}` is no setting of `optimizer` {}, which has {} and `weight_decay`",
                self.name,
                own.join(", ")
            )));
        }
        let rule = (self.make)(settings);
        rule.validate()?;
        Ok(rule)
    }
}

/// Refuses a value below 0, and one that is no number.
pub(super) fn at_least_zero(field: &str, value: f64) -> Result<()> {
    require(value.is_finite() && value >= 0.0, || format!("`{field}` {value} is not a number from 0"))
}

/// Refuses a fraction outside [0, 1).
pub(super) fn below_one(field: &str, value: f64) -> Result<()> {
    require((0.0..1.0).contains(&value), || format!("`{field}` {value} does not lie in [0, 1)"))
}

/// A usage error unless the condition holds.
pub(super) fn require(ok: bool, message: impl FnOnce() -> String) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::usage(message())) }
}
