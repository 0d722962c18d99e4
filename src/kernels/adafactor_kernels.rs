//! Adafactor's kernels: definitions, parameters, and references.

use rayon::prelude::*;

use super::parts::{REDUCE, TREE};
use super::rows::{ROW_CONSTANTS, ROW_SHAPES, dot, for_rows};
use crate::gpu::{Arg, Binding, KernelArgs, KernelDef, Kind, Params as _, Real};
use crate::{params, wgsl};

/// Workgroup size of the elementwise kernels and of those that sum squares.
pub(super) const GROUP: usize = 256;
/// Elements that the reference of the update processes at a time.
const BLOCK: usize = 4096;
/// Columns that the reference of the column means sums at a time.
const COLUMN_BLOCK: usize = 64;

params! {
    /// The means of the rows of a piece.
    pub struct RowParams {
        /// Rows of the piece.
        rows: u32,
        /// Columns.
        cols: u32,
        /// First row of the piece within the matrix.
        first_row: u32,
        /// Weight of the new mean.
        weight: f32,
    }
}

params! {
    /// The means of the columns, piece by piece.
    pub struct ColumnParams {
        /// Rows of the piece.
        rows: u32,
        /// Columns.
        cols: u32,
        /// Rows of all pieces.
        tensor_rows: u32,
        /// 1 for the first piece.
        is_first: u32,
        /// 1 for the last piece.
        is_last: u32,
        /// Weight of the new mean.
        weight: f32,
    }
}

params! {
    /// The divisor of the factored moments.
    pub struct DivisorParams {
        /// Rows of the matrix.
        rows: u32,
        /// Its least value, eps1.
        floor: f32,
    }
}

params! {
    /// The sums of squares of a piece.
    pub struct SquareParams {
        /// Elements of the piece.
        n: u32,
        /// Columns.
        cols: u32,
        /// First row of the piece within the tensor.
        first_row: u32,
        /// 1 for a matrix, 0 for a vector.
        is_factored: u32,
        /// The least second moment, eps1².
        floor: f32,
        /// Workgroups of the piece.
        n_groups: u32,
        /// Workgroups of earlier pieces.
        first: u32,
    }
}

params! {
    /// The step size of a tensor.
    pub struct StepParams {
        /// Pairs of partial sums.
        n: u32,
        /// Elements of the tensor.
        elements: u32,
        /// min(lr, 1 / √t).
        rho: f32,
        /// The least scale of the values, eps2.
        least_scale: f32,
    }
}

params! {
    /// The update of a piece.
    pub struct UpdateParams {
        /// Elements of the piece.
        n: u32,
        /// Columns.
        cols: u32,
        /// First row of the piece within the tensor.
        first_row: u32,
        /// 1 for a matrix, 0 for a vector.
        is_factored: u32,
        /// The least second moment, eps1².
        floor: f32,
        /// lr · weight decay, or 0.
        decay: f32,
        /// The value to which weight decay pulls.
        origin: f32,
    }
}

pub(super) static ROW_MEANS: KernelDef = KernelDef {
    label: "adafactor/row_means",
    suffix: "",
    parts: &[REDUCE, wgsl!("common/row"), wgsl!("adafactor/row_means")],
    bindings: &[
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[rows, cols]"),
        Binding::read_write("row_var", Kind::Real, "[rows of the matrix]"),
    ],
    params: RowParams::FIELDS,
    constants: ROW_CONSTANTS,
    alternatives: &[],
    work: |d| Ok(d.work(3 * d.len("grads"))),
    reference_f32: row_means_reference,
    reference_f64: row_means_reference,
};

pub(super) static COLUMN_MEANS: KernelDef = KernelDef {
    label: "adafactor/column_means",
    suffix: "",
    parts: &[wgsl!("adafactor/column_means")],
    bindings: &[
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[rows, cols]"),
        Binding::read_write("sums", Kind::Real, "[cols]"),
        Binding::read_write("col_var", Kind::Real, "[cols]"),
    ],
    params: ColumnParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(3 * d.len("grads"))),
    reference_f32: column_means_reference,
    reference_f64: column_means_reference,
};

