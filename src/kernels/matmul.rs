//! Matrix products in the three layouts that a linear layer needs, with f32, bf16 and f16 weights, f32 accumulation.
//!
//! For a weight w [out, in] and input x [tokens, in]: forward `nt` y = x wᵀ, input gradient `nn` dx = dy w, weight gradient
//! `tn` dw = dyᵀ x. A weight cut into row slices is multiplied slice by slice into column ranges of y.

use std::borrow::Cow;

use rayon::prelude::*;

use super::case::{Case, Input, Tolerance, frozen, real};
use super::op::{Applied, Op, when};
use super::parts::{REDUCE, WEIGHT_BF16, WEIGHT_F16, WEIGHT_F32};
use super::product::{View, product as strided_product};
use crate::error::Result;
use crate::gpu::{Binding, Call, Dispatch, Expected, Feature, KernelDef, Kind, Params as _, Real, Recording, Rival, Source, Span};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

params! {
    /// out[i, j] = alpha · Σ_k A(i, k) B(k, j) + beta · out[i, j].
    pub struct Params {
        /// Rows of the output.
        m: u32,
        /// Columns of the product.
        n: u32,
        /// Length of the sum.
        k: u32,
        /// Elements between rows of a.
        a_stride: u32,
        /// First element of a: of its first row, in its first column.
        a_offset: u32,
        /// First element of w.
        w_offset: u32,
        /// Elements between rows of the output.
        c_stride: u32,
        /// First element of the output.
        c_offset: u32,
        /// Factor of the product.
        alpha: f32,
        /// Factor of the old output; where it is 0 the output is not read.
        beta: f32,
    }
}

/// A kernel of the family: a way to cut the product into tiles, an orientation, and a storage format of w.
macro_rules! kernel {
    ($name:ident, $label:literal, $variant:literal, [$($part:expr),*], $weight:expr, $kind:expr, $twin:ident, $format:expr, $rivals:expr) => {
        static $name: KernelDef = KernelDef {
            label: $label,
            variant: $variant,
            parts: &[wgsl!("matmul/params"), $($part,)* $weight],
            bindings: &[
                Binding::read("a", Kind::Real, "[m or k, a_stride]"),
                Binding::read("w", $kind, "[n, k] or [k, n]"),
                Binding::read_write("out", Kind::Real, "[m, c_stride]"),
            ],
            params: Params::FIELDS,
            constants: &[],
            rivals: $rivals,
            twin_f32: |c| $twin(c, $format),
            twin_f64: |c| $twin(c, $format),
        };
    };
}

/// The kernels of one orientation and format: the portable tile, and its rivals.
macro_rules! kernels {
    ($tile:ident, $shared:ident, $broadcast:ident, $variant:literal, $way:expr, $weight:expr, $kind:expr, $twin:ident, $format:expr $(, $row:ident)?) => {
        kernel!($tile, "matmul/tile", $variant, [$way, wgsl!("matmul/tile")], $weight, $kind, $twin, $format, &[
            $(Rival { kernel: &$row, expected: Expected::Everywhere, shape: row_shape },)?
            Rival { kernel: &$shared, expected: Expected::OnHardware, shape: shared_shape },
            Rival { kernel: &$broadcast, expected: Expected::OnSoftware, shape: broadcast_shape },
        ]);
        kernel!($shared, "matmul/shared_tile", $variant, [$way, wgsl!("matmul/shared_tile")], $weight, $kind, $twin, $format, &[]);
        kernel!(
            $broadcast, "matmul/broadcast", $variant, [$way, wgsl!("matmul/broadcast").needing(Feature::Subgroups)],
            $weight, $kind, $twin, $format, &[]
        );
        $(kernel!($row, "matmul/row", $variant, [$way, REDUCE, wgsl!("matmul/row")], $weight, $kind, $twin, $format, &[]);)?
    };
}

