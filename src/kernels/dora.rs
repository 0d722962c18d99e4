//! The normalisation of DoRA: norms of the rows of W + s·B A, and columns scaled by m / norm.
//!
//! Source: Liu et al., arXiv 2402.09353. The norms have no gradient, as in section 4.3 there.

use super::case::{Case, Input, Tolerance, blocks, frozen, random, real};
use super::matmul::{Rows, matmul_nn};
use super::op::{Applied, Op, when};
use super::parts::{HALF, REDUCE, for_format, weight_part};
use super::reduce;
use super::rows::{ROW_CONSTANTS, ROW_SHAPES, dot, for_rows, row_groups, row_shape};
use crate::error::Result;
use crate::formats::blocks::unpack_from;
use crate::gpu::{
    Arg, Binding, DispatchView, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Work, groups_for,
};
use crate::tensor::{Format, Piece, Tensor, kind_of};
use crate::{params, wgsl};

/// Workgroup size of the elementwise shaders.
const GROUP: usize = 64;
/// Elements of B A in memory at a time: 16 MiB.
const CHUNK: usize = 1 << 22;
/// Smallest divisor, so that a row of zeros stays zero. As in the shaders.
const SMALLEST: f32 = 1e-30;

params! {
    /// Rows of a weight slice.
    pub struct NormParams {
        /// Rows.
        rows: u32,
        /// Columns.
        cols: u32,
        /// First element of the rows within w.
        w_offset: u32,
        /// First element of the output.
        first: u32,
    }
}

params! {
    /// The shape of an activation.
    pub struct Params {
        /// Elements.
        n: u32,
        /// Columns.
        cols: u32,
    }
}

/// Counts the sum, the square and its addition for each element.
fn norm_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let (rows, n) = (d.param("rows"), d.param("rows") * d.param("cols"));
    // A weight with fewer bits is bound in fewer words.
    Ok(Work { flops: 3 * n, bytes: 4 * (n + n.min(d.len("w")) + rows) })
}

/// The norm kernel of one storage format of w.
macro_rules! kernel {
    ($format:ident, $name:ident) => {{
        static KERNEL: KernelDef = KernelDef {
            label: "dora/row_norm",
            suffix: stringify!($name),
            parts: &[REDUCE, HALF, wgsl!("common/row"), weight_part(Format::$format), wgsl!("dora/row_norm")],
            bindings: &[
                Binding::read("delta", Kind::Real, "[rows, cols]"),
                Binding::read("w", kind_of(Format::$format), "[rows, cols]"),
                Binding::read_write("out", Kind::Real, "[rows]"),
            ],
            params: NormParams::FIELDS,
            constants: ROW_CONSTANTS,
            alternatives: &[],
            work: norm_work,
            reference_f32: |c| norm_reference(c, Format::$format),
            reference_f64: |c| norm_reference(c, Format::$format),
        };
        &KERNEL
    }};
}

fn norm_kernel(format: Format) -> &'static KernelDef {
    for_format!(format, kernel)
}

static SCALE_COLUMNS: KernelDef = KernelDef {
    label: "dora/scale_columns",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("dora/scale_columns")],
    bindings: &[
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read("magnitude", Kind::Real, "[cols]"),
        Binding::read("norms", Kind::Real, "[cols]"),
        Binding::write("out", Kind::Real, "[rows, cols]"),
    ],
    params: Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.param("n"))),
    reference_f32: scale_reference,
    reference_f64: scale_reference,
};

