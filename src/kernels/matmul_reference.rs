//! The CPU references of the matrix products.

use std::cell::RefCell;

use bytemuck::Zeroable as _;
use rayon::prelude::*;

use super::matmul_params::Params;
use super::product::{View, product};
use super::rows::dot;
use super::weights::Packed;
use crate::gpu::{Arg, KernelArgs, Real};
use crate::tensor::Format;

/// Products with fewer multiplications run on one thread.
const PARALLEL_FROM: usize = 1 << 16;
/// Rows of an f32 weight that one task of a one-token product reads.
const ROWS: usize = 32;

/// The left operand and the output of a product, with their strides and offsets.
struct Operands<'a, T> {
    p: Params,
    a: View<'a, T>,
    out: &'a mut [T],
}

impl<T: Real> Operands<'_, T> {
    /// Accumulates the product with the first `n` columns and `k` rows of b, from column `from_col`
    /// of the output and element `from_k` of a's rows.
    fn add(&mut self, b: View<'_, T>, [n, k]: [usize; 2], [from_col, from_k]: [usize; 2]) {
        let (p, a) = (&self.p, self.a);
        let a = View { data: &a.data[from_k * a.col..], ..a };
        let beta = if from_k == 0 { T::of(p.beta) } else { T::ONE };
        let m = p.m as usize;
        let parallel = m * n * k > PARALLEL_FROM;
        product([m, n, k], a, b, &mut self.out[from_col..], p.c_stride as usize, T::of(p.alpha), beta, parallel);
    }
}

/// The weight of a product, as f32 or packed words.
enum Weight<'a, T> {
    Plain(&'a [T]),
    Packed(&'a [u32]),
}

impl<'a, T: Real> Weight<'a, T> {
    /// The weight of a reference; if it is plain, from element `offset` on.
    fn new(arg: Arg<'a, T>, format: Format, offset: usize) -> Self {
        match format {
            Format::F32 => Weight::Plain(&arg.real()[offset..]),
            _ => Weight::Packed(arg.u32()),
        }
    }
}

fn operands<T: Real>(
    args: KernelArgs<'_, T>,
    format: Format,
    a_is_transposed: bool,
) -> (Operands<'_, T>, Weight<'_, T>) {
    let p: Params = args.params();
    let [a, w, out] = args.buffers();
    let (a, stride) = (&a.real()[p.a_offset as usize..], p.a_stride as usize);
    let a = if a_is_transposed { View::columns(a, stride) } else { View::rows(a, stride) };
    let w = Weight::new(w, format, p.w_offset as usize);
    (Operands { p, a, out: &mut out.real_mut()[p.c_offset as usize..] }, w)
}

/// out = a wᵀ, w [n, k].
pub(super) fn nt<T: Real>(args: KernelArgs<'_, T>, format: Format) {
    let scratch = args.scratch;
    let (to, w) = operands(args, format, false);
    add_nt(to, w, format, scratch);
}

/// out [n] = x [k] wᵀ, w [n, k].
pub(super) fn vector_nt<T: Real>(x: &[T], (w, format): (Arg<'_, T>, Format), out: &mut [T], scratch: &RefCell<Vec<T>>) {
    let [n, k] = [out.len(), x.len()].map(|n| n as u32);
    let p = Params { m: 1, n, k, a_stride: k, c_stride: n, alpha: 1.0, ..Params::zeroed() };
    let to = Operands { p, a: View::rows(x, x.len()), out };
    add_nt(to, Weight::new(w, format, 0), format, scratch);
}

fn add_nt<T: Real>(mut to: Operands<'_, T>, w: Weight<'_, T>, format: Format, scratch: &RefCell<Vec<T>>) {
    let [m, n, k] = [to.p.m, to.p.n, to.p.k].map(|x| x as usize);
    match w {
        Weight::Plain(w) if m == 1 => one_row(&to.p, to.a.data, w, to.out),
        Weight::Plain(w) => to.add(View::columns(w, k), [n, k], [0, 0]),
        Weight::Packed(words) => {
            let w = Packed::new(words, format, to.p.w_offset as usize, k);
            let (alpha, beta) = (T::of(to.p.alpha), T::of(to.p.beta));
            if m == 1 && w.times_vector(to.a.data, &mut to.out[..n], alpha, beta) {
                return;
            }
            w.for_panels(n, scratch, |row, panel| {
                to.add(View::columns(panel, k), [panel.len() / k, k], [row, 0]);
            });
        }
    }
}

/// The product of one token, as in decode. Reading the weight takes most of the time, and `gemm`
/// would read it on one thread.
fn one_row<T: Real>(p: &Params, x: &[T], w: &[T], out: &mut [T]) {
    let (n, k, alpha, beta) = (p.n as usize, p.k as usize, T::of(p.alpha), T::of(p.beta));
    let x = &x[..k];
    let rows = |(out, w): (&mut [T], &[T])| {
        for (out, row) in out.iter_mut().zip(w.chunks_exact(k)) {
            let sum = alpha * dot(x, row);
            *out = if beta == T::ZERO { sum } else { sum + beta * *out };
        }
    };
    if n * k <= PARALLEL_FROM {
        return rows((&mut out[..n], w));
    }
    out[..n].par_chunks_mut(ROWS).zip(w.par_chunks(ROWS * k)).for_each(rows);
}

/// out = a w, w [k, n].
pub(super) fn nn<T: Real>(args: KernelArgs<'_, T>, format: Format) {
    let scratch: &RefCell<Vec<T>> = args.scratch;
    let (mut to, w) = operands(args, format, false);
    let [n, k] = [to.p.n, to.p.k].map(|x| x as usize);
    match w {
        Weight::Plain(w) => to.add(View::rows(w, n), [n, k], [0, 0]),
        Weight::Packed(words) => {
            let w = Packed::new(words, format, to.p.w_offset as usize, n);
            w.for_panels(k, scratch, |row, panel| to.add(View::rows(panel, n), [n, panel.len() / n], [0, row]));
        }
    }
}

/// out = aᵀ w, a [k, m], w [k, n].
pub(super) fn tn<T: Real>(args: KernelArgs<'_, T>, format: Format) {
    let (mut to, w) = operands(args, format, true);
    let [n, k] = [to.p.n, to.p.k].map(|x| x as usize);
    match w {
        Weight::Plain(w) => to.add(View::rows(w, n), [n, k], [0, 0]),
        Weight::Packed(_) => unreachable!("a weight's gradient is a product of activations"),
    }
}
