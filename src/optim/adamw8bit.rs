//! AdamW with state in 8 bits: settings, and its slots.
//!
//! `kernels/adamw8bit.rs` holds the arithmetic. The constants are those of AdamW.

use super::adamw::AdamW;
use super::rule::{OptimizerInfo, OptimizerSettings, Update, UpdateRule};
use super::slots::{Layout, Slots};
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::adamw8bit;
use crate::tensor::Parameters;

pub(super) const INFO: OptimizerInfo = OptimizerInfo {
    name: "adamw8bit",
    default_lr: [2e-4, 2e-5],
    settings: &["betas", "eps"],
    make: |settings| Box::new(AdamW8bit::of(settings)),
};

/// AdamW whose two running means are stored in 8 bits for each element, with one f32 factor for
/// each block of 256 elements of a tensor (arXiv 2110.02861, as in bitsandbytes). A step computes in
/// f32 and rounds the new means at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AdamW8bit(pub AdamW);

impl AdamW8bit {
    fn of(settings: &OptimizerSettings) -> Self {
        Self(AdamW::of(settings))
    }
}

impl UpdateRule for AdamW8bit {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn slots(&self, parameters: Parameters<'_>) -> Slots {
        let slots = [
            ("exp_avg", Layout::Codes),
            ("exp_avg_absmax", Layout::Blocks),
            ("exp_avg_sq", Layout::Codes),
            ("exp_avg_sq_absmax", Layout::Blocks),
        ];
        Slots::per_slice(parameters, &slots)
    }

    fn validate(&self) -> Result<()> {
        self.0.validate()
    }

    fn record(&self, rec: &mut Recording, update: &Update<'_>) {
        for update in update.slices() {
            adamw8bit::update(rec, update.part, update.slots, update.clipping, self.0.constants(&update));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_steps::{LR, Steps};
    use super::*;
    use crate::gpu::CpuExecutor;

    /// Rounds the values of each block of 256 to the nearest level times the largest magnitude.
    fn rounded(values: &mut [f64], levels: &[f64]) {
        for block in values.chunks_mut(256) {
            let most = block.iter().fold(0.0f64, |most, v| most.max(v.abs()));
            let nearest = |v: f64| {
                let distance = |level: &f64| (level * most - v).abs();
                levels.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0.0)
            };
            block.iter_mut().for_each(|v| *v = nearest(*v) * most);
        }
    }

    /// bitsandbytes' dynamic map, signed or not.
    fn dynamic_map(is_signed: bool) -> Vec<f64> {
        let mut map = vec![0.0, 1.0];
        for e in 0..7 {
            let steps = if is_signed { 1 << e } else { 2 << e };
            for i in 0..steps {
                let level = 10f64.powi(e - 6) * (0.1 + 0.9 * (f64::from(i) + 0.5) / f64::from(steps));
                map.push(level);
                if is_signed {
                    map.push(-level);
                }
            }
        }
        map
    }

    /// AdamW's formulas in f64, with both means rounded after each step, in blocks that do not
    /// reach across tensors.
    #[test]
    fn five_steps_agree_with_the_formulas_over_blocks() {
        let rule = AdamW8bit(AdamW { weight_decay: 0.3, ..AdamW::default() });
        let AdamW { betas: (b1, b2), eps, weight_decay } = rule.0;
        let (signed, unsigned) = (dynamic_map(true), dynamic_map(false));
        let mut steps = Steps::new(CpuExecutor::<f64>::new(), Box::new(rule), &[[3, 200], [1, 300], [7, 60]], 0.25);
        let mut state = steps.expected.iter().map(|x| [vec![0.0; x.len()], vec![0.0; x.len()]]).collect::<Vec<_>>();
        for step in 1..=5 {
            let grads = steps.step(step);
            for (((x, [m, v]), g), decay) in steps.expected.iter_mut().zip(&mut state).zip(&grads).zip(&steps.decays) {
                let (c1, c2) = (1.0 - b1.powi(step as i32), 1.0 - b2.powi(step as i32));
                for i in 0..x.len() {
                    x[i] -= decay.map_or(0.0, |origin| LR * weight_decay * (x[i] - f64::from(origin)));
                    m[i] = b1 * m[i] + (1.0 - b1) * g[i];
                    v[i] = b2 * v[i] + (1.0 - b2) * g[i] * g[i];
                    x[i] -= LR / c1 * m[i] / (v[i].sqrt() / c2.sqrt() + eps);
                }
                rounded(m, &signed);
                rounded(v, &unsigned);
            }
        }
        let difference = steps.largest_difference();
        assert!(difference < 1e-8, "{difference}");
    }
}
