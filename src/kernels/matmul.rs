//! Matrix products in the three layouts of a linear layer, with f32 accumulation.
//!
//! Weights may be f32, 16-bit or quantised. For a weight w [out, in] and input x [tokens, in]:
//! forward `nt` y = x wᵀ, input gradient `nn` dx = dy w, weight gradient `tn` dw = dyᵀ x. A weight
//! cut into row slices is multiplied slice by slice into column ranges of y. A product that would
//! take long is several dispatches, each of some rows of the output.

use super::case::{Case, Input, Tolerance, blocks, frozen, real, subnormal_blocks};
use super::op::{Applied, Op, when};
use super::matmul_kernels::{nn_kernel, nt_kernel, tn_kernel};
pub use super::matmul_kernels::kernels;
use super::matmul_params::Params;
use crate::error::Result;
use crate::gpu::{DISPATCH_FLOPS, KernelDef, Kind, Recording, Span};
use crate::tensor::{Format, Tensor, copy_tensor};

/// Consecutive rows of an f32 tensor within one slice; they may start at any row.
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

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
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

/// When a product becomes several dispatches. The sums over k stay whole, so no bit changes.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// Floating-point operations that a dispatch does at most, unless it would have too few rows or
    /// outputs.
    flops: u64,
    /// Fewest outputs of a dispatch: as many as fill a wide GPU.
    outputs: u64,
    /// A dispatch has a multiple of this number of rows, but for the last, which has the rest.
    rows: u32,
}

/// Fewer rows than these take other ways, on the CPU and in `matmul/row`, which sum in another order.
const SPLIT: Split = Split { flops: DISPATCH_FLOPS, outputs: 1 << 20, rows: 128 };

impl Split {
    /// First row and number of rows of each dispatch.
    fn slices(self, [m, n, k]: [u32; 3]) -> impl Iterator<Item = (u32, u32)> {
        let n = u64::from(n.max(1));
        let most = (self.flops / (2 * n * u64::from(k.max(1)))).max(self.outputs.div_ceil(n)).min(u64::from(m)) as u32;
        let rows = (most / self.rows).max(1) * self.rows;
        let mut first = 0;
        std::iter::from_fn(move || {
            let left = m - first;
            let now = if left - left.min(rows) < self.rows { left } else { rows };
            first += now;
            (now > 0).then_some((first - now, now))
        })
    }

    /// Appends a product. `a_row` is the distance of the elements of `a` for consecutive rows of the
    /// output.
    fn record(self, rec: &mut Recording, kernel: &'static KernelDef, p: Params, a_row: u32, spans: [&Span; 3]) {
        for (first, m) in self.slices([p.m, p.n, p.k]) {
            let (a_offset, c_offset) = (p.a_offset + first * a_row, p.c_offset + first * p.c_stride);
            let groups = [p.n.div_ceil(64), m.div_ceil(32), 1];
            rec.dispatch(kernel, &[], Params { m, a_offset, c_offset, ..p }, &spans, groups);
        }
    }
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
    let kernel = nt_kernel(w.format);
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
        SPLIT.record(rec, kernel, params, params.a_stride, [x.tensor.span(), &piece.span, out.tensor.span()]);
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
    let kernel = nn_kernel(w.format);
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
        SPLIT.record(rec, kernel, params, params.a_stride, [dy.tensor.span(), &piece.span, out.tensor.span()]);
    }
}

/// Appends out = alpha · dyᵀ x + beta · out. dy [tokens, out], x [tokens, in], out [out, in] in any
/// cuts.
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
        SPLIT.record(rec, tn_kernel(), params, 1, [dy.tensor.span(), x.tensor.span(), &piece.span]);
    }
}

struct Linear {
    x: Tensor,
    w: Tensor,
    alpha: f32,
    /// Whether the product was accumulated to a third input.
    onto: bool,
}

impl Op for Linear {
    fn label(&self) -> &'static str {
        if self.onto { "matmul/linear_accumulate" } else { "matmul/linear" }
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dy = &grads[0];
        let dx = when(need[0], || {
            let dx = Tensor::transient(rec, "linear dx", self.x.rows, self.x.cols);
            self.append(rec, dy, X, &dx, 0.0);
            Ok(dx)
        })?;
        let dw = when(need[1], || {
            let dw = Tensor::transient_like(rec, "linear dw", &self.w);
            self.append(rec, dy, W, &dw, 0.0);
            Ok(dw)
        })?;
        let mut all = vec![dx, dw];
        if self.onto {
            all.push(need[2].then(|| dy.clone()));
        }
        Ok(all)
    }

    fn passes_on(&self) -> bool {
        self.onto
    }

    fn has_backward_accumulate(&self, input: usize) -> bool {
        input == X || input == W
    }

    fn backward_accumulate(&self, rec: &mut Recording, grads: &[Tensor], input: usize, sum: &Tensor) {
        self.append(rec, &grads[0], input, sum, 1.0);
    }
}

