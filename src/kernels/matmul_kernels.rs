//! The kernels of the matrix products: a portable tile and alternatives.
//!
//! Each orientation and storage format has a portable tile, and alternatives that are faster on
//! some devices or for some sizes.
//!
//! A WGSL part per orientation locates the operands, a part per format reads the weight, and a part
//! per tiling holds the entry point. So a new tiling is one part and a few lines here, and a new
//! format needs no change here ([`weight_formats`](crate::formats::weight_formats)). Quantised
//! weights have no broadcast kernels, which are for software adapters, and no texture kernels.

use super::matmul_params::Params;
use super::matmul_reference::{nn, nt, tn};
use super::parts::{HALF, REDUCE, for_format, weight_part};
use crate::error::Result;
use crate::gpu::{
    Alternative, Binding, Dispatch, DispatchView, Expected, Feature, KernelDef, Kind, Params as _, Shape, Source, Work,
    texels,
};
use crate::tensor::{Format, kind_of};
use crate::wgsl;

/// The largest m for which lanes share a sum instead of computing separate elements.
const FEW_ROWS: u32 = 4;

fn row_shape(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    (p.m <= FEW_ROWS).then(|| (vec![], [p.n.div_ceil(8), p.m, 1]))
}

/// A grid of tiles with this many columns and rows, for products of more than a few rows.
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

/// Minimum uses for which copying the operands into textures pays: half the average number of uses
/// of an element.
const LEAST_USES: u64 = 8;

/// The grid of the texture kernels, if the operands' rows are whole texels (`axes` are their
/// lengths) and are used often enough.
fn texels_shape(d: &Dispatch, p: &Params, axes: &[u32]) -> Option<Shape> {
    let in_texels = [p.a_offset, p.a_stride, p.w_offset].iter().chain(axes).all(|n| n.is_multiple_of(4));
    let fits = d.spans[..2].iter().all(|s| s.len <= texels::MAX_ELEMENTS);
    let uses = u64::from(p.m) * u64::from(p.n) / u64::from(p.m + p.n);
    tiles(d, 32, 64).filter(|_| in_texels && fits && p.k >= 4 && uses >= LEAST_USES)
}

/// For a wᵀ: k is the contiguous axis of both.
fn texels_nt(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    texels_shape(d, &p, &[p.k])
}

/// For a w: k is the contiguous axis of a, n that of w.
fn texels_nn(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    texels_shape(d, &p, &[p.k, p.n])
}

/// For aᵀ w: n is the contiguous axis of w.
fn texels_tn(d: &Dispatch) -> Option<Shape> {
    let p: Params = d.params_as();
    texels_shape(d, &p, &[p.n])
}

const A: Binding = Binding::read("a", Kind::Real, "[m or k, a_stride]");

const fn w(format: Format) -> Binding {
    Binding::read("w", kind_of(format), "[n, k] or [k, n]")
}

/// A product and a sum for each term of the sum over k.
fn product_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let [m, n, k] = ["m", "n", "k"].map(|name| d.param(name));
    // A weight with fewer bits is bound in fewer words.
    let elements = m * k + (n * k).min(d.len("w")) + m * n * (1 + d.param("beta"));
    Ok(Work { flops: 2 * m * n * k, bytes: 4 * elements })
}