const NT: Source = wgsl!("matmul/nt");
const NN: Source = wgsl!("matmul/nn");
const TN: Source = wgsl!("matmul/tn");
kernels!(NT_F32, NT_F32_SHARED, NT_F32_BROADCAST, "nt f32", NT, WEIGHT_F32, Kind::Real, nt, Format::F32, NT_F32_ROW);
kernels!(NT_BF16, NT_BF16_SHARED, NT_BF16_BROADCAST, "nt bf16", NT, WEIGHT_BF16, Kind::Packed, nt, Format::Bf16, NT_BF16_ROW);
kernels!(NT_F16, NT_F16_SHARED, NT_F16_BROADCAST, "nt f16", NT, WEIGHT_F16, Kind::Packed, nt, Format::F16, NT_F16_ROW);
kernels!(NN_F32, NN_F32_SHARED, NN_F32_BROADCAST, "nn f32", NN, WEIGHT_F32, Kind::Real, nn, Format::F32);
kernels!(NN_BF16, NN_BF16_SHARED, NN_BF16_BROADCAST, "nn bf16", NN, WEIGHT_BF16, Kind::Packed, nn, Format::Bf16);
kernels!(NN_F16, NN_F16_SHARED, NN_F16_BROADCAST, "nn f16", NN, WEIGHT_F16, Kind::Packed, nn, Format::F16);
kernels!(TN_F32, TN_F32_SHARED, TN_F32_BROADCAST, "tn f32", TN, WEIGHT_F32, Kind::Real, tn, Format::F32);

/// The largest m for which the lanes rather share the sum.
const FEW_ROWS: u32 = 4;

fn row_shape(d: &Dispatch) -> Option<(Vec<u32>, [u32; 3])> {
    let p: Params = d.params_as();
    (p.m <= FEW_ROWS).then(|| (vec![], [p.n.div_ceil(8), p.m, 1]))
}

fn shared_shape(d: &Dispatch) -> Option<(Vec<u32>, [u32; 3])> {
    let p: Params = d.params_as();
    (p.m > FEW_ROWS).then(|| (vec![], [p.n.div_ceil(64), p.m.div_ceil(64), 1]))
}

fn broadcast_shape(d: &Dispatch) -> Option<(Vec<u32>, [u32; 3])> {
    let p: Params = d.params_as();
    (p.m > FEW_ROWS).then(|| (vec![], [p.n.div_ceil(32), p.m.div_ceil(32), 1]))
}

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let tiles = [&NT_F32, &NT_BF16, &NT_F16, &NN_F32, &NN_BF16, &NN_F16, &TN_F32];
    tiles.into_iter().flat_map(KernelDef::with_rivals).map(|k| (k, vec![])).collect()
}

/// The elements of a weight binding as reals.
pub fn weight_values<'a, T: Real>(arg: crate::gpu::Arg<'a, T>, format: Format) -> Cow<'a, [T]> {
    let halves = |words: &[u32], widen: fn(u16) -> f32| -> Vec<T> {
        words.iter().flat_map(|w| [T::of(widen(*w as u16)), T::of(widen((w >> 16) as u16))]).collect()
    };
    match format {
        Format::F32 => Cow::Borrowed(arg.real()),
        Format::Bf16 => Cow::Owned(halves(arg.u32(), |b| half::bf16::from_bits(b).to_f32())),
        Format::F16 => Cow::Owned(halves(arg.u32(), |b| half::f16::from_bits(b).to_f32())),
    }
}

/// Row and column stride of an operand.
type Strides = (usize, usize);

