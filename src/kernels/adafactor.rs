//! Adafactor's update of a tensor, with second moments factored into means of rows and columns.
//!
//! The formulas are those of torch.optim.Adafactor. A tensor is updated by itself, because its
//! second moments and its step size depend on all of its elements. The host counts steps: see
//! `optim`. `adafactor_kernels.rs` defines the kernels.

use super::adafactor_kernels::{
    COLUMN_MEANS, ColumnParams, DIVISOR_OF_ROWS, DivisorParams, GROUP, ROW_MEANS, RowParams, SQUARE_SUMS, STEP_SIZE,
    SquareParams, StepParams, UPDATE, UpdateParams,
};
pub use super::adafactor_kernels::kernels;
use super::case::{Case, Input, Tolerance, random};
use super::rows::{row_groups, row_shape};
use crate::gpu::{Buffer, Kind, Recording, Span, groups_for};
use crate::tensor::{Format, Piece, Tensor, copy_tensor};

/// Columns of a workgroup of `column_means`.
const COLUMNS: usize = 32;
/// Maximum workgroups of a piece that sum squares.
const MAX_PARTIALS: usize = 256;

/// The constants of one step. Each is computed in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    /// Weight of the new means.
    pub weight: f32,
    /// The least value of the factored moments' divisor, and squared of the moments: eps1.
    pub eps1: f32,
    /// The least scale of the values: eps2.
    pub eps2: f32,
    /// min(lr, 1 / √t).
    pub rho: f32,
    /// lr · weight decay, or 0.
    pub decay: f32,
    /// The value to which weight decay pulls.
    pub origin: f32,
}

/// Appends one step of a tensor. A matrix has the slots `row_var` `[rows]` and `col_var` `[cols]`; a
/// vector, which is a matrix of one row, has the slot `variance` `[cols]`. `clipping[1]` multiplies
/// the gradients on the device.
pub fn update(
    rec: &mut Recording,
    [values, grads]: [&Tensor; 2],
    slots: &[Buffer],
    clipping: &Span,
    constants: Constants,
) {
    let Constants { weight, eps1, eps2, rho, decay, origin } = constants;
    let (rows, cols, is_factored) = (values.rows as u32, values.cols as u32, u32::from(slots.len() == 2));
    let slots: Vec<Span> = slots.iter().map(Buffer::span).collect();
    let (row_var, col_var) = (&slots[0], &slots[slots.len() - 1]);
    let pieces = || grads.pieces().iter().zip(values.pieces());

    let sums = rec.transient("column sums", Kind::Real, values.cols);
    for (piece, _) in pieces() {
        let (is_first, is_last) = (u32::from(piece.row == 0), u32::from(piece.row + piece.rows == grads.rows));
        let params = ColumnParams { rows: piece.rows as u32, cols, tensor_rows: rows, is_first, is_last, weight };
        let spans = [clipping, &piece.span, &sums, col_var];
        rec.dispatch(&COLUMN_MEANS, &[], params, &spans, groups_for(values.cols, COLUMNS));
    }
    // A vector has no divisor, and its kernels do not read the one they bind.
    let mut divisor = clipping.clone();
    if is_factored == 1 {
        let shape = row_shape(values.cols);
        for (piece, _) in pieces() {
            let params = RowParams { rows: piece.rows as u32, cols, first_row: piece.row as u32, weight };
            let spans = [clipping, &piece.span, row_var];
            rec.dispatch(&ROW_MEANS, &shape, params, &spans, row_groups(piece.rows, shape));
        }
        divisor = rec.transient("divisor", Kind::Real, 1);
        rec.dispatch(&DIVISOR_OF_ROWS, &[], DivisorParams { rows, floor: eps1 }, &[row_var, &divisor], [1, 1, 1]);
    }

    let floor = eps1 * eps1;
    let groups_of = |piece: &Piece| piece.span.len.div_ceil(GROUP).min(MAX_PARTIALS);
    let n_pairs: usize = values.pieces().iter().map(groups_of).sum();
    let partials = rec.transient("square sums", Kind::Real, 2 * n_pairs);
    let mut first = 0;
    for (grad, value) in pieces() {
        let (n, first_row, n_groups) = (value.span.len as u32, value.row as u32, groups_of(value) as u32);
        let params = SquareParams { n, cols, first_row, is_factored, floor, n_groups, first };
        let spans = [clipping, &grad.span, &value.span, row_var, col_var, &divisor, &partials];
        rec.dispatch(&SQUARE_SUMS, &[], params, &spans, [n_groups, 1, 1]);
        first += n_groups;
    }
    let step = rec.transient("step size", Kind::Real, 1);
    let params = StepParams { n: n_pairs as u32, elements: values.len() as u32, rho, least_scale: eps2 };
    rec.dispatch(&STEP_SIZE, &[], params, &[&partials, &step], [1, 1, 1]);
    for (grad, value) in pieces() {
        let (n, first_row) = (value.span.len as u32, value.row as u32);
        let params = UpdateParams { n, cols, first_row, is_factored, floor, decay, origin };
        let spans = [clipping, &grad.span, &value.span, row_var, col_var, &divisor, &step];
        rec.dispatch(&UPDATE, &[], params, &spans, groups_for(value.span.len, GROUP));
    }
}

