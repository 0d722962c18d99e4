//! The CPU references of the matrix products.

use std::any::Any;

use bytemuck::Zeroable as _;
use rayon::prelude::*;

use super::few_rows::{MOST_ROWS, times_rows};
use super::matmul_params::Params;
use super::product::{View, product};
use super::rounded::times_rounded;
use super::row_tasks::WholeRows;
use super::rows::dot;
use super::weights::Packed;
use crate::formats::blocks::RUN;
use crate::gpu::{Activations, Arg, Host, KernelArgs, Real, Scratch};
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
    let host = args.host;
    let (to, w) = operands(args, format, false);
    add_nt(to, w, format, host);
}

/// out [n] = x [k] wᵀ, w [n, k].
pub(super) fn vector_nt<T: Real>(x: &[T], (w, format): (Arg<'_, T>, Format), out: &mut [T], host: Host<'_, T>) {
    let [n, k] = [out.len(), x.len()].map(|n| n as u32);
    let p = Params { m: 1, n, k, a_stride: k, c_stride: n, alpha: 1.0, ..Params::zeroed() };
    let to = Operands { p, a: View::rows(x, x.len()), out };
    add_nt(to, Weight::new(w, format, 0), format, host);
}

fn add_nt<T: Real>(mut to: Operands<'_, T>, w: Weight<'_, T>, format: Format, host: Host<'_, T>) {
    let [m, n, k] = [to.p.m, to.p.n, to.p.k].map(|x| x as usize);
    let is_few = m <= MOST_ROWS;
    let is_rounded = host.activations == Activations::Q8 && format.is_quantised();
    if (is_few || is_rounded) && in_vectors(&mut to, &w, format, host.scratch, is_rounded) {
        return;
    }
    let w_offset = to.p.w_offset as usize;
    let mut panel = |row: usize, w: &[T]| match is_few {
        true => dots(&mut to, w, row),
        false => to.add(View::columns(w, k), [w.len() / k, k], [row, 0]),
    };
    match w {
        Weight::Plain(w) => panel(0, &w[..n * k]),
        Weight::Packed(words) => {
            Packed::new(words, format, w_offset, k).for_panels(n, host.scratch, panel);
        }
    }
}

/// The product of a few rows by [`times_rows`], or of rounded rows by [`times_rounded`]. Returns
/// false, and does nothing, unless numbers are f32 and rows are whole blocks and runs.
fn in_vectors<T: Real>(
    to: &mut Operands<'_, T>,
    w: &Weight<'_, T>,
    format: Format,
    scratch: &Scratch<T>,
    is_rounded: bool,
) -> bool {
    let [m, n, k] = [to.p.m, to.p.n, to.p.k].map(|x| x as usize);
    let rows = match w {
        Weight::Plain(w) => T::as_f32(w).filter(|_| k.is_multiple_of(RUN)).map(|w| WholeRows {
            words: bytemuck::cast_slice(w),
            format,
            k,
        }),
        Weight::Packed(words) => Packed::new(words, format, to.p.w_offset as usize, k).whole_rows(),
    };
    let of_f32 = (scratch as &dyn Any).downcast_ref::<Scratch<f32>>();
    let (Some(rows), Some(scratch), Some(x), Some(out)) = (rows, of_f32, T::as_f32(to.a.data), T::as_f32_mut(to.out))
    else {
        return false;
    };
    let (x, out) = (View::rows(x, to.a.row), (out, to.p.c_stride as usize));
    let product = if is_rounded { times_rounded } else { times_rows };
    product(rows, x, [m, n], out, [to.p.alpha, to.p.beta], scratch);
    true
}

/// The products of each of a few rows with the rows of `w`, into the columns from `first` on. A row
/// gets the same bits whatever the number of rows is.
fn dots<T: Real>(to: &mut Operands<'_, T>, w: &[T], first: usize) {
    let (k, n, alpha, beta) = (to.p.k as usize, w.len() / to.p.k as usize, T::of(to.p.alpha), T::of(to.p.beta));
    for r in 0..to.p.m as usize {
        let x = &to.a.data[r * to.a.row..][..k];
        let rows = |(out, w): (&mut [T], &[T])| {
            for (out, row) in out.iter_mut().zip(w.chunks_exact(k)) {
                let sum = alpha * dot(x, row);
                *out = if beta == T::ZERO { sum } else { sum + beta * *out };
            }
        };
        let out = &mut to.out[r * to.p.c_stride as usize + first..][..n];
        if n * k <= PARALLEL_FROM {
            rows((out, w));
        } else {
            out.par_chunks_mut(ROWS).zip(w.par_chunks(ROWS * k)).for_each(rows);
        }
    }
}

/// out = a w, w [k, n].
pub(super) fn nn<T: Real>(args: KernelArgs<'_, T>, format: Format) {
    let scratch: &Scratch<T> = args.host.scratch;
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