fn product<T: Real>(call: Call<'_, T>, format: Format, a_is_transposed: bool, b_strides: fn(&Params) -> Strides) {
    let p: Params = call.params();
    let [a, w, out] = call.args();
    let (a, w, out) = (&a.real()[p.a_offset as usize..], weight_values(w, format), out.real_mut());
    let (w, out) = (&w[p.w_offset as usize..], &mut out[p.c_offset as usize..]);
    let (m, n, k) = (p.m as usize, p.n as usize, p.k as usize);
    let (row, col) = b_strides(&p);
    let stride = p.a_stride as usize;
    let a = if a_is_transposed { View::columns(a, stride) } else { View::rows(a, stride) };
    let multiply = |out: &mut [T], w: &[T], n: usize, parallel: bool| {
        let b = View { data: w, row, col };
        strided_product([m, n, k], a, b, out, p.c_stride as usize, T::of(p.alpha), T::of(p.beta), parallel);
    };
    let is_small = m * n * k <= 1 << 16;
    if m == 1 && !is_small {
        // One token, decoding: the time is that of reading the weight, and the library would read it in one thread.
        let part = n.div_ceil(rayon::current_num_threads());
        let columns = out[..n].par_chunks_mut(part).enumerate();
        columns.for_each(|(i, out)| multiply(out, &w[i * part * col..], out.len(), false));
    } else {
        multiply(out, w, n, !is_small);
    }
}

fn nt<T: Real>(call: Call<'_, T>, format: Format) {
    product(call, format, false, |p| (1, p.k as usize));
}

fn nn<T: Real>(call: Call<'_, T>, format: Format) {
    product(call, format, false, |p| (p.n as usize, 1));
}

fn tn<T: Real>(call: Call<'_, T>, format: Format) {
    product(call, format, true, |p| (p.n as usize, 1));
}

/// Consecutive rows of an f32 tensor in one piece; they may start anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    tensor: &'a Tensor,
    first: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    /// The rows `first .. first + count` of `tensor`.
    pub fn new(tensor: &'a Tensor, first: usize, count: usize) -> Self {
        assert!(count > 0 && first + count <= tensor.rows, "rows {first}+{count} leave a tensor of {}", tensor.rows);
        Self { tensor, first, count }
    }

    fn offset(&self) -> u32 {
        (self.first * self.tensor.cols) as u32
    }
}

impl<'a> From<&'a Tensor> for Rows<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self { tensor, first: 0, count: tensor.rows }
    }
}

fn record(rec: &mut Recording, kernel: &'static KernelDef, params: Params, a: &Span, w: &Span, out: &Span) {
    let groups = [params.n.div_ceil(64), params.m.div_ceil(32), 1];
    rec.dispatch(kernel, &[], params, &[a, w, out], groups);
}

/// Appends out = alpha · x wᵀ + beta · out. x [tokens, in], w [out, in], out [tokens, out].
pub fn matmul_nt<'a>(
    rec: &mut Recording,
    x: impl Into<Rows<'a>>,
    w: &Tensor,
    out: impl Into<Rows<'a>>,
    alpha: f32,
    beta: f32,
) {
    let (x, out) = (x.into(), out.into());
    let (n_in, n_out) = (x.tensor.cols, out.tensor.cols);
    assert_eq!((n_in, w.rows, x.count), (w.cols, n_out, out.count), "shapes of x wᵀ");
    let kernel = match w.format {
        Format::F32 => &NT_F32,
        Format::Bf16 => &NT_BF16,
        Format::F16 => &NT_F16,
    };
    for piece in w.pieces() {
        let params = Params {
            m: x.count as u32,
            n: piece.rows as u32,
            k: w.cols as u32,
            a_stride: n_in as u32,
            a_offset: x.offset(),
            w_offset: 0,
            c_stride: n_out as u32,
            c_offset: out.offset() + piece.row as u32,
            alpha,
            beta,
        };
        record(rec, kernel, params, x.tensor.span(), &piece.span, out.tensor.span());
    }
}

