//! Adafactor: settings, and the constants of an update.
//!
//! `kernels/adafactor.rs` holds the arithmetic.

use super::rule::{OptimizerInfo, OptimizerSettings, Update, UpdateRule, at_least_zero};
use super::slots::Slots;
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::adafactor::{self, Constants};
use crate::tensor::Parameters;

/// The rates multiply the root mean square of a tensor. B matrices of a new adapter are small, so
/// LoRA's is larger.
pub(super) const INFO: OptimizerInfo = OptimizerInfo {
    name: "adafactor",
    default_lr: [5e-2, 1e-3],
    settings: &[],
    make: |settings| Box::new(Adafactor::of(settings)),
};

/// Weight of the new squared gradients at step t: t^BETA2_DECAY.
const BETA2_DECAY: f64 = -0.8;
/// The least root of a second moment, as PyTorch takes it for f32 values.
const EPS1: f64 = f32::EPSILON as f64;
/// The least root mean square of a tensor that scales its step.
const EPS2: f64 = 1e-3;

/// torch.optim.Adafactor (arXiv 1804.04235) with its default settings. A matrix has a running mean
/// of squared gradients for each row and each column; a tensor of one row has one for each element.
/// The root mean square of a step is at most that of its tensor (at least 0.001) times the learning
/// rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Adafactor {
    /// Decoupled weight decay of the slices that decay.
    pub weight_decay: f64,
}

impl Adafactor {
    fn of(settings: &OptimizerSettings) -> Self {
        Self { weight_decay: settings.weight_decay }
    }
}

impl UpdateRule for Adafactor {
    fn name(&self) -> &'static str {
        INFO.name
    }

    fn slots(&self, parameters: Parameters<'_>) -> Slots {
        Slots::per_tensor(parameters, |t| match (t.value.rows, t.value.cols) {
            (1, cols) => vec![("variance", [1, cols])],
            (rows, cols) => vec![("row_var", [rows, 1]), ("col_var", [1, cols])],
        })
    }

    fn validate(&self) -> Result<()> {
        at_least_zero("weight_decay", self.weight_decay)
    }

    fn record(&self, rec: &mut Recording, update: &Update<'_>) {
        let t = update.step as f64;
        for update in update.tensors() {
            let constants = Constants {
                weight: t.powf(BETA2_DECAY) as f32,
                eps1: EPS1 as f32,
                eps2: EPS2 as f32,
                rho: update.lr.min(1.0 / t.sqrt()) as f32,
                decay: update.decay.map_or(0.0, |_| (update.lr * self.weight_decay) as f32),
                origin: update.decay.unwrap_or(0.0),
            };
            adafactor::update(rec, [&update.part.value, &update.part.grad], update.slots, update.clipping, constants);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_steps::{LR, Steps};
    use super::*;
    use crate::gpu::CpuExecutor;

    fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
        values.clone().sum::<f64>() / values.count() as f64
    }

    fn rms(values: &[f64]) -> f64 {
        mean(values.iter().map(|x| x * x)).sqrt()
    }

    /// PyTorch's `_single_tensor_adafactor`, written out in f64, also of a matrix that is cut into
    /// slices.
    #[test]
    fn five_steps_agree_with_pytorchs_formulas() {
        let rule = Adafactor { weight_decay: 0.3 };
        for limit in [1 << 20, 1024] {
            let shapes = [[37, 24], [1, 30], [5, 1]];
            let mut steps = Steps::new(CpuExecutor::<f64>::with_binding_limit(limit), Box::new(rule), &shapes, 0.25);
            let mut variances: Vec<[Vec<f64>; 2]> = shapes.map(|[r, c]| [vec![0.0; r], vec![0.0; c]]).to_vec();
            for step in 1..=5 {
                let grads = steps.step(step);
                let (weight, rho) = ((step as f64).powf(-0.8), LR.min(1.0 / (step as f64).sqrt()));
                for (i, [rows, cols]) in shapes.into_iter().enumerate() {
                    let (x, g, [row, col]) = (&mut steps.expected[i], &grads[i], &mut variances[i]);
                    let alpha = rms(x).max(1e-3) * rho;
                    if let Some(origin) = steps.decays[i] {
                        x.iter_mut().for_each(|x| *x -= LR * 0.3 * (*x - f64::from(origin)));
                    }
                    for (r, row) in row.iter_mut().enumerate() {
                        *row += weight * (mean((0..cols).map(|c| g[r * cols + c].powi(2))) - *row);
                    }
                    for (c, col) in col.iter_mut().enumerate() {
                        *col += weight * (mean((0..rows).map(|r| g[r * cols + c].powi(2))) - *col);
                    }
                    let divisor = mean(row.iter().copied()).max(EPS1);
                    let estimate = |r: usize, c: usize| if rows == 1 { col[c] } else { row[r] * col[c] / divisor };
                    let at = |k: usize| g[k] / estimate(k / cols, k % cols).max(EPS1 * EPS1).sqrt();
                    let scaled: Vec<f64> = (0..g.len()).map(at).collect();
                    let alpha = alpha / rms(&scaled).max(1.0);
                    x.iter_mut().zip(&scaled).for_each(|(x, u)| *x -= alpha * u);
                }
            }
            let difference = steps.largest_difference();
            assert!(difference < 1e-8, "{difference}");
        }
    }

    #[test]
    fn settings_out_of_range_name_their_field() {
        let e = Adafactor { weight_decay: -1.0 }.validate().unwrap_err().to_string();
        assert!(e.contains("`weight_decay`"));
    }
}
