//! The kernels of the matrix products: for each orientation and storage format a portable tile, and alternatives that are faster on
//! some devices or for some sizes.
//!
//! An orientation is the WGSL part that says where the operands lie, a format the part that reads the weight, and a way to
//! cut the product into tiles the file with the entry point. So a new format or a new way is one part and a few lines here.
//! Quantised weights have no broadcasting kernels, which are for software adapters, and no textures.

use super::matmul::Params;
use super::matmul_reference::{nn, nt, tn};
use super::parts::{
    REDUCE, WEIGHT_BF16, WEIGHT_F16, WEIGHT_F32, WEIGHT_Q4_0, WEIGHT_Q4_1, WEIGHT_Q4K, WEIGHT_Q6K, WEIGHT_Q8_0,
};
use crate::error::Result;
use crate::gpu::{
    Alternative, Binding, Dispatch, DispatchView, Expected, Feature, KernelDef, Kind, Params as _, Shape, Source, Work,
    texels,
};
use crate::tensor::Format;
use crate::wgsl;

/// The largest m for which lanes rather share the sum than have elements of their own.
const FEW_ROWS: u32 = 4;

fn row_shape(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    (p.m <= FEW_ROWS).then(|| (vec![], [p.n.div_ceil(8), p.m, 1]))
}

/// A grid of tiles of so many columns and rows, for products of more than a few rows.
fn tiles(d: &Dispatch, cols: u32, rows: u32) -> Option<Shape> {
    let p: Params = d.params_as();
    (p.m > FEW_ROWS).then(|| (vec![], [p.n.div_ceil(cols), p.m.div_ceil(rows), 1]))
}

fn shared_shape(d: &Dispatch) -> Option<Shape> {
    tiles(d, 64, 64)
}

fn broadcast_shape(d: &Dispatch) -> Option<Shape> {
    tiles(d, 32, 32)
}

/// Where copying the operands into textures pays: half as often as an element of them is used on average.
const LEAST_USES: u64 = 8;

/// Where rows of the operands are whole texels (their fast `axes` are as long as those) and used often enough.
fn texels_shape(d: &Dispatch, p: &Params, axes: &[u32]) -> Option<Shape> {
    let in_texels = [p.a_offset, p.a_stride, p.w_offset].iter().chain(axes).all(|n| n.is_multiple_of(4));
    let fits = d.spans[..2].iter().all(|s| s.len <= texels::MAX_ELEMENTS);
    let uses = u64::from(p.m) * u64::from(p.n) / u64::from(p.m + p.n);
    tiles(d, 32, 64).filter(|_| in_texels && fits && p.k >= 4 && uses >= LEAST_USES)
}

/// Of a wᵀ: k is the fast axis of both.
fn texels_nt(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    texels_shape(d, &p, &[p.k])
}

/// Of a w: k is the fast axis of a, n that of w.
fn texels_nn(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    texels_shape(d, &p, &[p.k, p.n])
}

/// Of aᵀ w: n is the fast axis of w.
fn texels_tn(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    texels_shape(d, &p, &[p.n])
}

const A: Binding = Binding::read("a", Kind::Real, "[m or k, a_stride]");

const fn w(kind: Kind) -> Binding {
    Binding::read("w", kind, "[n, k] or [k, n]")
}

/// A product and a sum for each element of the sum over k.
fn product_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let [m, n, k] = ["m", "n", "k"].map(|name| d.param(name));
    // A weight of fewer bits is bound in fewer words.
    let elements = m * k + (n * k).min(d.len("w")) + m * n * (1 + d.param("beta"));
    Ok(Work { flops: 2 * m * n * k, bytes: 4 * elements })
}

/// One kernel: a way, an orientation, a storage format of w.
macro_rules! kernel {
    ($name:ident, $label:literal, $suffix:literal, [$($part:expr),*], [$a:expr, $w:expr], $reference:ident, $format:expr, $alternatives:expr) => {
        static $name: KernelDef = KernelDef {
            label: $label,
            suffix: $suffix,
            parts: &[wgsl!("matmul/params"), $($part),*],
            bindings: &[$a, $w, Binding::read_write("out", Kind::Real, "[m, c_stride]")],
            params: Params::FIELDS,
            constants: &[],
            alternatives: $alternatives,
            work: product_work,
            reference_f32: |c| $reference(c, $format),
            reference_f64: |c| $reference(c, $format),
        };
    };
}

