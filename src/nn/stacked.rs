//! Linear layers with the same input, such as q, k and v, run as one product if possible.
//!
//! If their frozen weights are adjacent in memory, a single row (a generated token) goes through
//! all of them in one product, fused with the norm before it.

use super::{Adapters, Linear, norm};
use crate::autograd::{Param, Tape, Var};
use crate::error::Result;
use crate::kernels::matmul::linear;
use crate::kernels::normed::normed_linear;
use crate::tensor::Tensor;

/// `N` linear layers of one input.
#[derive(Clone, Debug)]
pub struct Stacked<const N: usize> {
    layers: [Linear; N],
    /// The weights of all layers [Σ out, in] in order; `None` if they are not adjacent.
    whole: Option<Tensor>,
}

impl<const N: usize> Stacked<N> {
    /// The layers, with the tensor that holds all their weights as rows, if there is one.
    pub fn new(layers: [Linear; N], whole: Option<Tensor>) -> Self {
        let rows: usize = layers.iter().map(|l| l.weight.value.rows).sum();
        assert!(whole.as_ref().is_none_or(|w| w.rows == rows), "the whole holds the rows of every layer");
        Self { layers, whole }
    }

    /// x [tokens, in] → [tokens, out] of each layer.
    pub fn forward(&self, tape: &mut Tape, x: &Var, adapters: Adapters) -> Result<[Var; N]> {
        if let Some(whole) = self.whole_for(tape, x) {
            let whole = tape.constant(whole.clone());
            let y = tape.apply1(&[x, &whole], |rec, t| linear(rec, &t[0], &t[1], 1.0))?;
            return self.finish(tape, x, &y.tensor, adapters);
        }
        self.of_each(|layer| layer.forward(tape, x, adapters))
    }

    /// RMS norm(x) [tokens, in] → [tokens, out] of each layer, with `scale` [1,
    /// in] as in [`norm`].
    pub fn forward_normed(
        &self,
        tape: &mut Tape,
        x: &Var,
        (scale, eps): (&Param, f32),
        adapters: Adapters,
    ) -> Result<[Var; N]> {
        // Adapters also need the norm's output.
        let adapted = self.layers.iter().any(|layer| adapters.of(layer).is_some());
        if let Some(whole) = self.whole_for(tape, x).filter(|_| !adapted) {
            let y = normed_linear(&mut tape.rec, &x.tensor, &scale.value, eps, whole);
            return self.finish(tape, x, &y, adapters);
        }
        let h = norm(tape, x, scale, eps)?;
        self.forward(tape, &h, adapters)
    }

    /// The weights of all layers, if x can use them at once: the parts of a single output row are
    /// contiguous spans; those of several rows are not.
    fn whole_for(&self, tape: &Tape, x: &Var) -> Option<&Tensor> {
        self.whole.as_ref().filter(|_| x.tensor.rows == 1 && !tape.keeps())
    }

    /// Splits the product of all weights into the layers' parts, and adds their adapters and
    /// biases.
    fn finish(&self, tape: &mut Tape, x: &Var, y: &Tensor, adapters: Adapters) -> Result<[Var; N]> {
        let widths: [usize; N] = std::array::from_fn(|i| self.layers[i].weight.value.rows);
        let mut parts = row_parts(tape, y, widths).into_iter();
        self.of_each(|layer| layer.finish(tape, x, parts.next().expect("a part for each layer"), adapters))
    }

    fn of_each(&self, of: impl FnMut(&Linear) -> Result<Var>) -> Result<[Var; N]> {
        let outputs = self.layers.iter().map(of).collect::<Result<Vec<_>>>()?;
        Ok(<[Var; N]>::try_from(outputs).unwrap_or_else(|_| unreachable!("one output a layer")))
    }
}

/// The parts of a single row, one for each width. They are contiguous, so nothing is copied.
pub(super) fn row_parts<const N: usize>(tape: &mut Tape, row: &Tensor, widths: [usize; N]) -> [Var; N] {
    let span = row.span();
    let mut first = span.offset;
    widths.map(|n| {
        let part = Tensor::from_span(span.buffer.slice(first, n), 1, n);
        first += n;
        tape.constant(part)
    })
}
