//! Linear layers of one input, such as q, k and v. Where their frozen weights lie one behind the other, a single row (a generated token)
//! goes through all of them in one product.

use super::{Dropout, Linear};
use crate::autograd::{Tape, Var};
use crate::error::Result;
use crate::kernels::matmul::linear;
use crate::tensor::Tensor;

/// `N` linear layers of one input.
#[derive(Clone, Debug)]
pub struct Stacked<const N: usize> {
    layers: [Linear; N],
    /// The weights of all layers [Σ out, in], in their order; none where they lie apart.
    whole: Option<Tensor>,
}

impl<const N: usize> Stacked<N> {
    /// The layers, with the tensor that their weights are the rows of, where there is one.
    pub fn new(layers: [Linear; N], whole: Option<Tensor>) -> Self {
        let rows: usize = layers.iter().map(|l| l.weight.value.rows).sum();
        assert!(whole.as_ref().is_none_or(|w| w.rows == rows), "the whole holds the rows of every layer");
        Self { layers, whole }
    }

    /// x [tokens, in] → [tokens, out] of each layer.
    pub fn forward(&self, tape: &mut Tape, x: &Var, drop: Option<Dropout>) -> Result<[Var; N]> {
        // Parts of a single row are spans of it; those of several would have rows with gaps.
        let whole = self.whole.as_ref().filter(|_| x.tensor.rows == 1 && !tape.keeps());
        let mut outputs = Vec::with_capacity(N);
        if let Some(whole) = whole {
            let whole = tape.constant(whole.clone());
            let y = tape.apply1(&[x, &whole], |rec, t| linear(rec, &t[0], &t[1], 1.0))?;
            let span = y.tensor.span();
            let mut first = span.offset;
            for layer in &self.layers {
                let n = layer.weight.value.rows;
                let part = tape.constant(Tensor::from_span(span.buffer.slice(first, n), 1, n));
                outputs.push(layer.finish(tape, x, part, drop)?);
                first += n;
            }
        } else {
            for layer in &self.layers {
                outputs.push(layer.forward(tape, x, drop)?);
            }
        }
        Ok(<[Var; N]>::try_from(outputs).unwrap_or_else(|_| unreachable!("one output a layer")))
    }
}