const NT: Source = wgsl!("matmul/nt");
const NN: Source = wgsl!("matmul/nn");
const TN: Source = wgsl!("matmul/tn");
const TEXELS_F32: Source = wgsl!("matmul/texels_f32");
const TEXELS_BF16: Source = wgsl!("matmul/texels_bf16");
const TEXELS_F16: Source = wgsl!("matmul/texels_f16");
const SUMS: Source = wgsl!("matmul/sums");
const OPERAND: Source = wgsl!("matmul/operand");
const TILE: Source = wgsl!("matmul/tile");
const SHARED_TILE: Source = wgsl!("matmul/shared_tile");
const BROADCAST: Source = wgsl!("matmul/broadcast").needing(Feature::WideSubgroups);
const BROADCAST_TEXELS: Source = wgsl!("matmul/broadcast_texels").needing(Feature::WideSubgroups);
const COOPERATIVE: Source = wgsl!("matmul/cooperative").needing(Feature::CooperativeMatrix);
const ROW: Source = wgsl!("matmul/row");

/// The kernels of one orientation and format: the portable tile and its alternatives, each with its name.
macro_rules! kernels {
    ($suffix:literal, $way:expr, $weight:expr, $kind:expr, $reference:ident, $format:expr;
        tile $tile:ident, shared $shared:ident, cooperative $cooperative:ident $(, broadcast $broadcast:ident)?
        $(, texels $texels:ident $texels_shape:ident $texel_part:ident)? $(, row $row:ident)?) => {
        kernel!($tile, "matmul/tile", $suffix, [$way, TILE, OPERAND, $weight], [A, w($kind)], $reference, $format, &[
            $(Alternative { kernel: &$row, expected: Expected::Everywhere, shape: row_shape },)?
            Alternative { kernel: &$shared, expected: Expected::OnHardware, shape: shared_shape },
            Alternative { kernel: &$cooperative, expected: Expected::Nowhere, shape: shared_shape },
            $(Alternative { kernel: &$texels, expected: Expected::OnSoftware, shape: $texels_shape },)?
            $(Alternative { kernel: &$broadcast, expected: Expected::OnSoftware, shape: broadcast_shape },)?
        ]);
        kernel!($shared, "matmul/shared_tile", $suffix, [$way, SHARED_TILE, OPERAND, $weight], [A, w($kind)], $reference, $format, &[]);
        kernel!($cooperative, "matmul/cooperative", $suffix, [$way, COOPERATIVE, OPERAND, $weight], [A, w($kind)], $reference, $format, &[]);
        $(kernel!($broadcast, "matmul/broadcast", $suffix, [$way, SUMS, BROADCAST, OPERAND, $weight], [A, w($kind)], $reference, $format, &[]);)?
        $(kernel!($texels, "matmul/broadcast_texels", $suffix, [$way, SUMS, BROADCAST_TEXELS, $texel_part], [A.as_texels(), w($kind).as_texels()], $reference, $format, &[]);)?
        $(kernel!($row, "matmul/row", $suffix, [$way, REDUCE, ROW, OPERAND, $weight], [A, w($kind)], $reference, $format, &[]);)?
    };
}

