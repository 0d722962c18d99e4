//! Kernels that copy or add consecutive rows between buffers, each at any row.
//!
//! Spans of buffers start at aligned elements, and rows of keys and values need not. Streamed
//! training moves pairs between chunks with these kernels.

use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Source, Span, Work, groups_for};
use crate::kernels::case::{Case, Tolerance, real};
use crate::{params, wgsl};

/// Invocations per workgroup.
const GROUP: usize = 64;

params! {
    /// Parameters of `lrsa/copy_rows` and `lrsa/add_rows`.
    pub struct MoveParams { n: u32, from_first: u32, to_first: u32 }
}

/// Parameters and buffers of both kernels.
const MOVE_ROWS: Source = wgsl!("lrsa/move_rows");

static COPY: KernelDef = KernelDef {
    label: "lrsa/copy_rows",
    suffix: "",
    parts: &[wgsl!("common/grid"), MOVE_ROWS, wgsl!("lrsa/copy_rows")],
    bindings: &[
        Binding::read("src", Kind::Real, "[rows, cols]"),
        Binding::read_write("dst", Kind::Real, "[rows, cols]"),
    ],
    params: MoveParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 0, bytes: 8 * d.param("n") }),
    reference_f32: copy_reference,
    reference_f64: copy_reference,
};

static ADD: KernelDef = KernelDef {
    label: "lrsa/add_rows",
    parts: &[wgsl!("common/grid"), MOVE_ROWS, wgsl!("lrsa/add_rows")],
    work: |d| Ok(Work { flops: d.param("n"), bytes: 12 * d.param("n") }),
    reference_f32: add_reference,
    reference_f64: add_reference,
    ..COPY
};

/// The kernels of this file.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&COPY, &ADD].map(|k| (k, vec![])).to_vec()
}

fn copy_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: MoveParams = args.params();
    let [from, to] = args.buffers();
    let n = p.n as usize;
    to.real_mut()[p.to_first as usize..][..n].copy_from_slice(&from.real()[p.from_first as usize..][..n]);
}

fn add_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: MoveParams = args.params();
    let [from, to] = args.buffers();
    let n = p.n as usize;
    let sums = to.real_mut()[p.to_first as usize..][..n].iter_mut();
    sums.zip(&from.real()[p.from_first as usize..][..n]).for_each(|(sum, &x)| *sum += x);
}

/// Rows of a buffer, from one of them on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowsAt<'a> {
    pub(super) span: &'a Span,
    pub(super) row: usize,
}

/// Appends `n` rows of `cols` elements: to[to.row..] = from[from.row..].
pub(super) fn copy_rows(rec: &mut Recording, from: RowsAt<'_>, to: RowsAt<'_>, n: usize, cols: usize) {
    move_rows(rec, &COPY, from, to, [n, cols]);
}

/// Appends `n` rows of `cols` elements: to[to.row..] += from[from.row..].
pub(super) fn add_rows(rec: &mut Recording, from: RowsAt<'_>, to: RowsAt<'_>, n: usize, cols: usize) {
    move_rows(rec, &ADD, from, to, [n, cols]);
}

fn move_rows(rec: &mut Recording, kernel: &'static KernelDef, from: RowsAt<'_>, to: RowsAt<'_>, [n, cols]: [usize; 2]) {
    assert!(n > 0, "rows to move");
    for rows in [from, to] {
        assert!((rows.row + n) * cols <= rows.span.len, "{n} rows from {} on exceed {:?}", rows.row, rows.span);
    }
    let params =
        MoveParams { n: (n * cols) as u32, from_first: (from.row * cols) as u32, to_first: (to.row * cols) as u32 };
    rec.dispatch(kernel, &[], params, &[from.span, to.span], groups_for(n * cols, GROUP));
}

fn case(name: &str, [n, cols]: [usize; 2], [from_rows, to_rows]: [usize; 2], [from, to]: [usize; 2]) -> Case {
    let inputs = [(1, from_rows), (2, to_rows), (3, to_rows)].map(|(seed, rows)| real(seed, rows, cols, 1.0).frozen());
    Case::new(format!("lrsa/move_rows: {name}"), inputs.to_vec(), Tolerance::ROUNDING, move |rec, b| {
        let [source, copied, summed] = [0, 1, 2].map(|i| b.tensors[i].clone());
        let source = RowsAt { span: source.span(), row: from };
        copy_rows(rec, source, RowsAt { span: copied.span(), row: to }, n, cols);
        add_rows(rec, source, RowsAt { span: summed.span(), row: to }, n, cols);
        Ok((vec![copied, summed], None))
    })
}

/// The cases of this file.
pub(super) fn cases() -> Vec<Case> {
    vec![
        case("odd rows", [5, 12], [9, 8], [3, 2]),
        case("one row", [1, 8], [1, 5], [0, 4]),
        case("whole workgroups", [4, 64], [6, 4], [2, 0]),
        case("beyond 16 bits", [70, 1024], [80, 75], [9, 5]),
        case("bench", [512, 2048], [600, 700], [40, 130]).bench(),
    ]
}
