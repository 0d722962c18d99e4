//! AdamW: settings, and the constants of an update from the step count.
//!
//! `kernels/adamw.rs` holds the arithmetic. The constants are computed in f64 and rounded once,
//! since 1 − β₂ or a bias correction in f32 would lose four digits.

use super::rule::{
    OptimizerInfo, OptimizerSettings, PartUpdate, Update, UpdateRule, at_least_zero, below_one, require,
};
use super::slots::{Layout, Slots};
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::adamw::{self, UpdateParams};
use crate::tensor::Parameters;

pub(super) const INFO: OptimizerInfo = OptimizerInfo {
    name: "adamw",
    default_lr: [2e-4, 2e-5],
    settings: &["betas", "eps"],
    make: |settings| Box::new(AdamW::of(settings)),
};

/// AdamW (arXiv 1711.05101) as in torch.optim.AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay rates of the running means of gradients and squared gradients.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay of the slices that decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// PyTorch's defaults.
    fn default() -> Self {
        Self { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamW {
    pub(super) fn of(settings: &OptimizerSettings) -> Self {
        let default = Self::default();
        Self {
            betas: settings.betas.unwrap_or(default.betas),
            eps: settings.eps.unwrap_or(default.eps),
            weight_decay: settings.weight_decay,
        }
    }

    /// The constants of an update of a part, but for its size.
    pub(super) fn constants<T>(&self, part: &PartUpdate<'_, T>) -> UpdateParams {
        let Self { betas: (beta1, beta2), eps, weight_decay } = *self;
        let t = part.step as f64;
        UpdateParams {
            n: 0,
            decay: part.decay.map_or(0.0, |_| (part.lr * weight_decay) as f32),
            origin: part.decay.unwrap_or(0.0),
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            step_size: (part.lr / (1.0 - beta1.powf(t))) as f32,
            inv_sqrt_correction: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
            eps: eps as f32,
        }
    }
}

impl UpdateRule for AdamW {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn slots(&self, parameters: Parameters<'_>) -> Slots {
        Slots::per_slice(parameters, &[("exp_avg", Layout::Elements), ("exp_avg_sq", Layout::Elements)])
    }

    fn validate(&self) -> Result<()> {
        at_least_zero("weight_decay", self.weight_decay)?;
        below_one("betas", self.betas.0)?;
        below_one("betas", self.betas.1)?;
        // A smaller value rounds to a subnormal or to zero in f32, and unused elements would divide
        // zero by zero.
        require(self.eps.is_finite() && self.eps >= 1e-30, || format!("`eps` {} is below 1e-30", self.eps))
    }

    fn record(&self, rec: &mut Recording, update: &Update<'_>) {
        for update in update.slices() {
            adamw::update(rec, update.part, update.slots, update.clipping, self.constants(&update));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_steps::{LR, check_five_steps};
    use super::*;

    /// PyTorch's `_single_tensor_adamw`, written out in f64.
    #[test]
    fn five_steps_agree_with_pytorchs_formulas() {
        let rule = AdamW { weight_decay: 0.3, ..AdamW::default() };
        let AdamW { betas: (b1, b2), eps, weight_decay } = rule;
        check_five_steps(rule, &["exp_avg", "exp_avg_sq"], |step, decay, x, slots, g| {
            let (c1, c2) = (1.0 - b1.powi(step), 1.0 - b2.powi(step));
            *x -= decay.map_or(0.0, |origin| LR * weight_decay * (*x - origin));
            slots[0] = b1 * slots[0] + (1.0 - b1) * g;
            slots[1] = b2 * slots[1] + (1.0 - b2) * g * g;
            *x -= LR / c1 * slots[0] / (slots[1].sqrt() / c2.sqrt() + eps);
        });
    }

    #[test]
    fn settings_out_of_range_name_their_field() {
        for (rule, field) in [
            (AdamW { betas: (0.9, 1.0), ..AdamW::default() }, "`betas`"),
            (AdamW { eps: 0.0, ..AdamW::default() }, "`eps`"),
            (AdamW { weight_decay: f64::NAN, ..AdamW::default() }, "`weight_decay`"),
        ] {
            assert!(rule.validate().unwrap_err().to_string().contains(field));
        }
    }
}