/// A case of one step of a tensor with so many rows in each piece, with the clipping [1.5, factor].
fn case(name: &str, rows: &[usize], cols: usize, spread: f32, factor: f32, constants: Constants) -> Case {
    let (rows, all_rows) = (rows.to_vec(), rows.iter().sum::<usize>());
    let real = |values: Vec<f32>, cols: usize| {
        let rows = values.len() / cols;
        Input::Real { rows, cols, format: Format::F32, values, differentiable: false }
    };
    let mean = |seed, n| random(seed, n, spread).into_iter().map(|x| x * x).collect::<Vec<f32>>();
    let slots = if all_rows > 1 { vec![all_rows, cols] } else { vec![cols] };
    let slot_inputs = slots.iter().enumerate().map(|(i, &n)| real(mean(1 + i as u64, n), n));
    let piece = |seed: u64, spread| {
        let input = move |(i, &rows): (usize, &usize)| real(random(seed + i as u64, rows * cols, spread), cols);
        rows.iter().enumerate().map(input).collect::<Vec<_>>()
    };
    let inputs: Vec<Input> = std::iter::once(real(vec![1.5, factor], 2))
        .chain(slot_inputs)
        .chain(piece(20, 0.5))
        .chain(piece(40, spread))
        .collect();
    Case::new(format!("adafactor/update: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let copied: Vec<Span> = b.tensors[1..]
            .iter()
            .map(|from| {
                let to = Tensor::from_span(Buffer::persistent("copy", Kind::Real, from.len()).span(), from.rows, from.cols);
                copy_tensor(rec, from, &to);
                to.span().clone()
            })
            .collect();
        let (slot_spans, pieces) = copied.split_at(slots.len());
        let tensor = |spans: &[Span]| {
            let mut row = 0;
            let mut place = |(span, &rows): (&Span, &usize)| {
                row += rows;
                Piece { row: row - rows, rows, span: span.clone() }
            };
            let pieces = spans.iter().zip(&rows).map(&mut place).collect();
            Tensor::from_pieces(all_rows, cols, Format::F32, pieces)
        };
        let (values, grads) = pieces.split_at(rows.len());
        let buffers: Vec<Buffer> = slot_spans.iter().map(|span| span.buffer.clone()).collect();
        update(rec, [&tensor(values), &tensor(grads)], &buffers, b.tensors[0].span(), constants);
        let outputs = slot_spans.iter().chain(values).map(|span| Tensor::from_span(span.clone(), 1, span.len));
        Ok((outputs.collect(), None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let usual = Constants { weight: 0.415, eps1: 1.2e-7, eps2: 1e-3, rho: 0.01, decay: 0.001, origin: 0.0 };
    // The least values decide: of the divisor, the moments and the scale.
    let least = Constants { eps1: 0.5, eps2: 3.0, ..usual };
    let first = Constants { weight: 1.0, decay: 0.2, origin: 0.7, ..usual };
    vec![
        case("odd matrix, clipped", &[37], 19, 1.0, 0.4, usual),
        case("one element, not clipped", &[1], 1, 1.0, 1.0, usual),
        case("vector", &[1], 1234, 1.0, 0.7, usual),
        case("two pieces", &[20, 17], 65, 1.0, 0.5, usual),
        case("three pieces, one row each", &[1, 1, 1], 300, 1.0, 1.0, first),
        case("least values of a matrix", &[9], 130, 0.1, 1.0, least),
        case("least values of a vector", &[1], 77, 0.1, 1.0, least),
        case("the first step, one column", &[301], 1, 1.0, 0.8, first),
        case("rows of 256 lanes", &[3], 4099, 1.0, 0.5, usual),
        case("many rows", &[70_001], 3, 1.0, 0.5, usual),
        case("whole workgroups", &[64], 256, 1.0, 1.0, usual),
        case("more blocks than partial sums", &[259], 259, 1e-3, 1.0, Constants { eps1: 1e-12, ..usual }),
        case("large values", &[31], 67, 1e6, 1.0, usual),
        case("skipped", &[12], 25, 1.0, 0.0, usual),
        case("bench", &[4096], 1024, 1.0, 0.5, usual).bench(),
    ]
}
