//! Rotary position embedding from tables that the host computes, without sin or cos in shaders.
//!
//! The first r channels of a head rotate, usually all; the others pass unchanged. The elements of a
//! pair are r/2 apart, as in Hugging Face's checkpoints. The backward pass rotates by the opposite
//! angle.

use super::case::{Case, Input, Tolerance, real};
use super::op::{Applied, Op, when};
use super::rows::{for_row_pairs, for_rows};
use crate::error::Result;
use crate::gpu::{Binding, KernelArgs, DispatchView, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// Workgroup size of the shaders.
const GROUP: usize = 64;

/// Cosines and sines of the angles of every position.
#[derive(Clone, Debug)]
pub struct RopeTables {
    /// [positions, r/2]
    pub cos: Tensor,
    /// [positions, r/2]
    pub sin: Tensor,
}

params! {
    /// The shape and direction of the rotation.
    pub struct Params {
        /// Tokens.
        tokens: u32,
        /// Heads per token.
        heads: u32,
        /// r/2, the rotating pairs of a head.
        half: u32,
        /// Channels of a head that do not rotate.
        rest: u32,
        /// 1 forward, -1 backward.
        direction: f32,
    }
}

/// A rotation of a pair takes four products and two sums. Counts the table entries that the pairs
/// read, whatever the tables' length.
fn rotation_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let angles = d.param("tokens") * d.param("half");
    let tables = d.len("cos_table") + d.len("sin_table");
    Ok(Work { flops: 6 * angles * d.param("heads"), bytes: d.all_bytes() - 4 * tables + 8 * angles })
}

static ROPE: KernelDef = KernelDef {
    label: "rope/rope",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("rope/rope")],
    bindings: &[
        Binding::read("x", Kind::Real, "[tokens, heads * d]"),
        Binding::read("cos_table", Kind::Real, "[positions, r / 2]"),
        Binding::read("sin_table", Kind::Real, "[positions, r / 2]"),
        Binding::read("positions", Kind::U32, "[tokens]"),
        Binding::write("out", Kind::Real, "[tokens, heads * d]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: rotation_work,
    reference_f32: rope_reference,
    reference_f64: rope_reference,
};

static ROPE_KV: KernelDef = KernelDef {
    label: "rope/rope_kv",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("rope/rope_kv")],
    bindings: &[
        Binding::read("k", Kind::Real, "[tokens, heads * d]"),
        Binding::read("v", Kind::Real, "[tokens, heads * d]"),
        Binding::read("cos_table", Kind::Real, "[positions, r / 2]"),
        Binding::read("sin_table", Kind::Real, "[positions, r / 2]"),
        Binding::read("positions", Kind::U32, "[tokens]"),
        Binding::write("out", Kind::Real, "[tokens, 2 * heads * d]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: rotation_work,
    reference_f32: rope_kv_reference,
    reference_f64: rope_kv_reference,
};

static ROPE_KV_BACKWARD: KernelDef = KernelDef {
    label: "rope/rope_kv_backward",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("rope/rope_kv_backward")],
    bindings: &[
        Binding::read("grad", Kind::Real, "[tokens, 2 * heads * d]"),
        Binding::read("cos_table", Kind::Real, "[positions, r / 2]"),
        Binding::read("sin_table", Kind::Real, "[positions, r / 2]"),
        Binding::read("positions", Kind::U32, "[tokens]"),
        Binding::write("dk", Kind::Real, "[tokens, heads * d]"),
        Binding::write("dv", Kind::Real, "[tokens, heads * d]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: rotation_work,
    reference_f32: rope_kv_backward_reference,
    reference_f64: rope_kv_backward_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&ROPE, &ROPE_KV, &ROPE_KV_BACKWARD].map(|k| (k, vec![])).to_vec()
}

/// The arguments of a rotation: both tables, the positions and the parameters.
struct Turn<'a, T> {
    cos: &'a [T],
    sin: &'a [T],
    positions: &'a [u32],
    p: Params,
}

impl<T: Real> Turn<'_, T> {
    /// Channels of a head.
    fn head_dim(&self) -> usize {
        2 * self.p.half as usize + self.p.rest as usize
    }

    /// Width of a token's row.
    fn width(&self) -> usize {
        self.head_dim() * self.p.heads as usize
    }

    /// Rotates the heads of token `t`.
    fn row(&self, t: usize, x: &[T], out: &mut [T]) {
        let half = self.p.half as usize;
        let at = self.positions[t] as usize * half;
        let (cos, sin, direction) = (&self.cos[at..][..half], &self.sin[at..][..half], T::of(self.p.direction));
        for (x, out) in x.chunks_exact(self.head_dim()).zip(out.chunks_exact_mut(self.head_dim())) {
            let ((x, rest), (out, out_rest)) = (x.split_at(2 * half), out.split_at_mut(2 * half));
            out_rest.copy_from_slice(rest);
            let ((a, b), (low, high)) = (x.split_at(half), out.split_at_mut(half));
            for i in 0..half {
                let (c, s) = (cos[i], sin[i] * direction);
                low[i] = a[i] * c - b[i] * s;
                high[i] = b[i] * c + a[i] * s;
            }
        }
    }
}

