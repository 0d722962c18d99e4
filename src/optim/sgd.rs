//! SGD with momentum: settings, and the constants of an update.
//!
//! `kernels/sgd.rs` holds the arithmetic.

use super::rule::{OptimizerInfo, OptimizerSettings, Update, UpdateRule, at_least_zero, below_one};
use super::slots::{Layout, Slots};
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::sgd::{self, UpdateParams};
use crate::tensor::Parameters;

pub(super) const INFO: OptimizerInfo = OptimizerInfo {
    name: "sgd",
    default_lr: [1e-2, 1e-3],
    settings: &["momentum"],
    make: |settings| Box::new(Sgd::of(settings)),
};

/// torch.optim.SGD with momentum, without dampening and Nesterov: b = momentum · b + g, value −= lr
/// · b. Weight decay is not decoupled: weight decay · value is added to the gradient g after
/// clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Momentum factor; 0 for plain gradient descent.
    pub momentum: f64,
    /// Weight decay of the slices that decay.
    pub weight_decay: f64,
}

impl Default for Sgd {
    /// Momentum 0.9, without weight decay. (PyTorch's default is no momentum.)
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 0.0 }
    }
}

impl Sgd {
    fn of(settings: &OptimizerSettings) -> Self {
        Self { momentum: settings.momentum.unwrap_or(Self::default().momentum), weight_decay: settings.weight_decay }
    }
}

impl UpdateRule for Sgd {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn slots(&self, parameters: Parameters<'_>) -> Slots {
        Slots::per_slice(parameters, &[("momentum_buffer", Layout::Elements)])
    }

    fn validate(&self) -> Result<()> {
        at_least_zero("weight_decay", self.weight_decay)?;
        below_one("momentum", self.momentum)
    }

    fn record(&self, rec: &mut Recording, update: &Update<'_>) {
        for update in update.slices() {
            let constants = UpdateParams {
                n: 0,
                lr: update.lr as f32,
                weight_decay: update.decay.map_or(0.0, |_| self.weight_decay as f32),
                origin: update.decay.unwrap_or(0.0),
                momentum: self.momentum as f32,
            };
            sgd::update(rec, update.part, update.slots, update.clipping, constants);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_steps::{LR, check_five_steps};
    use super::*;

    /// PyTorch's `_single_tensor_sgd`, written out in f64.
    #[test]
    fn five_steps_agree_with_pytorchs_formulas() {
        for momentum in [0.9, 0.0] {
            let rule = Sgd { momentum, weight_decay: 0.3 };
            check_five_steps(rule, &["momentum_buffer"], |step, decay, x, slots, g| {
                let g = g + decay.map_or(0.0, |origin| rule.weight_decay * (*x - origin));
                slots[0] = if step == 1 { g } else { momentum * slots[0] + g };
                *x -= LR * slots[0];
            });
        }
    }

    #[test]
    fn settings_out_of_range_name_their_field() {
        for (rule, field) in [
            (Sgd { momentum: 1.0, ..Sgd::default() }, "`momentum`"),
            (Sgd { weight_decay: f64::INFINITY, ..Sgd::default() }, "`weight_decay`"),
        ] {
            assert!(rule.validate().unwrap_err().to_string().contains(field));
        }
    }
}
