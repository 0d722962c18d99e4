//! The gradient check of a case: analytic gradient against central difference, both in f64.

use crate::error::Result;
use crate::gpu::{CpuExecutor, Executor};
use crate::kernels::case::{Case, Input, random};

/// Step of the central difference. The truncation error is h² and the rounding error 1e-16/h, so
/// both stay below 1e-9 of the slope.
const STEP: f64 = 1e-5;

/// Analytic slope and central difference along a random direction, per differentiable input.
#[derive(Clone, Copy, Debug)]
pub struct Slope {
    /// Index of the input among the reals.
    pub input: usize,
    /// Dot product of gradient and direction.
    pub analytic: f64,
    /// Central difference.
    pub numeric: f64,
    /// Product of the norms of gradient and direction; the error is relative to it.
    pub scale: f64,
}

impl Slope {
    /// Error as a fraction of `scale`.
    pub fn relative_error(&self) -> f64 {
        (self.analytic - self.numeric).abs() / self.scale.max(f64::MIN_POSITIVE)
    }
}

/// Checks every differentiable input of a case. Empty for ops without a gradient.
pub fn check(case: &Case) -> Result<Vec<Slope>> {
    let mut device = CpuExecutor::<f64>::new();
    let recorded = case.record(&mut device)?;
    device.run(&recorded.recording)?;
    let mut gradients = Vec::new();
    for g in &recorded.input_grads {
        gradients.push(match g {
            Some(t) => Some(device.read_f64(t.span())?),
            None => None,
        });
    }
    let reals = case.inputs.iter().filter_map(|i| match i {
        Input::Real { values, differentiable, .. } => Some((&values[..], *differentiable)),
        Input::Blocks { .. } => Some((&[][..], false)),
        Input::Words(_) => None,
    });
    let mut slopes = Vec::new();
    for (i, (values, differentiable)) in reals.enumerate() {
        let (true, Some(Some(gradient))) = (differentiable, gradients.get(i)) else { continue };
        let direction: Vec<f64> = random(77 + i as u64, values.len(), 1.0).into_iter().map(f64::from).collect();
        let magnitude = values.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs()))).max(1e-3);
        let step = STEP * magnitude;
        let span = recorded.bound.tensors[i].span();
        let mut loss = [0.0; 2];
        for (l, sign) in loss.iter_mut().zip([1.0, -1.0]) {
            let moved: Vec<f64> = values.iter().zip(&direction).map(|(&v, d)| f64::from(v) + sign * step * d).collect();
            device.write_f64(span, &moved)?;
            device.run(&recorded.recording)?;
            for (out, grad) in recorded.outputs.iter().zip(&recorded.output_grads) {
                let (o, g) = (device.read_f64(out.span())?, device.read_f64(grad.span())?);
                *l += o.iter().zip(&g).map(|(a, b)| a * b).sum::<f64>();
            }
        }
        let original: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        device.write_f64(span, &original)?;
        let dot: f64 = gradient.iter().zip(&direction).map(|(a, b)| a * b).sum();
        let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = length(gradient) * length(&direction);
        slopes.push(Slope { input: i, analytic: dot, numeric: (loss[0] - loss[1]) / (2.0 * step), scale });
    }
    Ok(slopes)
}