fn rope_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, cos, sin, positions, out] = args.buffers();
    let (x, out) = (x.real(), out.real_mut());
    let turn = Turn { cos: cos.real(), sin: sin.real(), positions: positions.u32(), p };
    let width = turn.width();
    let n = p.tokens as usize * width;
    for_rows(n, &mut out[..n], width, |t, out| turn.row(t, &x[t * width..][..width], out));
}

fn rope_kv_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [k, v, cos, sin, positions, out] = args.buffers();
    let (k, v, out) = (k.real(), v.real(), out.real_mut());
    let turn = Turn { cos: cos.real(), sin: sin.real(), positions: positions.u32(), p };
    let width = turn.width();
    let n = p.tokens as usize * 2 * width;
    for_rows(n, &mut out[..n], 2 * width, |t, out| {
        let (keys, values) = out.split_at_mut(width);
        turn.row(t, &k[t * width..][..width], keys);
        values.copy_from_slice(&v[t * width..][..width]);
    });
}

fn rope_kv_backward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [grad, cos, sin, positions, dk, dv] = args.buffers();
    let grad = grad.real();
    let turn = Turn { cos: cos.real(), sin: sin.real(), positions: positions.u32(), p };
    let width = turn.width();
    let n = p.tokens as usize * width;
    let (dk, dv) = (&mut dk.real_mut()[..n], &mut dv.real_mut()[..n]);
    for_row_pairs((dk, width), (dv, width), |t, dk, dv| {
        let (keys, values) = grad[2 * t * width..][..2 * width].split_at(width);
        turn.row(t, keys, dk);
        dv.copy_from_slice(values);
    });
}

/// Tables and positions of one application, kept for the backward pass.
#[derive(Clone)]
struct Turned {
    tables: RopeTables,
    positions: Span,
    params: Params,
}

impl Turned {
    fn new(x: &Tensor, tables: &RopeTables, positions: &Span, head_dim: usize) -> Self {
        let half = tables.cos.cols;
        assert!(2 * half <= head_dim && x.cols.is_multiple_of(head_dim), "heads of this size fill a row");
        assert_eq!((tables.cos.rows, half), (tables.sin.rows, tables.sin.cols), "tables of one shape");
        assert!(positions.len >= x.rows, "every token has a position");
        let params = Params {
            tokens: x.rows as u32,
            heads: (x.cols / head_dim) as u32,
            half: half as u32,
            rest: (head_dim - 2 * half) as u32,
            direction: 1.0,
        };
        Self { tables: tables.clone(), positions: positions.clone(), params }
    }

    fn back(&self) -> Params {
        Params { direction: -1.0, ..self.params }
    }

    fn groups(&self) -> [u32; 3] {
        let p = &self.params;
        groups_for(p.tokens as usize * p.heads as usize * (p.half + p.rest) as usize, GROUP)
    }

