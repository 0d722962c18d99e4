//! A linear layer, y = x Wᵀ + b, with an optional low-rank adapter (LoRA or DoRA).
//!
//! LoRA (arXiv 2106.09685): y += s · (x Aᵀ) Bᵀ. DoRA (arXiv 2402.09353): every output of W + s·B A
//! is scaled by m / norm of its row. The adapter is never merged into W, and a frozen W gets no
//! gradient.

use crate::autograd::{Param, Tape, Var};
use crate::error::Result;
use crate::gpu::{Executor, Recording};
use crate::kernels::bias::add_bias;
use crate::kernels::dora::{row_norms, scale_columns};
use crate::kernels::dropout::dropout;
use crate::kernels::elementwise::{add, scale};
use crate::kernels::matmul::{linear, linear_accumulate};
use crate::tensor::{Format, Tensor};

/// The random parts of one training step, by counters: equal seed and step give equal masks and
/// noise.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Seed of the run.
    pub seed: u32,
    /// Step and micro-batch as one counter.
    pub step: u32,
    /// Number of the first token in its batch: a chunk of a sequence gets its part of the mask.
    pub first_token: usize,
    /// NEFTune's alpha: the strength of the noise of the embeddings, 0 for none.
    pub neftune: f32,
}

/// Whether a forward applies the adapters.
#[derive(Clone, Copy, Debug)]
pub enum Adapters {
    /// The model without its adapters.
    Off,
    /// With the adapters as they were loaded, of a model that keeps them; without any otherwise.
    Reference,
    /// With the adapters, and with dropout of their inputs if there is one.
    On(Option<Dropout>),
}

impl Adapters {
    /// The adapter that a layer applies, if any.
    pub(super) fn of(self, layer: &Linear) -> Option<&Lora> {
        match self {
            Adapters::Off => None,
            Adapters::Reference => layer.reference.as_ref(),
            Adapters::On(_) => layer.lora.as_ref(),
        }
    }
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
    /// The magnitudes that make it DoRA.
    pub dora: Option<Dora>,
}

/// The magnitudes of a DoRA adapter.
#[derive(Clone, Debug)]
pub struct Dora {
    /// m [1, out].
    pub magnitude: Param,
    /// Norms of the rows of W + s·B A [1, out], if nothing in them is trained. Otherwise each
    /// forward computes them.
    pub norms: Option<Tensor>,
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
    /// A frozen copy of the adapter as it was loaded, if the training compares with it.
    pub reference: Option<Lora>,
}

impl Linear {
    /// x [tokens, in] → [tokens, out].
    pub fn forward(&self, tape: &mut Tape, x: &Var, adapters: Adapters) -> Result<Var> {
        let y = self.product(tape, x, 1.0)?;
        self.finish(tape, x, y, adapters)
    }

    /// factor · x Wᵀ
    fn product(&self, tape: &mut Tape, x: &Var, factor: f32) -> Result<Var> {
        let weight = tape.param(&self.weight);
        tape.apply1(&[x, &weight], |rec, t| linear(rec, &t[0], &t[1], factor))
    }

    /// y = x Wᵀ with the adapter applied and the bias added; may overwrite y.
    pub(super) fn finish(&self, tape: &mut Tape, x: &Var, y: Var, adapters: Adapters) -> Result<Var> {
        let y = self.adapted(tape, x, y, 1.0, adapters)?;
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
        adapters: Adapters,
    ) -> Result<Var> {
        let is_scaled = adapters.of(self).is_some_and(|lora| lora.dora.is_some());
        if self.bias.is_none() && !tape.keeps() && !is_scaled {
            let weight = tape.param(&self.weight);
            let inputs = [x, &weight, residual];
            let y = tape.apply1(&inputs, |rec, t| linear_accumulate(rec, &t[0], &t[1], &t[2], factor))?;
            return self.adapted(tape, x, y, factor, adapters);
        }
        let y = if self.bias.is_none() {
            let y = self.product(tape, x, factor)?;
            self.adapted(tape, x, y, factor, adapters)?
        } else {
            let y = self.forward(tape, x, adapters)?;
            if factor == 1.0 { y } else { tape.apply1(&[&y], |rec, t| scale(rec, &t[0], factor))? }
        };
        tape.apply1(&[residual, &y], |rec, t| add(rec, &t[0], &t[1]))
    }