static SCALE_COLUMNS_BACKWARD_DM: KernelDef = KernelDef {
    label: "dora/scale_columns_backward_dm",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("dora/scale_columns_backward_dm")],
    bindings: &[
        Binding::read("dy", Kind::Real, "[rows, cols]"),
        Binding::read("x", Kind::Real, "[rows, cols]"),
        Binding::read("norms", Kind::Real, "[cols]"),
        Binding::write("dm", Kind::Real, "[rows / block, cols]"),
    ],
    params: reduce::Params::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.len("x"))),
    reference_f32: scale_backward_dm_reference,
    reference_f64: scale_backward_dm_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let norms = Format::all().flat_map(|format| ROW_SHAPES.map(|shape| (norm_kernel(format), shape.to_vec())));
    norms.chain([(&SCALE_COLUMNS, vec![]), (&SCALE_COLUMNS_BACKWARD_DM, vec![])]).collect()
}

fn norm_reference<T: Real>(args: KernelArgs<'_, T>, format: Format) {
    let p: NormParams = args.params();
    let [delta, w, out] = args.buffers();
    let (delta, rows, cols) = (delta.real(), p.rows as usize, p.cols as usize);
    let out = &mut out.real_mut()[p.first as usize..][..rows];
    for_rows(rows * cols, out, 1, |r, out| {
        let at = p.w_offset as usize + r * cols;
        let mut row = vec![T::ZERO; cols];
        match &w {
            Arg::Real(values) => row.copy_from_slice(&values[at..][..cols]),
            Arg::U32(words) => unpack_from(format, words, at, &mut row),
            _ => panic!("a weight is read, not written"),
        }
        row.iter_mut().zip(&delta[r * cols..]).for_each(|(w, &d)| *w += d);
        out[0] = dot(&row, &row).sqrt();
    });
}

fn divisor<T: Real>(norm: T) -> T {
    norm.max(T::of(SMALLEST))
}

fn scale_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: Params = args.params();
    let [x, magnitude, norms, out] = args.buffers();
    let (x, magnitude, norms, cols) = (x.real(), magnitude.real(), norms.real(), p.cols as usize);
    let n = p.n as usize;
    for_rows(n, &mut out.real_mut()[..n], cols, |r, out| {
        let factors = magnitude.iter().zip(norms);
        for ((out, &x), (&m, &norm)) in out.iter_mut().zip(&x[r * cols..]).zip(factors) {
            *out = x * (m / divisor(norm));
        }
    });
}

fn scale_backward_dm_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: reduce::Params = args.params();
    let [dy, x, norms, dm] = args.buffers();
    let (dy, x, norms) = (dy.real(), x.real(), norms.real());
    let (rows, cols, block) = (p.rows as usize, p.cols as usize, p.block as usize);
    let n_blocks = rows.div_ceil(block);
    for_rows(rows * cols, &mut dm.real_mut()[..n_blocks * cols], cols, |b, dm| {
        dm.fill(T::ZERO);
        for r in b * block..(b * block + block).min(rows) {
            for ((dm, &dy), &x) in dm.iter_mut().zip(&dy[r * cols..]).zip(&x[r * cols..]) {
                *dm += dy * x;
            }
        }
        dm.iter_mut().zip(norms).for_each(|(dm, &norm)| *dm = *dm / divisor(norm));
    });
}

/// Appends out = the Euclidean norm of each row of W + scale · B A: w [out, in] in any format and
/// any cuts, a [rank, in], b [out, rank] in f32 → out [1, out].
pub fn row_norms(rec: &mut Recording, w: &Tensor, [a, b]: [&Tensor; 2], scale: f32, out: &Tensor) {
    append_norms(rec, w, [a, b], scale, out, (CHUNK / w.cols).max(1));
}

