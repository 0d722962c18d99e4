//! Column sums in two stages of fixed order: over blocks of rows, then over the blocks.
//!
//! It uses no atomics, so two runs agree bit for bit.

use super::case::{Case, Input, Tolerance, real};
use super::rows::for_rows;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, groups_for};
use crate::tensor::Tensor;
use crate::{params, wgsl};

/// Workgroup size of the shader.
const GROUP: usize = 64;
/// Minimum rows of a block: with fewer, the second stage costs more than the first saves.
const MIN_BLOCK: usize = 16;

params! {
    /// The shape of the input and of the blocks; also used by `norm/rms_norm_backward_dw`.
    pub struct Params {
        /// Rows of the input.
        rows: u32,
        /// Columns.
        cols: u32,
        /// Rows per block.
        block: u32,
    }
}

static COLUMN_SUM: KernelDef = KernelDef {
    label: "reduce/column_sum",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("reduce/column_sum")],
    bindings: &[
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::write("out", Kind::Real, "[rows / block, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.len("x"))),
    reference_f32: column_sum_reference,
    reference_f64: column_sum_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&COLUMN_SUM, vec![])]
}

fn column_sum_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, out] = args.buffers();
    let (x, out) = (x.real(), out.real_mut());
    let (rows, cols, block) = (p.rows as usize, p.cols as usize, p.block as usize);
    let n_blocks = rows.div_ceil(block);
    for_rows(rows * cols, &mut out[..n_blocks * cols], cols, |b, sums| {
        sums.fill(T::ZERO);
        let end = (b * block + block).min(rows);
        for row in x[b * block * cols..end * cols].chunks_exact(cols) {
            sums.iter_mut().zip(row).for_each(|(s, &v)| *s += v);
        }
    });
}

/// Rows per block such that both stages sum about equally many terms in sequence.
pub fn block_rows(rows: usize) -> usize {
    rows.isqrt().max(MIN_BLOCK)
}

fn sum_blocks(rec: &mut Recording, x: &Tensor, block: usize) -> Tensor {
    let n_blocks = x.rows.div_ceil(block);
    let out = Tensor::transient(rec, "column sum", n_blocks, x.cols);
    let params = Params { rows: x.rows as u32, cols: x.cols as u32, block: block as u32 };
    rec.dispatch(&COLUMN_SUM, &[], params, &[x.span(), out.span()], groups_for(out.len(), GROUP));
    out
}

/// Appends the second stage: the sum of all rows of `partials` [blocks, cols] → [1, cols].
pub fn sum_partials(rec: &mut Recording, partials: &Tensor) -> Tensor {
    if partials.rows == 1 { partials.clone() } else { sum_blocks(rec, partials, partials.rows) }
}

/// Appends the sum of each column: x [rows, cols] → [1, cols].
pub fn column_sum(rec: &mut Recording, x: &Tensor) -> Tensor {
    let partials = sum_blocks(rec, x, block_rows(x.rows));
    sum_partials(rec, &partials)
}

fn case(name: &str, rows: usize, cols: usize, spread: f32) -> Case {
    let inputs: Vec<Input> = vec![real(1, rows, cols, spread).frozen()];
    Case::new(format!("reduce/column_sum: {name} {rows}x{cols}"), inputs, Tolerance::SUMS, |rec, b| {
        Ok((vec![column_sum(rec, &b.tensors[0])], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("odd", 37, 19, 1.0),
        case("one row", 1, 65, 1.0),
        case("short rows", 1001, 3, 1.0),
        case("whole workgroups", 3, 384, 1.0),
        case("long blocks", 9001, 9, 1.0),
        case("large values", 67, 64, 1e6),
        case("bench", 8192, 1024, 1.0).bench(),
    ]
}