kernels!("nt f32", NT, WEIGHT_F32, Kind::Real, nt, Format::F32; tile NT_F32, shared NT_F32_SHARED, cooperative NT_F32_COOPERATIVE, broadcast NT_F32_BROADCAST, texels NT_F32_TEXELS texels_nt TEXELS_F32, row NT_F32_ROW);
kernels!("nt bf16", NT, WEIGHT_BF16, Kind::Packed, nt, Format::Bf16; tile NT_BF16, shared NT_BF16_SHARED, cooperative NT_BF16_COOPERATIVE, broadcast NT_BF16_BROADCAST, texels NT_BF16_TEXELS texels_nt TEXELS_BF16, row NT_BF16_ROW);
kernels!("nt f16", NT, WEIGHT_F16, Kind::Packed, nt, Format::F16; tile NT_F16, shared NT_F16_SHARED, cooperative NT_F16_COOPERATIVE, broadcast NT_F16_BROADCAST, texels NT_F16_TEXELS texels_nt TEXELS_F16, row NT_F16_ROW);
kernels!("nt q8_0", NT, WEIGHT_Q8_0, Kind::Packed, nt, Format::Q8_0; tile NT_Q8_0, shared NT_Q8_0_SHARED, cooperative NT_Q8_0_COOPERATIVE, row NT_Q8_0_ROW);
kernels!("nt q4_0", NT, WEIGHT_Q4_0, Kind::Packed, nt, Format::Q4_0; tile NT_Q4_0, shared NT_Q4_0_SHARED, cooperative NT_Q4_0_COOPERATIVE, row NT_Q4_0_ROW);
kernels!("nt q4_1", NT, WEIGHT_Q4_1, Kind::Packed, nt, Format::Q4_1; tile NT_Q4_1, shared NT_Q4_1_SHARED, cooperative NT_Q4_1_COOPERATIVE, row NT_Q4_1_ROW);
kernels!("nt q4k", NT, WEIGHT_Q4K, Kind::Packed, nt, Format::Q4K; tile NT_Q4K, shared NT_Q4K_SHARED, cooperative NT_Q4K_COOPERATIVE, row NT_Q4K_ROW);
kernels!("nt q6k", NT, WEIGHT_Q6K, Kind::Packed, nt, Format::Q6K; tile NT_Q6K, shared NT_Q6K_SHARED, cooperative NT_Q6K_COOPERATIVE, row NT_Q6K_ROW);
kernels!("nn f32", NN, WEIGHT_F32, Kind::Real, nn, Format::F32; tile NN_F32, shared NN_F32_SHARED, cooperative NN_F32_COOPERATIVE, broadcast NN_F32_BROADCAST, texels NN_F32_TEXELS texels_nn TEXELS_F32);
kernels!("nn bf16", NN, WEIGHT_BF16, Kind::Packed, nn, Format::Bf16; tile NN_BF16, shared NN_BF16_SHARED, cooperative NN_BF16_COOPERATIVE, broadcast NN_BF16_BROADCAST, texels NN_BF16_TEXELS texels_nn TEXELS_BF16);
kernels!("nn f16", NN, WEIGHT_F16, Kind::Packed, nn, Format::F16; tile NN_F16, shared NN_F16_SHARED, cooperative NN_F16_COOPERATIVE, broadcast NN_F16_BROADCAST, texels NN_F16_TEXELS texels_nn TEXELS_F16);
kernels!("nn q8_0", NN, WEIGHT_Q8_0, Kind::Packed, nn, Format::Q8_0; tile NN_Q8_0, shared NN_Q8_0_SHARED, cooperative NN_Q8_0_COOPERATIVE);
kernels!("nn q4_0", NN, WEIGHT_Q4_0, Kind::Packed, nn, Format::Q4_0; tile NN_Q4_0, shared NN_Q4_0_SHARED, cooperative NN_Q4_0_COOPERATIVE);
kernels!("nn q4_1", NN, WEIGHT_Q4_1, Kind::Packed, nn, Format::Q4_1; tile NN_Q4_1, shared NN_Q4_1_SHARED, cooperative NN_Q4_1_COOPERATIVE);
kernels!("nn q4k", NN, WEIGHT_Q4K, Kind::Packed, nn, Format::Q4K; tile NN_Q4K, shared NN_Q4K_SHARED, cooperative NN_Q4K_COOPERATIVE);
kernels!("nn q6k", NN, WEIGHT_Q6K, Kind::Packed, nn, Format::Q6K; tile NN_Q6K, shared NN_Q6K_SHARED, cooperative NN_Q6K_COOPERATIVE);
kernels!("tn f32", TN, WEIGHT_F32, Kind::Real, tn, Format::F32; tile TN_F32, shared TN_F32_SHARED, cooperative TN_F32_COOPERATIVE, broadcast TN_F32_BROADCAST, texels TN_F32_TEXELS texels_tn TEXELS_F32);

/// a wᵀ.
pub(super) fn nt_kernel(format: Format) -> &'static KernelDef {
    match format {
        Format::F32 => &NT_F32,
        Format::Bf16 => &NT_BF16,
        Format::F16 => &NT_F16,
        Format::Q8_0 => &NT_Q8_0,
        Format::Q4_0 => &NT_Q4_0,
        Format::Q4_1 => &NT_Q4_1,
        Format::Q4K => &NT_Q4K,
        Format::Q6K => &NT_Q6K,
    }
}

/// a w.
pub(super) fn nn_kernel(format: Format) -> &'static KernelDef {
    match format {
        Format::F32 => &NN_F32,
        Format::Bf16 => &NN_BF16,
        Format::F16 => &NN_F16,
        Format::Q8_0 => &NN_Q8_0,
        Format::Q4_0 => &NN_Q4_0,
        Format::Q4_1 => &NN_Q4_1,
        Format::Q4K => &NN_Q4K,
        Format::Q6K => &NN_Q6K,
    }
}

/// aᵀ w, both f32.
pub(super) fn tn_kernel() -> &'static KernelDef {
    &TN_F32
}

/// The kernels of the family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let tiles = Format::all().flat_map(|f| [nt_kernel(f), nn_kernel(f)]).chain([tn_kernel()]);
    tiles.flat_map(KernelDef::with_alternatives).map(|k| (k, vec![])).collect()
}