    /// One rotation of x [tokens, heads * d].
    fn rotated(&self, rec: &mut Recording, params: Params, x: &Tensor) -> Tensor {
        let out = Tensor::transient(rec, "rope", x.rows, x.cols);
        let spans = [x.span(), self.tables.cos.span(), self.tables.sin.span(), &self.positions, out.span()];
        rec.dispatch(&ROPE, &[], params, &spans, self.groups());
        out
    }
}

struct Rope(Turned);

impl Op for Rope {
    fn label(&self) -> &'static str {
        ROPE.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![when(need[0], || Ok(self.0.rotated(rec, self.0.back(), &grads[0])))?])
    }
}

/// Rotates every head of x [tokens, heads · head_dim] by its token's position (U32 `[tokens]`, less
/// than the tables' rows). The tables say how many channels of a head rotate.
pub fn rope(
    rec: &mut Recording,
    x: &Tensor,
    tables: &RopeTables,
    positions: &Span,
    head_dim: usize,
) -> Result<Applied> {
    let turned = Turned::new(x, tables, positions, head_dim);
    let out = turned.rotated(rec, turned.params, x);
    Ok((vec![out], Box::new(Rope(turned))))
}

struct RopeKv(Turned);

impl Op for RopeKv {
    fn label(&self) -> &'static str {
        ROPE_KV.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        if !need.contains(&true) {
            return Ok(vec![None, None]);
        }
        let (turned, grad) = (&self.0, &grads[0]);
        let dk = Tensor::transient(rec, "rope_kv dk", grad.rows, grad.cols / 2);
        let dv = Tensor::transient(rec, "rope_kv dv", grad.rows, grad.cols / 2);
        let RopeTables { cos, sin } = &turned.tables;
        let spans = [grad.span(), cos.span(), sin.span(), &turned.positions, dk.span(), dv.span()];
        rec.dispatch(&ROPE_KV_BACKWARD, &[], turned.back(), &spans, turned.groups());
        Ok(vec![need[0].then_some(dk), need[1].then_some(dv)])
    }
}

/// Rotated keys and plain values, concatenated: k, v [tokens, kv_heads · head_dim] → [tokens, 2 ·
/// kv_heads · head_dim], keys in the first half of the columns. Inputs: k, v.
pub fn rope_kv(
    rec: &mut Recording,
    k: &Tensor,
    v: &Tensor,
    tables: &RopeTables,
    positions: &Span,
    head_dim: usize,
) -> Result<Applied> {
    assert_eq!((k.rows, k.cols), (v.rows, v.cols), "shapes of keys and values");
    let turned = Turned::new(k, tables, positions, head_dim);
    let out = Tensor::transient(rec, "rope_kv", k.rows, 2 * k.cols);
    let spans = [k.span(), v.span(), tables.cos.span(), tables.sin.span(), positions, out.span()];
    rec.dispatch(&ROPE_KV, &[], turned.params, &spans, turned.groups());
    Ok((vec![out], Box::new(RopeKv(turned))))
}

/// Cosines, sines and positions for `tokens` tokens in arbitrary order.
fn angle_inputs(tokens: usize, half: usize) -> [Input; 3] {
    // With a single pair of channels the table is long: its indices exceed 16 bits.
    let n_positions = if half == 1 { 70_000 } else { tokens + 3 };
    let angle = |i: usize| (i / half % 1000) as f32 * 100f32.powf(-((i % half) as f32) / half as f32);
    let table = |f: fn(f32) -> f32| {
        let values = (0..n_positions * half).map(|i| f(angle(i))).collect();
        Input::Real { rows: n_positions, cols: half, format: Format::F32, values, differentiable: false }
    };
    let positions = (0..tokens).map(|t| ((n_positions - 1 - t * 7 % n_positions) % n_positions) as u32).collect();
    [table(f32::cos), table(f32::sin), Input::Words(positions)]
}

fn case(name: &str, tokens: usize, heads: usize, head_dim: usize, spread: f32) -> Case {
    partial_case(name, tokens, heads, [head_dim; 2], spread)
}

