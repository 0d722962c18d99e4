//! Dropout with a counter-based hash as random generator.
//!
//! The mask depends only on a key and the element's index, on every device. So the backward pass
//! needs no stored mask, and a resumed run drops the same elements.

use super::case::{Case, Tolerance, real};
use super::hash;
use super::op::{Applied, Op, when};
use super::rows::for_rows;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, groups_for};
use crate::tensor::Tensor;
use crate::{ensure, params, wgsl};

/// Workgroup size of the shader.
const GROUP: usize = 64;
/// Elements that the reference processes at a time.
const BLOCK: usize = 1024;

params! {
    /// The probability and the key.
    pub struct Params {
        /// Number of elements.
        n: u32,
        /// p · 2³²: elements with a smaller hash are dropped.
        threshold: u32,
        /// 1 / (1 - p).
        scale: f32,
        /// First word of the key.
        seed: u32,
        /// Second word of the key.
        step: u32,
        /// Third word of the key.
        site: u32,
        /// Index of the first element, which counts on from earlier chunks of a sequence.
        first: u32,
    }
}

static DROPOUT: KernelDef = KernelDef {
    label: "dropout/dropout",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("common/hash"), wgsl!("dropout/dropout")],
    bindings: &[Binding::read("x", Kind::Real, "[n]"), Binding::write("out", Kind::Real, "[n]")],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("n"))),
    reference_f32: dropout_reference,
    reference_f64: dropout_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&DROPOUT, vec![])]
}

/// The hash of an element.
fn hash(i: u32, p: &Params) -> u32 {
    hash::hash(i.wrapping_add(p.first), [p.seed, p.step, p.site])
}

fn dropout_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, out] = args.buffers();
    let (x, out, n, scale) = (x.real(), out.real_mut(), p.n as usize, T::of(p.scale));
    for_rows(n, &mut out[..n], BLOCK, |b, out| {
        let from = b * BLOCK;
        for (i, (out, &x)) in out.iter_mut().zip(&x[from..]).enumerate() {
            *out = if hash((from + i) as u32, &p) >= p.threshold { x * scale } else { T::ZERO };
        }
    });
}

fn dropped(rec: &mut Recording, x: &Tensor, params: Params) -> Tensor {
    let out = Tensor::transient(rec, "dropout", x.rows, x.cols);
    rec.dispatch(&DROPOUT, &[], params, &[x.span(), out.span()], groups_for(x.len(), GROUP));
    out
}

struct Dropout(Params);

impl Op for Dropout {
    fn label(&self) -> &'static str {
        DROPOUT.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![when(need[0], || Ok(dropped(rec, &grads[0], self.0)))?])
    }
}

/// Zeroes each element with probability `p` in [0, 1) and divides the others by 1 - p. `key` is
/// seed, step and site; equal keys give equal masks. `first_row` is the number of the first row
/// within the rows of the key: a part of them gets its part of the mask. Fails for other values of
/// `p`.
pub fn dropout(
    rec: &mut Recording,
    x: &Tensor,
    p: f32,
    [seed, step, site]: [u32; 3],
    first_row: usize,
) -> Result<Applied> {
    ensure!((0.0..1.0).contains(&p), "dropout of {p}: the probability must be at least 0 and below 1");
    let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
    let first = (first_row as u32).wrapping_mul(x.cols as u32);
    let params = Params { n: x.len() as u32, threshold, scale: 1.0 / (1.0 - p), seed, step, site, first };
    Ok((vec![dropped(rec, x, params)], Box::new(Dropout(params))))
}

fn case(name: &str, rows: usize, cols: usize, p: f32) -> Case {
    let inputs = vec![real(1, rows, cols, 1.0)];
    Case::new(format!("dropout/dropout: {name}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        let key = if rows == 1 { [42, 7, 3] } else { [rows as u32, 1_000_003, 77] };
        let first_row = if rows == 31 { 1 << 27 } else { 0 }; // the count of elements wraps
        dropout(rec, &b.tensors[0], p, key, first_row).map(|(outs, op)| (outs, Some(op)))
    })
}

/// A threshold that is `above` larger than the hash of one element: with 0 the element is just
/// kept, with 1 it is just dropped.
fn limit_case(name: &str, above: u32) -> Case {
    let inputs = vec![real(1, 3, 37, 1.0)];
    Case::new(format!("dropout/dropout: {name}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        let x = &b.tensors[0];
        let mut params = Params { n: x.len() as u32, threshold: 0, scale: 1.5, seed: 42, step: 7, site: 3, first: 0 };
        params.threshold = hash(50, &params) + above;
        Ok((vec![dropped(rec, x, params)], Some(Box::new(Dropout(params)))))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 31, 37, 0.3),
        case("one", 1, 1, 0.5),
        case("nearly all", 40, 64, 0.99),
        case("beyond 16 bits", 47, 1501, 0.05),
        case("whole workgroups", 6, 64, 0.3),
        limit_case("a hash at the threshold", 0),
        limit_case("a hash below the threshold", 1),
        case("bench", 1024, 2048, 0.1).bench(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(key: [u32; 3], n: u32) -> Vec<bool> {
        let [seed, step, site] = key;
        let p = Params { n, threshold: 1 << 30, scale: 1.0, seed, step, site, first: 0 };
        (0..n).map(|i| hash(i, &p) < p.threshold).collect()
    }

    #[test]
    fn a_quarter_is_dropped_and_neighbours_are_independent() {
        let n = 100_000;
        let m = mask([1, 2, 3], n);
        let rate = |hits: usize| hits as f64 / f64::from(n);
        // Six standard deviations of a fair sample of this size.
        assert!((rate(m.iter().filter(|&&d| d).count()) - 0.25).abs() < 0.0083);
        for lag in [1, 2, 64, 1024] {
            let both = m.iter().zip(&m[lag..]).filter(|(a, b)| **a && **b).count();
            assert!((rate(both) - 0.0625).abs() < 0.006, "lag {lag}");
        }
    }

    #[test]
    fn a_part_of_the_rows_gets_its_part_of_the_mask() {
        let p = Params { n: 40, threshold: 1 << 30, scale: 1.0, seed: 1, step: 2, site: 3, first: 0 };
        assert!((0..10).all(|i| hash(i, &Params { first: 30, ..p }) == hash(30 + i, &p)));
    }

    #[test]
    fn each_word_of_the_key_changes_the_mask() {
        let base = mask([1, 2, 3], 10_000);
        for key in [[2, 2, 3], [1, 3, 3], [1, 2, 4]] {
            let same = base.iter().zip(mask(key, 10_000)).filter(|(a, b)| **a == *b).count();
            // Independent masks agree in 0.25² + 0.75² = 62.5 %.
            assert!((same as f64 / 1e4 - 0.625).abs() < 0.03, "{key:?}: {same}");
        }
    }
}