/// Indices of the inputs of a linear op.
const X: usize = 0;
const W: usize = 1;

impl Linear {
    /// Appends out = gradient of an input + beta · out.
    fn append(&self, rec: &mut Recording, dy: &Tensor, input: usize, out: &Tensor, beta: f32) {
        if input == X {
            matmul_nn(rec, dy, &self.w, out, self.alpha, beta);
        } else {
            matmul_tn(rec, dy, &self.x, out, self.alpha, beta);
        }
    }
}

/// y = alpha · x wᵀ: x [tokens, in], w [out, in] → [tokens, out].
pub fn linear(rec: &mut Recording, x: &Tensor, w: &Tensor, alpha: f32) -> Result<Applied> {
    let y = Tensor::transient(rec, "linear", x.rows, w.rows);
    matmul_nt(rec, x, w, &y, alpha, 0.0);
    Ok((vec![y], Box::new(Linear { x: x.clone(), w: w.clone(), alpha, onto: false })))
}

/// y += alpha · x wᵀ in place: x [tokens, in], w [out, in], y [tokens, out]. No other op may need
/// the old values of y.
pub fn linear_accumulate(rec: &mut Recording, x: &Tensor, w: &Tensor, y: &Tensor, alpha: f32) -> Result<Applied> {
    matmul_nt(rec, x, w, y, alpha, 1.0);
    Ok((vec![y.clone()], Box::new(Linear { x: x.clone(), w: w.clone(), alpha, onto: true })))
}

/// Runs `linear_accumulate` on a copy, so that the case's input stays unchanged.
fn accumulate_case(name: &str, tokens: usize, n_in: usize, n_out: usize) -> Case {
    let inputs = vec![real(1, tokens, n_in, 1.0), real(2, n_out, n_in, 1.0), real(3, tokens, n_out, 1.0)];
    Case::new(format!("matmul/linear_accumulate: {name} {tokens}x{n_in}x{n_out}"), inputs, Tolerance::SUMS, |rec, b| {
        let y = Tensor::transient_like(rec, "sum so far", &b.tensors[2]);
        copy_tensor(rec, &b.tensors[2], &y);
        linear_accumulate(rec, &b.tensors[0], &b.tensors[1], &y, 0.5).map(|(outs, op)| (outs, Some(op)))
    })
}

fn case(name: &str, tokens: usize, n_in: usize, n_out: usize, weight: Input) -> Case {
    let inputs = vec![real(1, tokens, n_in, 1.0), weight];
    Case::new(format!("matmul/linear: {name} {tokens}x{n_in}x{n_out}"), inputs, Tolerance::SUMS, |rec, b| {
        linear(rec, &b.tensors[0], &b.tensors[1], 0.5).map(|(outs, op)| (outs, Some(op)))
    })
}

/// A case of results so small that an absolute tolerance would allow anything.
fn relative(case: Case) -> Case {
    Case { tolerance: Tolerance { absolute: 0.0, ..Tolerance::SUMS }, ..case }
}

/// A kernel alone on windows of its operands. All strides and offsets differ from the sizes and
/// from each other, and the output has prior contents.
fn window_case(kernel: &'static KernelDef, format: Format, size: [usize; 3], beta: f32) -> Case {
    window_at(kernel, format, size, beta, [5, 7, 3])
}

/// A window aligned for kernels that read four neighbours at once, as textures.
fn quads_case(kernel: &'static KernelDef, format: Format, [m, n, k]: [usize; 3], beta: f32) -> Case {
    let fast_axis = if kernel.suffix.starts_with("tn") { m } else { k };
    window_at(kernel, format, [m, n, k], beta, [8, 12, fast_axis.next_multiple_of(4) + 4 - fast_axis])
}

/// The first two numbers are the offsets of the operands; the third is the gap between rows of `a`.
fn window_at(
    kernel: &'static KernelDef,
    format: Format,
    size: [usize; 3],
    beta: f32,
    [a_offset, w_offset, gap]: [usize; 3],
) -> Case {
    let name = format!("from {a_offset}, beta {beta}");
    split_window(&name, kernel, format, (size, beta), [a_offset, w_offset, gap], SPLIT)
}