    /// y = factor · x Wᵀ with the adapter applied; may overwrite y.
    fn adapted(&self, tape: &mut Tape, x: &Var, y: Var, factor: f32, adapters: Adapters) -> Result<Var> {
        let Some(lora) = adapters.of(self) else { return Ok(y) };
        let dropped = lora.dropped(tape, x, adapters)?;
        let Some(dora) = &lora.dora else { return lora.add_to(tape, dropped.as_ref().unwrap_or(x), &y, factor) };
        let Some(dropped) = dropped else {
            let whole = lora.add_to(tape, x, &y, factor)?;
            return self.scaled(tape, lora, dora, &whole);
        };
        // As in PEFT, only what the adapter changes sees the dropout: with x' for the dropped x,
        // y = (W x - W x') + (W + s·B A) x' · m / norm.
        let weight = tape.param(&self.weight);
        let inputs = [&dropped, &weight, &y];
        let rest = tape.apply1(&inputs, |rec, t| linear_accumulate(rec, &t[0], &t[1], &t[2], -factor))?;
        let base = self.product(tape, &dropped, factor)?;
        let whole = lora.add_to(tape, &dropped, &base, factor)?;
        let scaled = self.scaled(tape, lora, dora, &whole)?;
        tape.apply1(&[&rest, &scaled], |rec, t| add(rec, &t[0], &t[1]))
    }

    /// y · m / norm of each row of W + s·B A.
    fn scaled(&self, tape: &mut Tape, lora: &Lora, dora: &Dora, y: &Var) -> Result<Var> {
        let norms = dora.norms.clone().unwrap_or_else(|| {
            let norms = Tensor::transient(&tape.rec, "DoRA norms", 1, self.weight.value.rows);
            lora.record_norms(&mut tape.rec, &self.weight.value, &norms);
            norms
        });
        let (magnitude, norms) = (tape.param(&dora.magnitude), tape.constant(norms));
        tape.apply1(&[y, &magnitude, &norms], |rec, t| scale_columns(rec, &t[0], &t[1], &t[2]))
    }
}

impl Lora {
    /// The norm of each row of W + s·B A [1, out], computed now. A and B must be in f32.
    pub fn norms_now(&self, device: &mut dyn Executor, weight: &Tensor) -> Result<Tensor> {
        let norms = Tensor::persistent("DoRA norms", Format::F32, 1, weight.rows, &device.limits())?;
        let mut rec = Recording::new();
        self.record_norms(&mut rec, weight, &norms);
        device.run(&rec)?;
        Ok(norms)
    }

    fn record_norms(&self, rec: &mut Recording, weight: &Tensor, norms: &Tensor) {
        row_norms(rec, weight, [&self.a.value, &self.b.value], self.scale, norms);
    }

    /// x with dropout, where it applies.
    fn dropped(&self, tape: &mut Tape, x: &Var, adapters: Adapters) -> Result<Option<Var>> {
        let Adapters::On(Some(drop)) = adapters else { return Ok(None) };
        if self.dropout == 0.0 {
            return Ok(None);
        }
        let key = [drop.seed, drop.step, self.site];
        tape.apply1(&[x], |rec, t| dropout(rec, &t[0], self.dropout, key, drop.first_token)).map(Some)
    }

    /// y + factor · s · (x Aᵀ) Bᵀ, in place.
    fn add_to(&self, tape: &mut Tape, x: &Var, y: &Var, factor: f32) -> Result<Var> {
        let (a, b) = (tape.param(&self.a), tape.param(&self.b));
        let low = tape.apply1(&[x, &a], |rec, t| linear(rec, &t[0], &t[1], 1.0))?;
        tape.apply1(&[&low, &b, y], |rec, t| linear_accumulate(rec, &t[0], &t[1], &t[2], factor * self.scale))
    }
}