/// Appends out = alpha · dy w + beta · out. dy [tokens, out], w [out, in], out [tokens, in].
pub fn matmul_nn<'a>(
    rec: &mut Recording,
    dy: impl Into<Rows<'a>>,
    w: &Tensor,
    out: impl Into<Rows<'a>>,
    alpha: f32,
    beta: f32,
) {
    let (dy, out) = (dy.into(), out.into());
    let (n_out, n_in) = (dy.tensor.cols, out.tensor.cols);
    assert_eq!((n_out, w.cols, dy.count), (w.rows, n_in, out.count), "shapes of dy w");
    let kernel = match w.format {
        Format::F32 => &NN_F32,
        Format::Bf16 => &NN_BF16,
        Format::F16 => &NN_F16,
    };
    for (i, piece) in w.pieces().iter().enumerate() {
        let params = Params {
            m: dy.count as u32,
            n: w.cols as u32,
            k: piece.rows as u32,
            a_stride: n_out as u32,
            a_offset: dy.offset() + piece.row as u32,
            w_offset: 0,
            c_stride: n_in as u32,
            c_offset: out.offset(),
            alpha,
            beta: if i == 0 { beta } else { 1.0 },
        };
        record(rec, kernel, params, dy.tensor.span(), &piece.span, out.tensor.span());
    }
}

/// Appends out = alpha · dyᵀ x + beta · out. dy [tokens, out], x [tokens, in], out [out, in] in any cuts.
pub fn matmul_tn<'a>(
    rec: &mut Recording,
    dy: impl Into<Rows<'a>>,
    x: impl Into<Rows<'a>>,
    out: &Tensor,
    alpha: f32,
    beta: f32,
) {
    let (dy, x) = (dy.into(), x.into());
    let (n_out, n_in) = (dy.tensor.cols, x.tensor.cols);
    assert_eq!((dy.count, n_out, n_in), (x.count, out.rows, out.cols), "shapes of dyᵀ x");
    for piece in out.pieces() {
        let params = Params {
            m: piece.rows as u32,
            n: n_in as u32,
            k: dy.count as u32,
            a_stride: n_out as u32,
            a_offset: dy.offset() + piece.row as u32,
            w_offset: x.offset(),
            c_stride: n_in as u32,
            c_offset: 0,
            alpha,
            beta,
        };
        record(rec, &TN_F32, params, dy.tensor.span(), x.tensor.span(), &piece.span);
    }
}

struct Linear {
    x: Tensor,
    w: Tensor,
    alpha: f32,
}

impl Op for Linear {
    fn label(&self) -> &'static str {
        "matmul/linear"
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dy = &grads[0];
        let dx = when(need[0], || {
            let dx = Tensor::transient(rec, "linear dx", self.x.rows, self.x.cols);
            matmul_nn(rec, dy, &self.w, &dx, self.alpha, 0.0);
            Ok(dx)
        })?;
        let dw = when(need[1], || {
            let dw = Tensor::transient_like(rec, "linear dw", &self.w);
            matmul_tn(rec, dy, &self.x, &dw, self.alpha, 0.0);
            Ok(dw)
        })?;
        Ok(vec![dx, dw])
    }
}

/// y = alpha · x wᵀ: x [tokens, in], w [out, in] → [tokens, out].
pub fn linear(rec: &mut Recording, x: &Tensor, w: &Tensor, alpha: f32) -> Result<Applied> {
    let y = Tensor::transient(rec, "linear", x.rows, w.rows);
    matmul_nt(rec, x, w, &y, alpha, 0.0);
    Ok((vec![y], Box::new(Linear { x: x.clone(), w: w.clone(), alpha })))
}

fn case(name: &str, tokens: usize, n_in: usize, n_out: usize, weight: Input) -> Case {
    let inputs = vec![real(1, tokens, n_in, 1.0), weight];
    Case::new(format!("matmul/linear: {name} {tokens}x{n_in}x{n_out}"), inputs, Tolerance::SUMS, |rec, b| {
        linear(rec, &b.tensors[0], &b.tensors[1], 0.5).map(|(outs, op)| (outs, Some(op)))
    })
}