/// One kernel: a tiling, an orientation and a storage format of w.
macro_rules! kernel {
    ($name:ident, $label:literal, $suffix:expr, [$($part:expr),*], [$a:expr, $w:expr], $reference:ident, $format:expr, $alternatives:expr) => {
        static $name: KernelDef = KernelDef {
            label: $label,
            suffix: $suffix,
            parts: &[wgsl!("matmul/params"), HALF, $($part),*],
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
const ROW: Source = wgsl!("matmul/row");

/// The portable tile of one orientation and format, with its alternatives. Optional alternatives
/// are given with names for their statics.
macro_rules! tile {
    ($reference:ident $way:ident, $format:ident $name:ident
        $(, row $row:ident)? $(, texels $texels:ident $shape:ident $part:ident, broadcast $broadcast:ident)?) => {{
        const SUFFIX: &str = concat!(stringify!($reference), " ", stringify!($name));
        const FORMAT: Format = Format::$format;
        const WEIGHT: Source = weight_part(FORMAT);
        const W: Binding = w(FORMAT);
        kernel!(PORTABLE, "matmul/tile", SUFFIX, [$way, TILE, OPERAND, WEIGHT], [A, W], $reference, FORMAT, &[
            $(Alternative { kernel: &$row, expected: Expected::Everywhere, shape: row_shape },)?
            Alternative { kernel: &SHARED, expected: Expected::OnHardware, shape: shared_shape },
            $(Alternative { kernel: &$texels, expected: Expected::OnSoftware, shape: $shape },
            Alternative { kernel: &$broadcast, expected: Expected::OnSoftware, shape: broadcast_shape },)?
        ]);
        kernel!(SHARED, "matmul/shared_tile", SUFFIX, [$way, SHARED_TILE, OPERAND, WEIGHT], [A, W], $reference, FORMAT, &[]);
        $(kernel!($row, "matmul/row", SUFFIX, [$way, REDUCE, ROW, OPERAND, WEIGHT], [A, W], $reference, FORMAT, &[]);)?
        $(
            kernel!($texels, "matmul/broadcast_texels", SUFFIX, [$way, SUMS, BROADCAST_TEXELS, $part], [A.as_texels(), W.as_texels()], $reference, FORMAT, &[]);
            kernel!($broadcast, "matmul/broadcast", SUFFIX, [$way, SUMS, BROADCAST, OPERAND, WEIGHT], [A, W], $reference, FORMAT, &[]);
        )?
        &PORTABLE
    }};
}

/// The kernels of a wᵀ in one format; plain formats have more alternatives than quantised ones.
macro_rules! nt_tile {
    (F32, $name:ident) => { tile!(nt NT, F32 $name, row BY_ROW, texels TEXELS texels_nt TEXELS_F32, broadcast BROADCASTS) };
    (Bf16, $name:ident) => { tile!(nt NT, Bf16 $name, row BY_ROW, texels TEXELS texels_nt TEXELS_BF16, broadcast BROADCASTS) };
    (F16, $name:ident) => { tile!(nt NT, F16 $name, row BY_ROW, texels TEXELS texels_nt TEXELS_F16, broadcast BROADCASTS) };
    ($quantised:ident, $name:ident) => { tile!(nt NT, $quantised $name, row BY_ROW) };
}

/// The kernels of a w in one format, which have no alternative for few rows.
macro_rules! nn_tile {
    (F32, $name:ident) => { tile!(nn NN, F32 $name, texels TEXELS texels_nn TEXELS_F32, broadcast BROADCASTS) };
    (Bf16, $name:ident) => { tile!(nn NN, Bf16 $name, texels TEXELS texels_nn TEXELS_BF16, broadcast BROADCASTS) };
    (F16, $name:ident) => { tile!(nn NN, F16 $name, texels TEXELS texels_nn TEXELS_F16, broadcast BROADCASTS) };
    ($quantised:ident, $name:ident) => { tile!(nn NN, $quantised $name) };
}

/// a wᵀ.
pub(super) fn nt_kernel(format: Format) -> &'static KernelDef {
    for_format!(format, nt_tile)
}

/// a w.
pub(super) fn nn_kernel(format: Format) -> &'static KernelDef {
    for_format!(format, nn_tile)
}

/// aᵀ w, both f32.
pub(super) fn tn_kernel() -> &'static KernelDef {
    tile!(tn TN, F32 f32, texels TEXELS texels_tn TEXELS_F32, broadcast BROADCASTS)
}

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let tiles = Format::all().flat_map(|f| [nt_kernel(f), nn_kernel(f)]).chain([tn_kernel()]);
    tiles.flat_map(KernelDef::with_alternatives).map(|k| (k, vec![])).collect()
}
