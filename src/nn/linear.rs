//! A linear layer, y = x Wᵀ + b, with an optional low-rank adapter (LoRA).
//!
//! LoRA (arXiv 2106.09685): y += s · (x Aᵀ) Bᵀ. The adapter is never merged into W, and a frozen W
//! gets no gradient.

use crate::autograd::{Param, Tape, Var};
use crate::error::Result;
use crate::kernels::bias::add_bias;
use crate::kernels::dropout::dropout;
use crate::kernels::elementwise::{add, scale};
use crate::kernels::matmul::{linear, linear_accumulate};

/// Counter-based dropout of one training step: equal seed and step give equal masks.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Seed of the run.
    pub seed: u32,
    /// Step and micro-batch as one counter.
    pub step: u32,
}

/// A low-rank adapter.
#[derive(Clone, Debug)]
pub struct Lora {
    /// A [r, in].
    pub a: Param,
    /// B [out, r].
    pub b: Param,
    /// alpha / r, or alpha / √r for rsLoRA.
    pub scale: f32,
    /// Probability of dropping an input of A in training.
    pub dropout: f32,
    /// Distinguishes this layer's dropout masks from those of other layers.
    pub site: u32,
}

/// A linear layer.
#[derive(Clone, Debug)]
pub struct Linear {
    /// W [out, in].
    pub weight: Param,
    /// b [1, out].
    pub bias: Option<Param>,
    /// The LoRA adapter, if any.
    pub lora: Option<Lora>,
}

impl Linear {
    /// x [tokens, in] → [tokens, out].
    pub fn forward(&self, tape: &mut Tape, x: &Var, drop: Option<Dropout>) -> Result<Var> {
        let y = self.product(tape, x, 1.0)?;
        self.finish(tape, x, y, drop)
    }

    /// factor · x Wᵀ
    fn product(&self, tape: &mut Tape, x: &Var, factor: f32) -> Result<Var> {
        let weight = tape.param(&self.weight);
        tape.apply1(&[x, &weight], |rec, t| linear(rec, &t[0], &t[1], factor))
    }

    /// y = x Wᵀ with the adapter's product and the bias added; may overwrite y.
    pub(super) fn finish(&self, tape: &mut Tape, x: &Var, y: Var, drop: Option<Dropout>) -> Result<Var> {
        let y = self.adapted(tape, x, y, 1.0, drop)?;
        let Some(bias) = &self.bias else { return Ok(y) };
        let bias = tape.param(bias);
        tape.apply1(&[&y, &bias], |rec, t| add_bias(rec, &t[0], &t[1]))
    }

    /// residual [tokens, out] + factor · [`Linear::forward`]. On a tape that keeps no activations
    /// the product accumulates into the residual, which must not be used afterwards.
    pub fn forward_accumulate(
        &self,
        tape: &mut Tape,
        x: &Var,
        residual: &Var,
        factor: f32,
        drop: Option<Dropout>,
    ) -> Result<Var> {
        if self.bias.is_none() && !tape.keeps() {
            let weight = tape.param(&self.weight);
            let inputs = [x, &weight, residual];
            let y = tape.apply1(&inputs, |rec, t| linear_accumulate(rec, &t[0], &t[1], &t[2], factor))?;
            return self.adapted(tape, x, y, factor, drop);
        }
        let y = if self.bias.is_none() {
            let y = self.product(tape, x, factor)?;
            self.adapted(tape, x, y, factor, drop)?
        } else {
            let y = self.forward(tape, x, drop)?;
            if factor == 1.0 { y } else { tape.apply1(&[&y], |rec, t| scale(rec, &t[0], factor))? }
        };
        tape.apply1(&[residual, &y], |rec, t| add(rec, &t[0], &t[1]))
    }

    /// y + factor · the adapter's product, in place.
    fn adapted(&self, tape: &mut Tape, x: &Var, y: Var, factor: f32, drop: Option<Dropout>) -> Result<Var> {
        let Some(lora) = &self.lora else { return Ok(y) };
        let low = lora.low(tape, x, drop)?;
        let b = tape.param(&lora.b);
        tape.apply1(&[&low, &b, &y], |rec, t| linear_accumulate(rec, &t[0], &t[1], &t[2], factor * lora.scale))
    }
}

impl Lora {
    /// x Aᵀ [tokens, r].
    fn low(&self, tape: &mut Tape, x: &Var, drop: Option<Dropout>) -> Result<Var> {
        let a = tape.param(&self.a);
        let dropped = match drop {
            Some(key) if self.dropout > 0.0 => {
                let key = [key.seed, key.step, self.site];
                Some(tape.apply1(&[x], |rec, t| dropout(rec, &t[0], self.dropout, key))?)
            }
            _ => None,
        };
        tape.apply1(&[dropped.as_ref().unwrap_or(x), &a], |rec, t| linear(rec, &t[0], &t[1], 1.0))
    }
}