fn append_norms(rec: &mut Recording, w: &Tensor, [a, b]: [&Tensor; 2], scale: f32, out: &Tensor, most: usize) {
    assert_eq!((b.rows, b.cols, a.cols), (w.rows, a.rows, w.cols), "shapes of W + B A");
    assert_eq!((out.rows, out.cols), (1, w.rows), "one norm a row");
    let (kernel, shape) = (norm_kernel(w.format), row_shape(w.cols));
    for piece in w.pieces() {
        for part in b.pieces() {
            let end = (piece.row + piece.rows).min(part.row + part.rows);
            let mut row = piece.row.max(part.row);
            let part_b = Tensor::from_span(part.span.clone(), part.rows, b.cols);
            while row < end {
                let rows = most.min(end - row);
                let delta = Tensor::transient(rec, "LoRA product", rows, w.cols);
                matmul_nn(rec, Rows::new(&part_b, row - part.row, rows), a, &delta, scale, 0.0);
                let w_offset = (row - piece.row) * w.cols;
                let [rows32, cols, w_offset, first] = [rows, w.cols, w_offset, row].map(|n| n as u32);
                let params = NormParams { rows: rows32, cols, w_offset, first };
                rec.dispatch(kernel, &shape, params, &[delta.span(), &piece.span, out.span()], row_groups(rows, shape));
                row += rows;
            }
        }
    }
}

struct ScaleColumns {
    x: Tensor,
    magnitude: Tensor,
    norms: Tensor,
}

fn append_scaled(rec: &mut Recording, x: &Tensor, magnitude: &Tensor, norms: &Tensor) -> Tensor {
    let out = Tensor::transient(rec, "scale_columns", x.rows, x.cols);
    let params = Params { n: x.len() as u32, cols: x.cols as u32 };
    let spans = [x.span(), magnitude.span(), norms.span(), out.span()];
    rec.dispatch(&SCALE_COLUMNS, &[], params, &spans, groups_for(x.len(), GROUP));
    out
}

impl Op for ScaleColumns {
    fn label(&self) -> &'static str {
        SCALE_COLUMNS.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (x, dy) = (&self.x, &grads[0]);
        let dx = when(need[0], || Ok(append_scaled(rec, dy, &self.magnitude, &self.norms)))?;
        let dm = when(need[1], || {
            let block = reduce::block_rows(x.rows);
            let partials = Tensor::transient(rec, "scale_columns dm", x.rows.div_ceil(block), x.cols);
            let params = reduce::Params { rows: x.rows as u32, cols: x.cols as u32, block: block as u32 };
            let spans = [dy.span(), x.span(), self.norms.span(), partials.span()];
            rec.dispatch(&SCALE_COLUMNS_BACKWARD_DM, &[], params, &spans, groups_for(partials.len(), GROUP));
            Ok(reduce::sum_partials(rec, &partials))
        })?;
        Ok(vec![dx, dm, None])
    }
}

/// x · magnitude / norms, column by column: x [rows, cols], magnitude and norms [1, cols] in f32 →
/// [rows, cols]. Inputs: x, magnitude, norms; the norms have no gradient.
pub fn scale_columns(rec: &mut Recording, x: &Tensor, magnitude: &Tensor, norms: &Tensor) -> Result<Applied> {
    for row in [magnitude, norms] {
        assert_eq!((row.rows, row.cols, row.format), (1, x.cols, Format::F32), "a factor for each column, in f32");
    }
    let out = append_scaled(rec, x, magnitude, norms);
    let op = ScaleColumns { x: x.clone(), magnitude: magnitude.clone(), norms: norms.clone() };
    Ok((vec![out], Box::new(op)))
}

/// Norms in chunks of `most` rows; the inputs are the weight, A and B.
fn norm_case(name: &str, weight: Input, [out, cols, rank]: [usize; 3], most: usize) -> Case {
    let low = |seed, rows, cols| frozen(seed, rows, cols, 0.7, Format::F32);
    let inputs = vec![weight, low(2, rank, cols), low(3, out, rank)];
    Case::new(format!("dora/row_norm: {name} {out}x{cols}"), inputs, Tolerance::SUMS, move |rec, b| {
        let norms = Tensor::transient(rec, "norms", 1, out);
        append_norms(rec, &b.tensors[0], [&b.tensors[1], &b.tensors[2]], -0.6, &norms, most);
        Ok((vec![norms], None))
    })
}