pub(super) static DIVISOR_OF_ROWS: KernelDef = KernelDef {
    label: "adafactor/divisor_of_rows",
    suffix: "",
    parts: &[TREE, wgsl!("adafactor/divisor_of_rows")],
    bindings: &[Binding::read("row_var", Kind::Real, "[rows]"), Binding::write("divisor", Kind::Real, "[1]")],
    params: DivisorParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(d.param("rows"))),
    reference_f32: divisor_reference,
    reference_f64: divisor_reference,
};

pub(super) static SQUARE_SUMS: KernelDef = KernelDef {
    label: "adafactor/square_sums",
    suffix: "",
    parts: &[TREE, wgsl!("adafactor/scaled"), wgsl!("adafactor/square_sums")],
    bindings: &[
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[n]"),
        Binding::read("values", Kind::Real, "[n]"),
        Binding::read("row_var", Kind::Real, "[rows]"),
        Binding::read("col_var", Kind::Real, "[cols]"),
        Binding::read("divisor", Kind::Real, "[1]"),
        Binding::read_write("partials", Kind::Real, "[workgroups of all pieces, 2]"),
    ],
    params: SquareParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(10 * d.param("n"))),
    reference_f32: square_sums_reference,
    reference_f64: square_sums_reference,
};

pub(super) static STEP_SIZE: KernelDef = KernelDef {
    label: "adafactor/step_size",
    suffix: "",
    parts: &[TREE, wgsl!("adafactor/step_size")],
    bindings: &[Binding::read("partials", Kind::Real, "[n, 2]"), Binding::write("step", Kind::Real, "[1]")],
    params: StepParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.param("n"))),
    reference_f32: step_size_reference,
    reference_f64: step_size_reference,
};

pub(super) static UPDATE: KernelDef = KernelDef {
    label: "adafactor/update",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("adafactor/scaled"), wgsl!("adafactor/update")],
    bindings: &[
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[n]"),
        Binding::read_write("values", Kind::Real, "[n]"),
        Binding::read("row_var", Kind::Real, "[rows]"),
        Binding::read("col_var", Kind::Real, "[cols]"),
        Binding::read("divisor", Kind::Real, "[1]"),
        Binding::read("step", Kind::Real, "[1]"),
    ],
    params: UpdateParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(10 * d.param("n"))),
    reference_f32: update_reference,
    reference_f64: update_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let plain = [&COLUMN_MEANS, &DIVISOR_OF_ROWS, &SQUARE_SUMS, &STEP_SIZE, &UPDATE].map(|k| (k, vec![]));
    ROW_SHAPES.map(|s| (&ROW_MEANS, s.to_vec())).into_iter().chain(plain).collect()
}

fn row_means_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: RowParams = args.params();
    let [clipping, grads, row_var] = args.buffers();
    let (factor, grads, cols) = (clipping.real()[1], grads.real(), p.cols as usize);
    if factor == T::ZERO {
        return; // the gradient is not finite
    }
    let means = &mut row_var.real_mut()[p.first_row as usize..][..p.rows as usize];
    means.par_iter_mut().with_min_len(64).enumerate().for_each(|(r, mean)| {
        let row = &grads[r * cols..][..cols];
        let new = factor * factor * dot(row, row) / T::of(p.cols as f32);
        *mean += T::of(p.weight) * (new - *mean);
    });
}

fn column_means_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: ColumnParams = args.params();
    let [clipping, grads, sums, col_var] = args.buffers();
    let (factor, grads, cols) = (clipping.real()[1], grads.real(), p.cols as usize);
    let (sums, col_var) = (&mut sums.real_mut()[..cols], col_var.real_mut());
    if factor == T::ZERO {
        return;
    }
    sums.par_chunks_mut(COLUMN_BLOCK).enumerate().for_each(|(block, sums)| {
        let mut totals = [0.0; COLUMN_BLOCK];
        for row in grads[..p.rows as usize * cols].chunks_exact(cols) {
            for (total, &g) in totals.iter_mut().zip(&row[block * COLUMN_BLOCK..][..sums.len()]) {
                *total += (factor * g * (factor * g)).to_f64();
            }
        }
        for (sum, total) in sums.iter_mut().zip(totals) {
            let earlier = if p.is_first != 0 { T::ZERO } else { *sum };
            *sum = earlier + T::from_f64(total);
        }
    });
    if p.is_last != 0 {
        for (mean, &sum) in col_var.iter_mut().zip(&*sums) {
            *mean += T::of(p.weight) * (sum / T::of(p.tensor_rows as f32) - *mean);
        }
    }
}

