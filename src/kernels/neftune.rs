//! NEFTune: uniform noise on the embeddings, from a counter-based hash.
//!
//! The noise depends only on a key and the element's index. So a chunk of a sequence, a second
//! forward and a resumed run get the same noise.

use super::case::{Case, Input, Tolerance, random, real};
use super::hash::hash;
use super::op::{Applied, Op, when};
use super::rows::for_rows;
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// Workgroup size of the shader.
const GROUP: usize = 64;

/// The third word of the key. The sites of dropout count from 0.
const SITE: u32 = u32::MAX;

params! {
    /// The shape and the key.
    pub struct Params {
        /// Number of elements.
        n: u32,
        /// Columns.
        cols: u32,
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

static ADD_NOISE: KernelDef = KernelDef {
    label: "neftune/add_noise",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("common/hash"), wgsl!("neftune/add_noise")],
    bindings: &[
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read("magnitudes", Kind::Real, "[rows]"),
        Binding::write("out", Kind::Real, "[rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.param("n"))),
    reference_f32: add_noise_reference,
    reference_f64: add_noise_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&ADD_NOISE, vec![])]
}

/// A number in [-1, 1) from the upper 24 bits of the hash of an element, exact in f32.
fn uniform(i: u32, p: &Params) -> f32 {
    let bits = hash(i.wrapping_add(p.first), [p.seed, p.step, p.site]) >> 8;
    bits as f32 / (1 << 23) as f32 - 1.0
}

fn add_noise_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, magnitudes, out] = args.buffers();
    let (x, magnitudes, out) = (x.real(), magnitudes.real(), out.real_mut());
    let (n, cols) = (p.n as usize, p.cols as usize);
    for_rows(n, &mut out[..n], cols, |r, out| {
        for (c, out) in out.iter_mut().enumerate() {
            let i = r * cols + c;
            *out = x[i] + magnitudes[r] * T::of(uniform(i as u32, &p));
        }
    });
}

/// The noise of one forward.
#[derive(Clone, Debug)]
pub struct Noise {
    /// Seed of the run, and step and micro-batch as one counter.
    pub key: [u32; 2],
    /// Number of the first token in its batch.
    pub first_token: usize,
    /// The largest magnitude of the noise of each token, `[tokens]`: alpha / √(length of its
    /// sequence · hidden size), times the model's factor of noise.
    pub magnitudes: Span,
}

struct AddNoise;

impl Op for AddNoise {
    fn label(&self) -> &'static str {
        ADD_NOISE.label
    }

    fn backward(&self, _: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![when(need[0], || Ok(grads[0].clone()))?])
    }

    fn passes_on(&self) -> bool {
        true
    }
}

/// x [tokens, channels] + noise, uniform within ± the token's magnitude.
pub fn add_noise(rec: &mut Recording, x: &Tensor, noise: &Noise) -> Applied {
    let out = Tensor::transient(rec, "noisy embedding", x.rows, x.cols);
    let [seed, step] = noise.key;
    let first = (noise.first_token as u32).wrapping_mul(x.cols as u32);
    let params = Params { n: x.len() as u32, cols: x.cols as u32, seed, step, site: SITE, first };
    let spans = [x.span(), &noise.magnitudes, out.span()];
    rec.dispatch(&ADD_NOISE, &[], params, &spans, groups_for(x.len(), GROUP));
    (vec![out], Box::new(AddNoise))
}

fn case(name: &str, rows: usize, cols: usize, first_token: usize) -> Case {
    let magnitudes = random(2, rows, 2.0).iter().map(|x| x.abs() + 0.5).collect();
    let magnitudes = Input::Real { rows: 1, cols: rows, format: Format::F32, values: magnitudes, differentiable: false };
    let inputs = vec![real(1, rows, cols, 1.0), magnitudes];
    Case::new(format!("neftune/add_noise: {name}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        let key = if rows == 1 { [42, 7] } else { [rows as u32, 1_000_003] };
        let noise = Noise { key, first_token, magnitudes: b.tensors[1].span().clone() };
        let (outs, op) = add_noise(rec, &b.tensors[0], &noise);
        Ok((outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 31, 37, 1 << 27), // the count of elements wraps
        case("one", 1, 1, 0),
        case("beyond 16 bits", 47, 1501, 5),
        case("whole workgroups", 6, 64, 100),
        case("bench", 1024, 2048, 0).bench(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(key: [u32; 2], first: u32, n: u32) -> Vec<f64> {
        let [seed, step] = key;
        let p = Params { n, cols: 1, seed, step, site: SITE, first };
        (0..n).map(|i| f64::from(uniform(i, &p))).collect()
    }

    #[test]
    fn noise_is_uniform_and_neighbours_are_independent() {
        let u = drawn([1, 2], 0, 100_000);
        let n = u.len() as f64;
        let moment = |k: i32| u.iter().map(|u| u.powi(k)).sum::<f64>() / n;
        assert!(u.iter().all(|u| (-1.0..1.0).contains(u)));
        // Six standard deviations of a fair sample of this size.
        assert!(moment(1).abs() < 0.011 && (moment(2) - 1.0 / 3.0).abs() < 0.006, "{} {}", moment(1), moment(2));
        for lag in [1, 2, 64, 1024] {
            let together = u.iter().zip(&u[lag..]).map(|(a, b)| a * b).sum::<f64>() / n;
            assert!(together.abs() < 0.0064, "lag {lag}: {together}");
        }
    }

    #[test]
    fn a_part_of_the_tokens_gets_its_part_of_the_noise() {
        assert_eq!(drawn([1, 2], 30, 10), drawn([1, 2], 0, 40)[30..]);
        assert_ne!(drawn([2, 2], 0, 10), drawn([1, 2], 0, 10));
        assert_ne!(drawn([1, 3], 0, 10), drawn([1, 2], 0, 10));
    }
}