/// Norms of a weight and a B that are cut into slices at different rows.
fn sliced_case([first, second]: [usize; 2], cols: usize) -> Case {
    let part = |seed, rows, cols| frozen(seed, rows, cols, 1.0, Format::F32);
    let (out, cut) = (first + second, first - 2);
    let inputs = vec![part(1, first, cols), part(2, second, cols), part(3, 3, cols), part(4, cut, 3), part(5, out - cut, 3)];
    Case::new(format!("dora/row_norm: slices {out}x{cols}"), inputs, Tolerance::SUMS, move |rec, b| {
        let pieces = |[x, y]: [usize; 2]| {
            let piece = |t: &Tensor, row| Piece { row, rows: t.rows, span: t.span().clone() };
            let (x, y) = (&b.tensors[x], &b.tensors[y]);
            Tensor::from_pieces(x.rows + y.rows, x.cols, Format::F32, vec![piece(x, 0), piece(y, x.rows)])
        };
        let norms = Tensor::transient(rec, "norms", 1, out);
        row_norms(rec, &pieces([0, 1]), [&b.tensors[2], &pieces([3, 4])], 0.8, &norms);
        Ok((vec![norms], None))
    })
}

fn scale_case(name: &str, rows: usize, cols: usize, spread: f32, zero: Option<usize>) -> Case {
    let mut norms: Vec<f32> = random(3, cols, 1.0).iter().map(|x| spread * (x.abs() + 0.3)).collect();
    if let Some(zero) = zero {
        norms[zero] = 0.0;
    }
    let mut x = random(1, rows * cols, spread);
    if let Some(zero) = zero {
        x.iter_mut().skip(zero).step_by(cols).for_each(|x| *x = 0.0);
    }
    let input = |rows, values, differentiable| Input::Real { rows, cols, format: Format::F32, values, differentiable };
    // A column with norm 0 has no slope: its input is frozen too.
    let inputs = vec![input(rows, x, zero.is_none()), real(2, 1, cols, spread), input(1, norms, false)];
    Case::new(format!("dora/scale_columns: {name} {rows}x{cols}"), inputs, Tolerance::SUMS, |rec, b| {
        scale_columns(rec, &b.tensors[0], &b.tensors[1], &b.tensors[2]).map(|(outs, op)| (outs, Some(op)))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let of_format = |format: Format| {
        let (out, cols) = (67, 2 * format.block_len().max(48));
        let weight = if format.is_quantised() { blocks(1, out, cols, format) } else { frozen(1, out, cols, 1.0, format) };
        norm_case(&format!("{format:?} weights,"), weight, [out, cols, 5], 25)
    };
    let sized = |name, shape: [usize; 3], most, spread| {
        norm_case(name, frozen(1, shape[0], shape[1], spread, Format::F32), shape, most)
    };
    let others = [
        sized("one of all,", [1, 1, 1], 9, 1.0),
        sized("short rows in chunks,", [301, 37, 4], 64, 1.0),
        sized("middle rows,", [9, 300, 4], 9, 1.0),
        sized("long rows,", [9, 700, 4], 4, 1.0),
        sized("longest rows,", [3, 2300, 3], 3, 1.0),
        sized("large values,", [9, 64, 2], 9, 1e6),
        sliced_case([19, 24], 40),
        sized("bench,", [2048, 2048, 16], 2048, 1.0).bench(),
        scale_case("odd", 37, 19, 1.0, None),
        scale_case("one row", 1, 65, 1.0, None),
        scale_case("many rows", 1101, 61, 1.0, None),
        scale_case("whole workgroups", 64, 64, 1.0, None),
        scale_case("large values", 5, 64, 1e6, None),
        scale_case("a norm of zero", 5, 9, 1.0, Some(4)),
        scale_case("bench", 2048, 1024, 1.0, None).bench(),
    ];
    Format::all().map(of_format).chain(others).collect()
}
