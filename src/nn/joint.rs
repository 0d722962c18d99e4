//! Linear layers of one input, such as q, k and v, with weights of their own or in one matrix.

use super::stacked::row_parts;
use super::{Adapters, Linear, Stacked, norm};
use crate::autograd::{Param, Tape, Var};
use crate::error::Result;
use crate::gpu::ELEMENT_ALIGNMENT;
use crate::kernels::columns::split;
use crate::kernels::normed::normed_linear;

/// `N` linear layers of one input.
#[derive(Clone, Debug)]
pub enum Joint<const N: usize> {
    /// Each layer has its weights and its adapter.
    Apart(Stacked<N>),
    /// One weight holds the rows of all layers, and an adapter belongs to all (Phi-3).
    Fused(Box<Fused<N>>),
}

/// `N` linear layers in one matrix.
#[derive(Clone, Debug)]
pub struct Fused<const N: usize> {
    whole: Linear,
    widths: [usize; N],
}

impl<const N: usize> Joint<N> {
    /// x [tokens, in] → [tokens, out] of each layer.
    pub fn forward(&self, tape: &mut Tape, x: &Var, adapters: Adapters) -> Result<[Var; N]> {
        match self {
            Joint::Apart(layers) => layers.forward(tape, x, adapters),
            Joint::Fused(layers) => layers.forward(tape, x, adapters),
        }
    }

    /// RMS norm(x) [tokens, in] → [tokens, out] of each layer, with the norm's weight [1, in].
    pub fn forward_normed(
        &self,
        tape: &mut Tape,
        x: &Var,
        norm: (&Param, f32),
        adapters: Adapters,
    ) -> Result<[Var; N]> {
        match self {
            Joint::Apart(layers) => layers.forward_normed(tape, x, norm, adapters),
            Joint::Fused(layers) => layers.forward_normed(tape, x, norm, adapters),
        }
    }
}

impl<const N: usize> Fused<N> {
    /// Layers with `widths` outputs, whose rows follow each other in `whole`.
    pub fn new(whole: Linear, widths: [usize; N]) -> Self {
        assert_eq!(whole.weight.value.rows, widths.iter().sum::<usize>(), "the whole holds the rows of every layer");
        Self { whole, widths }
    }

    fn forward(&self, tape: &mut Tape, x: &Var, adapters: Adapters) -> Result<[Var; N]> {
        let y = self.whole.forward(tape, x, adapters)?;
        self.parts(tape, &y)
    }

    fn forward_normed(
        &self,
        tape: &mut Tape,
        x: &Var,
        (scale, eps): (&Param, f32),
        adapters: Adapters,
    ) -> Result<[Var; N]> {
        // An adapter also needs the norm's output.
        if x.tensor.rows > 1 || tape.keeps() || adapters.of(&self.whole).is_some() {
            let h = norm(tape, x, scale, eps)?;
            return self.forward(tape, &h, adapters);
        }
        let y = normed_linear(&mut tape.rec, &x.tensor, &scale.value, eps, &self.whole.weight.value);
        let y = tape.constant(y);
        let y = self.whole.finish(tape, x, y, adapters)?;
        self.parts(tape, &y)
    }

    /// The outputs of each layer. Those of a single row are contiguous; they are not copied if each
    /// can be bound.
    fn parts(&self, tape: &mut Tape, y: &Var) -> Result<[Var; N]> {
        let is_bindable = self.widths.iter().all(|n| n.is_multiple_of(ELEMENT_ALIGNMENT));
        if y.tensor.rows == 1 && !tape.keeps() && is_bindable {
            return Ok(row_parts(tape, &y.tensor, self.widths));
        }
        let parts = tape.apply(&[y], |rec, t| split(rec, &t[0], &self.widths))?;
        Ok(<[Var; N]>::try_from(parts).unwrap_or_else(|_| unreachable!("one part a layer")))
    }
}
