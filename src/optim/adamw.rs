//! AdamW over an arena: counts steps and turns the configuration into the constants of one update.
//!
//! The arithmetic is in `kernels/adamw.rs`. The constants are computed in f64 and rounded once, since 1 − β₂ or a bias
//! correction taken in f32 would cost four digits.

use crate::error::Result;
use crate::gpu::{Buffer, Kind, Recording};
use crate::kernels::adamw::{self, UpdateParams};
use crate::kernels::grad_norm::norm_and_factor;
use crate::tensor::{Arena, Tensor};

/// Settings of AdamW but for the learning rate of a single step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Base learning rate, which a schedule scales.
    pub lr: f64,
    /// Decay of the first and of the second moment.
    pub betas: (f64, f64),
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay of the slices that decay.
    pub weight_decay: f64,
    /// Largest gradient norm, 0 for none.
    pub clip: f64,
}

impl Default for AdamWConfig {
    /// PyTorch's defaults, without clipping.
    fn default() -> Self {
        Self { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, clip: 0.0 }
    }
}

impl AdamWConfig {
    /// Refuses settings that no run can mean, naming the flag.
    pub fn validate(&self) -> Result<()> {
        let usage = |ok: bool, message: String| if ok { Ok(()) } else { Err(crate::Error::usage(message)) };
        let at_least_zero = |x: f64| x.is_finite() && x >= 0.0;
        usage(at_least_zero(self.lr), format!("--lr {} is not a number from 0", self.lr))?;
        usage(at_least_zero(self.clip), format!("--clip {} is not a number from 0", self.clip))?;
        usage(
            at_least_zero(self.weight_decay),
            format!("--weight-decay {} is not a number from 0", self.weight_decay),
        )?;
        for beta in [self.betas.0, self.betas.1] {
            usage((0.0..1.0).contains(&beta), format!("--betas {beta} does not lie in [0, 1)"))?;
        }
        // Smaller ones round to a subnormal or to zero in f32, and unused elements would divide zero by zero.
        usage(self.eps.is_finite() && self.eps >= 1e-30, format!("--eps {} is below 1e-30", self.eps))
    }
}

/// The optimiser's state outside the arena.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Settings.
    pub config: AdamWConfig,
    /// Updates recorded so far. Set it when continuing a run whose moments were restored.
    pub step: u64,
    state: Tensor,
}

impl AdamW {
    /// An optimiser that has taken no step.
    pub fn new(config: AdamWConfig) -> Result<Self> {
        config.validate()?;
        let state = Tensor::from_span(Buffer::persistent("gradient norm", Kind::Real, 2).span(), 1, 2);
        Ok(Self { config, step: 0, state })
    }

    /// Appends one update of every slice at learning rate `lr_now` and counts the step. Returns the persistent tensor
    /// [1, 2] that holds, once run, the gradient norm before clipping and the factor of the gradients.
    pub fn record(&mut self, rec: &mut Recording, arena: &Arena, lr_now: f64) -> Tensor {
        self.step += 1;
        norm_and_factor(rec, arena, self.config.clip as f32, self.state.span());
        for slice in &arena.slices {
            adamw::update(rec, slice, self.state.span(), self.constants(slice.decay, lr_now));
        }
        self.state.clone()
    }