fn divisor_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: DivisorParams = args.params();
    let [row_var, divisor] = args.buffers();
    let sum: f64 = row_var.real()[..p.rows as usize].iter().map(|v| v.to_f64()).sum();
    divisor.real_mut()[0] = T::from_f64(sum / f64::from(p.rows)).max(T::of(p.floor));
}

/// The bound buffers from which a scaled gradient is computed, and the place of the piece.
struct Scaled<'a, T> {
    factor: T,
    grads: &'a [T],
    row_var: &'a [T],
    col_var: &'a [T],
    divisor: T,
    floor: T,
    first_row: usize,
    is_factored: bool,
}

impl<'a, T: Real> Scaled<'a, T> {
    fn new(
        [clipping, grads, row_var, col_var, divisor]: [Arg<'a, T>; 5],
        floor: f32,
        first_row: u32,
        is_factored: u32,
    ) -> Self {
        Self {
            factor: clipping.real()[1],
            grads: grads.real(),
            row_var: row_var.real(),
            col_var: col_var.real(),
            divisor: divisor.real()[0],
            floor: T::of(floor),
            first_row: first_row as usize,
            is_factored: is_factored != 0,
        }
    }

    fn at(&self, i: usize) -> T {
        let cols = self.col_var.len();
        let mut estimate = self.col_var[i % cols];
        if self.is_factored {
            estimate *= self.row_var[self.first_row + i / cols] / self.divisor;
        }
        self.factor * self.grads[i] / estimate.max(self.floor).sqrt()
    }
}

fn square_sums_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: SquareParams = args.params();
    let [clipping, grads, values, row_var, col_var, divisor, partials] = args.buffers();
    let scaled = Scaled::new([clipping, grads, row_var, col_var, divisor], p.floor, p.first_row, p.is_factored);
    let (n, groups) = (p.n as usize, p.n_groups as usize);
    let values = &values.real()[..n];
    let partials = &mut partials.real_mut()[2 * p.first as usize..][..2 * groups];
    partials.par_chunks_mut(2).enumerate().for_each(|(first, partial)| {
        let mut sums = [0.0; 2];
        for start in (first * GROUP..n).step_by(groups * GROUP) {
            for (i, &value) in values.iter().enumerate().take(start + GROUP).skip(start) {
                let squares = [scaled.at(i), value].map(|x| (x * x).to_f64());
                sums = [sums[0] + squares[0], sums[1] + squares[1]];
            }
        }
        partial.copy_from_slice(&sums.map(T::from_f64));
    });
}

fn step_size_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: StepParams = args.params();
    let [partials, step] = args.buffers();
    let partials = &partials.real()[..2 * p.n as usize];
    let rms = |which: usize| {
        let sum: f64 = partials.iter().skip(which).step_by(2).map(|x| x.to_f64()).sum();
        T::from_f64(sum / f64::from(p.elements)).sqrt()
    };
    step.real_mut()[0] = rms(1).max(T::of(p.least_scale)) * T::of(p.rho) / rms(0).max(T::ONE);
}

fn update_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: UpdateParams = args.params();
    let [clipping, grads, values, row_var, col_var, divisor, step] = args.buffers();
    let scaled = Scaled::new([clipping, grads, row_var, col_var, divisor], p.floor, p.first_row, p.is_factored);
    if scaled.factor == T::ZERO {
        return;
    }
    let step = step.real()[0];
    let n = p.n as usize;
    for_rows(n, &mut values.real_mut()[..n], BLOCK, |block, values| {
        for (i, x) in values.iter_mut().enumerate() {
            let kept = *x - T::of(p.decay) * (*x - T::of(p.origin));
            *x = kept - step * scaled.at(block * BLOCK + i);
        }
    });
}