/// A kernel alone on windows of its operands: every stride and offset differs from the sizes and from one another, and the
/// output held something before.
fn window_case(kernel: &'static KernelDef, format: Format, [m, n, k]: [usize; 3], beta: f32) -> Case {
    let (a_rows, a_cols) = if kernel.variant.starts_with("tn") { (k, m) } else { (m, k) };
    let (a_offset, w_offset, c_offset, a_stride, c_stride) = (5, 7, 11, a_cols + 3, n + 2);
    let buffer = |seed, len| frozen(seed, 1, len, 1.0, Format::F32);
    let inputs = vec![
        buffer(1, a_offset + a_rows * a_stride),
        frozen(2, 1, w_offset + n * k, 1.0, format),
        buffer(3, c_offset + m * c_stride),
    ];
    let name = format!("{}: window {m}x{n}x{k}, beta {beta}", kernel.name());
    Case::new(name, inputs, Tolerance::SUMS, move |rec, b| {
        let out = rec.transient("window", Kind::Real, b.tensors[2].len());
        rec.copy(b.tensors[2].span(), &out);
        let [m, n, k, a_stride, a_offset, w_offset, c_stride, c_offset] =
            [m, n, k, a_stride, a_offset, w_offset, c_stride, c_offset].map(|x| x as u32);
        let params = Params { m, n, k, a_stride, a_offset, w_offset, c_stride, c_offset, alpha: 0.7, beta };
        record(rec, kernel, params, b.tensors[0].span(), b.tensors[1].span(), &out);
        Ok((vec![], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let kernels = [
        (&NT_F32, Format::F32),
        (&NN_F32, Format::F32),
        (&TN_F32, Format::F32),
        (&NT_BF16, Format::Bf16),
        (&NN_F16, Format::F16),
    ];
    let sizes = [([6, 5, 3], 0.6), ([32, 64, 8], 0.0), ([33, 65, 9], -1.5), ([70, 131, 17], 0.6)];
    let windows = kernels.into_iter().flat_map(|(k, f)| sizes.map(|(size, beta)| window_case(k, f, size, beta)));
    windows.chain(linear_cases()).collect()
}

fn linear_cases() -> Vec<Case> {
    vec![
        case("odd sizes", 37, 19, 71, real(2, 71, 19, 1.0)),
        case("one row", 1, 64, 130, real(2, 130, 64, 1.0)),
        case("one long row", 1, 130, 1001, real(2, 1001, 130, 1.0)),
        case("one of all", 1, 1, 1, real(2, 1, 1, 1.0)),
        Case {
            tolerance: Tolerance { absolute: 0.0, ..Tolerance::SUMS },
            ..case("small values", 9, 17, 33, real(2, 33, 17, 1e-8))
        },
        case("a square", 40, 24, 40, real(2, 40, 24, 1.0)),
        case("long sums", 3, 3001, 5, real(2, 5, 3001, 1.0)),
        case("long sums back", 3, 5, 3001, real(2, 3001, 5, 1.0)),
        case("many tokens", 3001, 5, 3, real(2, 3, 5, 1.0)),
        case("beyond 16 bits", 300, 260, 270, real(2, 270, 260, 1.0)),
        case("bf16 weights beyond 16 bits", 2, 400, 402, frozen(2, 402, 400, 1.0, Format::Bf16)),
        case("f16 weights beyond 16 bits", 2, 400, 402, frozen(2, 402, 400, 1.0, Format::F16)),
        case("large values", 33, 40, 65, real(2, 65, 40, 1e4)),
        case("bf16 weights", 9, 21, 67, frozen(2, 67, 21, 1.0, Format::Bf16)),
        case("f16 weights", 9, 21, 67, frozen(2, 67, 21, 1.0, Format::F16)),
        case("bench", 512, 512, 512, real(2, 512, 512, 1.0)).bench(),
        case("bench, bf16", 512, 512, 512, frozen(2, 512, 512, 1.0, Format::Bf16)).bench(),
        case("bench, one token, bf16", 1, 2048, 2048, frozen(2, 2048, 2048, 1.0, Format::Bf16)).bench(),
    ]
}
