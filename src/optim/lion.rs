//! Lion: settings, and the constants of an update.
//!
//! `kernels/lion.rs` holds the arithmetic.

use super::rule::{OptimizerInfo, OptimizerSettings, Update, UpdateRule, at_least_zero, below_one};
use super::slots::{Layout, Slots};
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::lion::{self, UpdateParams};
use crate::tensor::Parameters;

/// Every element moves by the full learning rate, so the defaults are a fifth of AdamW's; the paper
/// recommends a third to a tenth.
pub(super) const INFO: OptimizerInfo = OptimizerInfo {
    name: "lion",
    default_lr: [4e-5, 4e-6],
    settings: &["betas"],
    make: |settings| Box::new(Lion::of(settings)),
};

/// Lion (arXiv 2302.06675, algorithm 2): value −= lr · (sign(β₁m + (1−β₁)g) + weight decay ·
/// value), m = β₂m + (1−β₂)g.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// β₁ for the update direction, and β₂ for the running mean.
    pub betas: (f64, f64),
    /// Decoupled weight decay of the slices that decay.
    pub weight_decay: f64,
}

impl Default for Lion {
    /// The paper's defaults, without weight decay.
    fn default() -> Self {
        Self { betas: (0.9, 0.99), weight_decay: 0.0 }
    }
}

impl Lion {
    fn of(settings: &OptimizerSettings) -> Self {
        Self { betas: settings.betas.unwrap_or(Self::default().betas), weight_decay: settings.weight_decay }
    }
}

impl UpdateRule for Lion {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn slots(&self, parameters: Parameters<'_>) -> Slots {
        Slots::per_slice(parameters, &[("exp_avg", Layout::Elements)])
    }

    fn validate(&self) -> Result<()> {
        at_least_zero("weight_decay", self.weight_decay)?;
        below_one("betas", self.betas.0)?;
        below_one("betas", self.betas.1)
    }

    fn record(&self, rec: &mut Recording, update: &Update<'_>) {
        for update in update.slices() {
            let constants = UpdateParams {
                n: 0,
                lr: update.lr as f32,
                decay: update.decay.map_or(0.0, |_| (update.lr * self.weight_decay) as f32),
                origin: update.decay.unwrap_or(0.0),
                one_minus_beta1: (1.0 - self.betas.0) as f32,
                one_minus_beta2: (1.0 - self.betas.1) as f32,
            };
            lion::update(rec, update.part, update.slots, update.clipping, constants);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_steps::{LR, check_five_steps};
    use super::*;

    #[test]
    fn five_steps_agree_with_the_papers_formulas() {
        let rule = Lion { weight_decay: 0.3, ..Lion::default() };
        let (b1, b2) = rule.betas;
        check_five_steps(rule, &["exp_avg"], |_, decay, x, slots, g| {
            let direction = (b1 * slots[0] + (1.0 - b1) * g).signum();
            let decay = decay.map_or(0.0, |origin| rule.weight_decay * (*x - origin));
            *x -= LR * (direction + decay);
            slots[0] = b2 * slots[0] + (1.0 - b2) * g;
        });
    }

    #[test]
    fn settings_out_of_range_name_their_field() {
        for (rule, field) in [
            (Lion { betas: (-0.1, 0.9), ..Lion::default() }, "`betas`"),
            (Lion { weight_decay: -1.0, ..Lion::default() }, "`weight_decay`"),
        ] {
            assert!(rule.validate().unwrap_err().to_string().contains(field));
        }
    }
}