/// A window in several dispatches, of 16 rows or more.
fn split_case(kernel: &'static KernelDef, format: Format, size: [usize; 3]) -> Case {
    let split = Split { flops: 1, outputs: 1, rows: 16 };
    split_window("in several dispatches", kernel, format, (size, 0.6), [5, 7, 3], split)
}

fn split_window(
    name: &str,
    kernel: &'static KernelDef,
    format: Format,
    ([m, n, k], beta): ([usize; 3], f32),
    [a_offset, w_offset, gap]: [usize; 3],
    split: Split,
) -> Case {
    let is_tn = kernel.suffix.starts_with("tn");
    let (a_rows, a_cols) = if is_tn { (k, m) } else { (m, k) };
    let (c_offset, a_stride, c_stride) = (11, a_cols + gap, n + 2);
    let buffer = |seed, len| frozen(seed, 1, len, 1.0, Format::F32);
    let w_len = (w_offset + n * k).next_multiple_of(format.block_len());
    let inputs = vec![
        buffer(1, a_offset + a_rows * a_stride),
        if format.is_quantised() { blocks(2, 1, w_len, format) } else { frozen(2, 1, w_len, 1.0, format) },
        buffer(3, c_offset + m * c_stride),
    ];
    let name = format!("{}: window {m}x{n}x{k} {name}", kernel.name());
    Case::new(name, inputs, Tolerance::SUMS, move |rec, b| {
        let out = rec.transient("window", Kind::Real, b.tensors[2].len());
        rec.copy(b.tensors[2].span(), &out);
        let [m, n, k, a_stride, a_offset, w_offset, c_stride, c_offset] =
            [m, n, k, a_stride, a_offset, w_offset, c_stride, c_offset].map(|x| x as u32);
        let params = Params { m, n, k, a_stride, a_offset, w_offset, c_stride, c_offset, alpha: 0.7, beta };
        let a_row = if is_tn { 1 } else { a_stride };
        split.record(rec, kernel, params, a_row, [b.tensors[0].span(), b.tensors[1].span(), &out]);
        Ok((vec![Tensor::from_span(out.clone(), 1, out.len)], None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let kernels = [
        (nt_kernel(Format::F32), Format::F32),
        (nn_kernel(Format::F32), Format::F32),
        (tn_kernel(), Format::F32),
        (nt_kernel(Format::Bf16), Format::Bf16),
        (nn_kernel(Format::F16), Format::F16),
    ];
    let sizes = [([6, 5, 3], 0.6), ([32, 64, 8], 0.0), ([33, 65, 9], -1.5), ([70, 131, 17], 0.6)];
    let windows = kernels.into_iter().flat_map(|(k, f)| sizes.map(|(size, beta)| window_case(k, f, size, beta)));
    let quantised = Format::QUANTISED.into_iter().flat_map(quantised_cases);
    let split = kernels.into_iter().map(|(k, f)| split_case(k, f, [70, 67, 9]));
    let windows = windows.chain(split).chain([split_case(nt_kernel(Format::Q4K), Format::Q4K, [53, 66, 37])]);
    windows.chain(quads_cases()).chain(linear_cases()).chain(quantised).chain(few_rows_cases()).collect()
}

/// Windows aligned to four elements: with extra rows and columns, with more texels than a row of a
/// texture holds, and with a remainder of k if the orientation allows it.
fn quads_cases() -> Vec<Case> {
    let formats = [Format::F32, Format::Bf16, Format::F16];
    let nt = formats.map(|f| (nt_kernel(f), f, [([34, 67, 12], 0.6), ([70, 132, 72], 0.0)]));
    let nn = formats.map(|f| (nn_kernel(f), f, [([33, 68, 4], -1.5), ([70, 132, 72], 0.6)]));
    let tn = [[([34, 68, 4], 0.6), ([67, 36, 5], 0.0)], [([33, 72, 7], 0.6), ([70, 132, 74], -1.5)]];
    let all = nt.into_iter().chain(nn).chain(tn.map(|sizes| (tn_kernel(), Format::F32, sizes)));
    all.flat_map(|(kernel, format, sizes)| sizes.map(|(size, beta)| quads_case(kernel, format, size, beta))).collect()
}

/// A few rows with a weight of a size that models have: what decode of one to eight sequences runs.
fn few_rows_cases() -> impl Iterator<Item = Case> {
    let weight = || blocks(2, 1536, 1536, Format::Q4K);
    [1, 2, 4, 8].into_iter().map(move |rows| case("Q4K weights, bench", rows, 1536, 1536, weight()).bench())
}

/// Whole rows and windows of a quantised weight.
fn quantised_cases(format: Format) -> Vec<Case> {
    let name = |what: &str| format!("{format:?} weights, {what}");
    let weight = |rows, cols| blocks(2, rows, cols, format);
    let unit = format.block_len();
    let tiny = || subnormal_blocks(2, 67, 2 * unit, format);
    vec![
        relative(case(&name("scales of 1e-5"), 9, 2 * unit, 67, tiny())),
        relative(case(&name("scales of 1e-5, one row"), 1, 2 * unit, 67, tiny())),
        case(&name("odd sizes"), 9, 3 * unit, 67, weight(67, 3 * unit)),
        case(&name("one row"), 1, 2 * unit, 130, weight(130, 2 * unit)),
        case(&name("beyond 16 bits"), 2, 512, 300, weight(300, 512)),
        case(&name("long rows"), 11, 2304, 5, weight(5, 2304)),
        window_case(nt_kernel(format), format, [6, 5, 37], 0.6),
        window_case(nt_kernel(format), format, [1, 70, 64], 0.6),
        window_at(nt_kernel(format), format, [7, 600, unit.max(256)], 0.6, [5, unit, 3]),
        window_case(nn_kernel(format), format, [33, 65, 9], -1.5),
    ]
}

fn linear_cases() -> Vec<Case> {
    vec![
        case("odd sizes", 37, 19, 71, real(2, 71, 19, 1.0)),
        case("one row", 1, 64, 130, real(2, 130, 64, 1.0)),
        case("one long row", 1, 130, 1001, real(2, 1001, 130, 1.0)),
        case("one of all", 1, 1, 1, real(2, 1, 1, 1.0)),
        relative(case("small values", 9, 17, 33, real(2, 33, 17, 1e-8))),
        relative(case("subnormal f16 weights", 40, 24, 40, frozen(2, 40, 24, 1e-6, Format::F16))),
        relative(case("subnormal f16 weights", 1, 24, 40, frozen(2, 40, 24, 1e-6, Format::F16))),
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
        accumulate_case("odd sizes", 37, 19, 71),
        accumulate_case("one row", 1, 64, 130),
        case("bench", 512, 512, 512, real(2, 512, 512, 1.0)).bench(),
        case("bench", 1024, 1024, 1024, real(2, 1024, 1024, 1.0)).bench(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{CpuExecutor, Executor as _};

    #[test]
    fn dispatches_have_a_bounded_number_of_rows() {
        let slices = |size| SPLIT.slices(size).collect::<Vec<_>>();
        assert_eq!(slices([512, 4096, 4096]), [(0, 512)]); // 17 GFLOP
        // 40 GFLOP are 298 rows of 4,096 outputs and 16,384 steps, and 256 of these are whole tiles.
        assert_eq!(slices([1000, 4096, 16384]), [(0, 256), (256, 256), (512, 256), (768, 232)]);
        assert_eq!(slices([257, 4096, 16384]), [(0, 257)], "the rest would be a single row");
        // However long the sums are, a dispatch has 2^20 outputs.
        assert_eq!(slices([1024, 4096, 1 << 19]), [(0, 256), (256, 256), (512, 256), (768, 256)]);
        // And 128 rows.
        assert_eq!(slices([300, 1 << 17, 8192]), [(0, 128), (128, 172)]);
        assert_eq!(slices([32, 1 << 17, 8192]), [(0, 32)]);
        assert_eq!(slices([1, 1, 1]), [(0, 1)]);
    }

    /// The output of a window, and the number of dispatches.
    fn outputs(kernel: &'static KernelDef, format: Format, flops: u64) -> (Vec<f32>, usize) {
        let split = Split { flops, outputs: 1, ..SPLIT };
        let case = split_window("split", kernel, format, ([300, 140, 96], 0.6), [5, 7, 3], split);
        let mut device = CpuExecutor::<f32>::new();
        let recorded = case.record(&mut device).unwrap();
        device.run(&recorded.recording).unwrap();
        (recorded.outputs[0].read(&mut device).unwrap(), recorded.recording.dispatches().count())
    }

    #[test]
    fn dispatches_of_some_rows_have_the_bits_of_one() {
        let kernels = [Format::F32, Format::Bf16, Format::F16, Format::Q4K]
            .into_iter()
            .flat_map(|f| [(nt_kernel(f), f), (nn_kernel(f), f)])
            .chain([(tn_kernel(), Format::F32)]);
        for (kernel, format) in kernels {
            let (whole, n) = outputs(kernel, format, u64::MAX);
            assert!(n == 1 && whole.iter().any(|x| x.abs() > 10.0), "{}", kernel.name());
            assert!(outputs(kernel, format, 1) == (whole, 2), "{}", kernel.name());
        }
    }
}