    fn constants(&self, decay: bool, lr: f64) -> UpdateParams {
        let AdamWConfig { betas: (beta1, beta2), eps, weight_decay, .. } = self.config;
        let t = self.step as f64;
        UpdateParams {
            n: 0,
            decay: if decay { (lr * weight_decay) as f32 } else { 0.0 },
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            step_size: (lr / (1.0 - beta1.powf(t))) as f32,
            inv_sqrt_correction: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
            eps: eps as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{CpuExecutor, Executor};
    use crate::kernels::case::random;
    use crate::tensor::{Spec, Trainable};

    const N: usize = 6;

    fn placed(device: &mut dyn Executor) -> (Arena, Vec<Trainable>) {
        let spec = |name: &str, decay| Spec { name: name.into(), rows: 2, cols: N / 2, decay };
        let (arena, trainables) = Arena::new(&[spec("w", true), spec("norm", false)], &device.limits()).unwrap();
        arena.zero(device).unwrap();
        (arena, trainables)
    }

    /// PyTorch's `_single_tensor_adamw` after `clip_grad_norm_`, written out in f64, for one tensor.
    fn reference(config: &AdamWConfig, decays: bool, values: &mut [f64], all_grads: &[Vec<f64>], norms: &[f64]) {
        let (b1, b2) = config.betas;
        let (mut m, mut v) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        for (i, (grads, norm)) in all_grads.iter().zip(norms).enumerate() {
            let t = i as i32 + 1;
            let factor = if config.clip > 0.0 { (config.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
            let (c1, c2) = (1.0 - b1.powi(t), 1.0 - b2.powi(t));
            for j in 0..values.len() {
                let g = grads[j] * factor;
                if decays {
                    values[j] *= 1.0 - config.lr * config.weight_decay;
                }
                m[j] = b1 * m[j] + (1.0 - b1) * g;
                v[j] = b2 * v[j] + (1.0 - b2) * g * g;
                values[j] -= config.lr / c1 * m[j] / (v[j].sqrt() / c2.sqrt() + config.eps);
            }
        }
    }

    /// Takes five steps on a device and in the reference and returns the largest difference.
    fn largest_difference(device: &mut dyn Executor, clip: f64) -> f64 {
        let config = AdamWConfig { lr: 0.01, weight_decay: 0.3, clip, ..AdamWConfig::default() };
        let (arena, trainables) = placed(device);
        let mut optimiser = AdamW::new(config).unwrap();
        let start = [random(1, N, 1.0), random(2, N, 1.0)];
        for (t, s) in trainables.iter().zip(&start) {
            t.value.write(device, s).unwrap();
        }
        let mut grads = [Vec::new(), Vec::new()];
        let mut norms = Vec::new();
        for step in 0..5 {
            let mut square = 0.0;
            for (i, t) in trainables.iter().enumerate() {
                let g = random(10 + 2 * step + i as u64, N, 1.0);
                t.grad.write(device, &g).unwrap();
                let g: Vec<f64> = g.into_iter().map(f64::from).collect();
                square += g.iter().map(|x| x * x).sum::<f64>();
                grads[i].push(g);
            }
            norms.push(square.sqrt());
            let mut rec = Recording::new();
            let state = optimiser.record(&mut rec, &arena, config.lr);
            device.run(&rec).unwrap();
            let state = state.read(device).unwrap();
            assert!((f64::from(state[0]) - square.sqrt()).abs() < 1e-6 * square.sqrt());
            assert_eq!(state[1] < 1.0, clip > 0.0);
        }
        assert_eq!(optimiser.step, 5);
        let mut largest = 0.0f64;
        for (i, t) in trainables.iter().enumerate() {
            let mut expected: Vec<f64> = start[i].iter().map(|&x| f64::from(x)).collect();
            reference(&config, i == 0, &mut expected, &grads[i], &norms);
            let ours = device.read_f64(t.value.span()).unwrap();
            largest = ours.iter().zip(&expected).fold(largest, |m, (a, b)| m.max((a - b).abs()));
        }
        largest
    }

    #[test]
    fn five_steps_agree_with_pytorchs_formulas() {
        for clip in [0.0, 0.25] {
            let wide = largest_difference(&mut CpuExecutor::<f64>::new(), clip);
            assert!(wide < 1e-8, "f64: {wide}");
            let narrow = largest_difference(&mut CpuExecutor::<f32>::new(), clip);
            assert!(narrow < 1e-6, "f32: {narrow}");
        }
    }

    #[test]
    fn settings_out_of_range_name_their_flag() {
        for (config, flag) in [
            (AdamWConfig { lr: f64::NAN, ..Default::default() }, "--lr"),
            (AdamWConfig { betas: (0.9, 1.0), ..Default::default() }, "--betas"),
            (AdamWConfig { eps: 0.0, ..Default::default() }, "--eps"),
            (AdamWConfig { clip: -1.0, ..Default::default() }, "--clip"),
        ] {
            assert!(AdamW::new(config).unwrap_err().to_string().contains(flag));
        }
    }
}