/// Heads of which the first `rotary` channels rotate.
fn partial_case(name: &str, tokens: usize, heads: usize, [rotary, head_dim]: [usize; 2], spread: f32) -> Case {
    let mut inputs = vec![real(1, tokens, heads * head_dim, spread)];
    inputs.extend(angle_inputs(tokens, rotary / 2));
    Case::new(format!("rope/rope: {name} {tokens}x{heads}x{head_dim}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        let tables = RopeTables { cos: b.tensors[1].clone(), sin: b.tensors[2].clone() };
        rope(rec, &b.tensors[0], &tables, &b.words[0], head_dim).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The kernel of [`rope_kv`] in the opposite direction. No op uses it, but the shader supports it.
fn kv_back_case() -> Case {
    let mut inputs = vec![real(1, 5, 12, 1.0).frozen(), real(2, 5, 12, 1.0).frozen()];
    inputs.extend(angle_inputs(5, 2));
    Case::new("rope/rope_kv: the way back", inputs, Tolerance::ROUNDING, move |rec, b| {
        let [k, v, cos, sin] = std::array::from_fn(|i| b.tensors[i].clone());
        let turned = Turned::new(&k, &RopeTables { cos, sin }, &b.words[0], 4);
        let out = Tensor::transient(rec, "rope_kv", 5, 24);
        let RopeTables { cos, sin } = &turned.tables;
        let spans = [k.span(), v.span(), cos.span(), sin.span(), &turned.positions, out.span()];
        rec.dispatch(&ROPE_KV, &[], turned.back(), &spans, turned.groups());
        Ok((vec![out], None))
    })
}

fn kv_case(name: &str, tokens: usize, heads: usize, head_dim: usize, spread: f32) -> Case {
    partial_kv_case(name, tokens, heads, [head_dim; 2], spread)
}

/// Keys of which the first `rotary` channels rotate.
fn partial_kv_case(name: &str, tokens: usize, heads: usize, [rotary, head_dim]: [usize; 2], spread: f32) -> Case {
    let mut inputs = vec![real(1, tokens, heads * head_dim, spread), real(2, tokens, heads * head_dim, spread)];
    inputs.extend(angle_inputs(tokens, rotary / 2));
    let name = format!("rope/rope_kv: {name} {tokens}x{heads}x{head_dim}");
    Case::new(name, inputs, Tolerance::ROUNDING, move |rec, b| {
        let tables = RopeTables { cos: b.tensors[2].clone(), sin: b.tensors[3].clone() };
        let applied = rope_kv(rec, &b.tensors[0], &b.tensors[1], &tables, &b.words[0], head_dim);
        applied.map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 5, 3, 6, 1.0),
        case("one token", 1, 1, 64, 1.0),
        case("smallest head", 7, 1, 2, 1.0),
        case("large values", 9, 2, 16, 1e4),
        case("beyond 16 bits", 117, 9, 64, 1.0),
        case("whole workgroups", 6, 2, 64, 1.0),
        partial_case("some channels rotate", 7, 3, [6, 16], 1.0),
        partial_case("one pair rotates", 6, 2, [2, 64], 1.0),
        partial_case("some channels rotate, beyond 16 bits", 117, 9, [48, 64], 1.0),
        case("bench", 1024, 16, 128, 1.0).bench(),
        kv_case("odd", 5, 3, 6, 1.0),
        kv_case("one token", 1, 1, 64, 1.0),
        kv_case("smallest head", 7, 2, 2, 1.0),
        kv_case("large values", 9, 2, 16, 1e4),
        kv_case("whole workgroups", 6, 2, 64, 1.0),
        kv_case("beyond 16 bits", 117, 9, 64, 1.0),
        partial_kv_case("some channels rotate", 7, 3, [6, 16], 1.0),
        partial_kv_case("one pair rotates", 6, 2, [2, 64], 1.0),
        partial_kv_case("some channels rotate, beyond 16 bits", 117, 9, [48, 64], 1.0),
        kv_back_case(),
        kv_case("bench", 1024, 8, 128, 1.0).bench(),
    ]
}
