//! The logits of a language model's head: a product with its weight, a factor and a softcap.
//!
//! Gemma 2 and 3 name the softcap `final_logit_softcapping` (arXiv 2408.00118). The gradient of the
//! head is part of the loss, see [`super::loss`].

use super::case::{Case, Tolerance, real};
use super::matmul::{Rows, matmul_nt};
use super::rows::for_rows;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::tensor::{Tensor, copy_tensor};
use crate::{params, wgsl};

/// Workgroup size of the shader.
const GROUP: usize = 256;
/// Elements that the reference processes at a time.
const BLOCK: usize = 1024;

params! {
    /// Logits to cap.
    pub struct Params {
        /// Elements.
        n: u32,
        /// The cap.
        cap: f32,
    }
}

static SOFTCAP: KernelDef = KernelDef {
    label: "head/softcap",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("head/softcap")],
    bindings: &[Binding::read_write("x", Kind::Real, "[n]")],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(6 * d.param("n"))),
    reference_f32: softcap_reference,
    reference_f64: softcap_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&SOFTCAP, vec![])]
}

fn softcap_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x] = args.buffers();
    let (n, cap) = (p.n as usize, T::of(p.cap));
    for_rows(n, &mut x.real_mut()[..n], BLOCK, |_, x| x.iter_mut().for_each(|x| *x = cap * tanh(*x / cap)));
}

/// tanh v. (1 - e^-2v) / (1 + e^-2v) cancels near 0; there, the Padé approximant of degrees 7 and 6
/// is right to 1e-15.
#[inline(always)]
fn tanh<T: Real>(v: T) -> T {
    let size = v.max(-v);
    if size < T::of(0.55) {
        let of = T::of;
        let u = v * v;
        let top = of(135_135.0) + u * (of(17_325.0) + u * (of(378.0) + u));
        return v * top / (of(135_135.0) + u * (of(62_370.0) + u * (of(3_150.0) + of(28.0) * u)));
    }
    let e = (-(size + size)).exp();
    let far = (T::ONE - e) / (T::ONE + e);
    if v < T::ZERO { -far } else { far }
}

/// The head of a language model: logits = cap(scale · hidden weightᵀ), with cap(z) = c · tanh(z/c)
/// for a softcap c.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// [vocabulary, channels], in any format and cuts.
    pub weight: &'a Tensor,
    /// Factor of the logits.
    pub scale: f32,
    /// The softcap; `None` leaves the logits as they are.
    pub softcap: Option<f32>,
}

/// A head without factor and softcap.
impl<'a> From<&'a Tensor> for Head<'a> {
    fn from(weight: &'a Tensor) -> Self {
        Self { weight, scale: 1.0, softcap: None }
    }
}

/// The logits [n, vocabulary] of hidden [n, channels].
pub fn logits<'a>(rec: &mut Recording, hidden: &Tensor, head: impl Into<Head<'a>>) -> Tensor {
    let head = head.into();
    let out = Tensor::transient(rec, "logits", hidden.rows, head.weight.rows);
    logits_into(rec, hidden, head, &out);
    out
}

/// [`logits`] of some rows, written to the first rows of `out` [at least n, vocabulary].
pub fn logits_into<'a>(rec: &mut Recording, hidden: impl Into<Rows<'a>>, head: Head<'_>, out: &Tensor) {
    let hidden = hidden.into();
    let n = hidden.count();
    matmul_nt(rec, hidden, head.weight, Rows::new(out, 0, n), head.scale, 0.0);
    if let Some(cap) = head.softcap {
        record_softcap(rec, &out.span().prefix(n * out.cols), cap);
    }
}

fn record_softcap(rec: &mut Recording, logits: &Span, cap: f32) {
    let params = Params { n: logits.len as u32, cap };
    rec.dispatch(&SOFTCAP, &[], params, &[logits], groups_for(logits.len, GROUP));
}

/// Softcap alone, from values where tanh is linear to values where it is flat.
fn softcap_case(name: &str, n: usize, spread: f32) -> Case {
    let inputs = vec![real(1, 1, n, spread).frozen()];
    Case::new(format!("head/softcap: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let x = Tensor::transient(rec, "logits", 1, n);
        copy_tensor(rec, &b.tensors[0], &x);
        record_softcap(rec, x.span(), 3.0);
        Ok((vec![x], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        softcap_case("odd", 37, 0.3),
        softcap_case("whole workgroups", 512, 5.0),
        softcap_case("large values", 300, 1e4),
        softcap_case("beyond 16 bits", 70_001, 3.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_keeps_its_digits_everywhere() {
        for i in -4000..=4000 {
            let v = f64::from(i) / 200.0;
            let found: f64 = tanh(v);
            assert!((found - v.tanh()).abs() <= 2e-15 * v.tanh().abs(), "tanh {v}: {found}");
        }
        for v in [1e-30f32, 1e-3, 0.549, 0.551, 3.0, 90.0] {
            assert!((tanh(v) / v.tanh() - 1.0).abs() < 4e-7, "{v}");
        }
    }
}
