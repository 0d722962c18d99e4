//! Embedding lookup, and the gradient of the table without atomics.
//!
//! The host lists the occurrences of each id; the kernel sums them in token order. A table cut into
//! row slices is looked up slice by slice.

use super::case::{Case, Input, Tolerance, blocks, frozen, real};
use super::op::{Applied, Op, when};
use super::parts::{HALF, for_format, weight_part};
use super::rows::for_rows;
use crate::error::Result;
use crate::gpu::{
    Arg, Binding, KernelArgs, DispatchView, Executor, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for,
    upload_words,
};
use crate::formats::blocks::unpack_from;
use crate::tensor::{Format, Piece, Tensor, kind_of};
use crate::{ensure, params, wgsl};

/// Workgroup size of the shaders.
const GROUP: usize = 64;

params! {
    /// The lookup in one slice.
    pub struct Params {
        /// Tokens.
        tokens: u32,
        /// Columns.
        cols: u32,
        /// First row of the slice.
        first_row: u32,
        /// Rows of the slice.
        rows: u32,
        /// 1 to zero the tokens of other slices.
        zero_others: u32,
        /// Factor of the rows.
        scale: f32,
    }
}

params! {
    /// The gradient of one slice of a table.
    pub struct BackwardParams {
        /// Columns.
        cols: u32,
        /// First row of the slice.
        first_row: u32,
        /// First unique id within the slice.
        first_unique: u32,
        /// Unique ids within the slice.
        n_unique: u32,
        /// Factor of the rows in the forward.
        scale: f32,
    }
}

/// Counts only the table rows that the ids select.
fn look_up_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let row = d.len("w") / d.param("rows");
    let values = d.param("tokens") * d.param("cols");
    Ok(Work { flops: values, bytes: 4 * (values + d.param("tokens") * (1 + row)) })
}

/// Counts only the gradient rows that the ids select.
fn backward_work(d: &mut DispatchView<'_>) -> Result<Work> {
    let read = d.len("dy") + 2 * d.len("offsets") + d.len("occurrences");
    let written = d.param("n_unique") * d.param("cols");
    Ok(Work { flops: d.len("dy") + written, bytes: 4 * (read + written) })
}

const LABEL: &str = "embedding/embedding";

/// The lookup kernel for one storage format.
macro_rules! kernel {
    ($format:ident, $name:ident) => {{
        static KERNEL: KernelDef = KernelDef {
            label: LABEL,
            suffix: stringify!($name),
            parts: &[wgsl!("common/grid"), HALF, weight_part(Format::$format), wgsl!("embedding/embedding")],
            bindings: &[
                Binding::read("ids", Kind::U32, "[tokens]"),
                Binding::read("w", kind_of(Format::$format), "[rows, cols]"),
                Binding::read_write("out", Kind::Real, "[tokens, cols]"),
            ],
            params: Params::FIELDS,
            constants: &[],
            alternatives: &[],
            work: look_up_work,
            reference_f32: |c| embedding_reference(c, Format::$format),
            reference_f64: |c| embedding_reference(c, Format::$format),
        };
        &KERNEL
    }};
}

fn look_up(format: Format) -> &'static KernelDef {
    for_format!(format, kernel)
}

static EMBEDDING_BACKWARD: KernelDef = KernelDef {
    label: "embedding/embedding_backward",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("embedding/embedding_backward")],
    bindings: &[
        Binding::read("dy", Kind::Real, "[tokens, cols]"),
        Binding::read("unique", Kind::U32, "[unique ids]"),
        Binding::read("offsets", Kind::U32, "[unique ids + 1]"),
        Binding::read("occurrences", Kind::U32, "[tokens]"),
        Binding::read_write("dtable", Kind::Real, "[rows, cols]"),
    ],
    params: BackwardParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: backward_work,
    reference_f32: embedding_backward_reference,
    reference_f64: embedding_backward_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    Format::all().map(look_up).chain([&EMBEDDING_BACKWARD]).map(|k| (k, vec![])).collect()
}

/// Copies one row of a table, from element `at`; converts only this row to the reference's
/// precision.
fn copy_row<T: Real>(table: &Arg<'_, T>, format: Format, at: usize, out: &mut [T]) {
    match table {
        Arg::Real(values) => out.copy_from_slice(&values[at..][..out.len()]),
        Arg::U32(words) => unpack_from(format, words, at, out),
        _ => panic!("a table is read, not written"),
    }
}

fn embedding_reference<T: Real>(args: KernelArgs<'_, T>, format: Format) {
    let p: Params = args.params();
    let [ids, w, out] = args.buffers();
    let (ids, out, cols) = (ids.u32(), out.real_mut(), p.cols as usize);
    let n = p.tokens as usize * cols;
    for_rows(n, &mut out[..n], cols, |t, out| {
        let row = ids[t].wrapping_sub(p.first_row);
        if row < p.rows {
            copy_row(&w, format, row as usize * cols, out);
            out.iter_mut().for_each(|x| *x *= T::of(p.scale));
        } else if p.zero_others != 0 {
            out.fill(T::ZERO);
        }
    });
}

fn embedding_backward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: BackwardParams = args.params();
    let [dy, unique, offsets, occurrences, dtable] = args.buffers();
    let (dy, unique, offsets, occurrences) = (dy.real(), unique.u32(), offsets.u32(), occurrences.u32());
    let (dtable, cols) = (dtable.real_mut(), p.cols as usize);
    for u in p.first_unique as usize..(p.first_unique + p.n_unique) as usize {
        let out = &mut dtable[(unique[u] - p.first_row) as usize * cols..][..cols];
        out.fill(T::ZERO);
        for &t in &occurrences[offsets[u] as usize..offsets[u + 1] as usize] {
            out.iter_mut().zip(&dy[t as usize * cols..]).for_each(|(s, &g)| *s += g);
        }
        out.iter_mut().for_each(|s| *s *= T::of(p.scale));
    }
}

/// The tokens of each id.
struct Occurrences {
    /// The distinct ids, ascending.
    unique: Vec<u32>,
    /// Start of each distinct id's list, and the end of the last list.
    offsets: Vec<u32>,
    /// Tokens, grouped by id, ascending within a group.
    tokens: Vec<u32>,
}

impl Occurrences {
    fn of(ids: &[u32]) -> Self {
        let mut tokens: Vec<u32> = (0..ids.len() as u32).collect();
        tokens.sort_by_key(|&t| ids[t as usize]); // stable: token order within an id
        let (mut unique, mut offsets) = (Vec::new(), Vec::new());
        for (i, &t) in tokens.iter().enumerate() {
            if unique.last() != Some(&ids[t as usize]) {
                unique.push(ids[t as usize]);
                offsets.push(i as u32);
            }
        }
        offsets.push(ids.len() as u32);
        Self { unique, offsets, tokens }
    }
}

/// [`Occurrences`] on the device, with the distinct ids also on the host to find the slices they
/// select.
#[derive(Clone, Debug)]
struct GradientIndex {
    host_unique: Vec<u32>,
    unique: Span,
    offsets: Span,
    occurrences: Span,
}

/// Token ids on a device, with the lists for the table's gradient.
#[derive(Clone, Debug)]
pub struct TokenIndex {
    /// The ids, U32 `[tokens]`.
    pub ids: Span,
    gradient: Option<GradientIndex>,
}

impl TokenIndex {
    /// Uploads `ids`, and the lists for the table's gradient if requested. Fails for an empty list.
    pub fn upload(device: &mut dyn Executor, ids: &[u32], with_gradient: bool) -> Result<Self> {
        ensure!(!ids.is_empty(), "there are no tokens to look up: the text is empty");
        let mut put = |label: &str, words: &[u32]| upload_words(device, label, words);
        let ids_span = put("token ids", ids)?;
        let gradient = when(with_gradient, || {
            let lists = Occurrences::of(ids);
            Ok(GradientIndex {
                unique: put("distinct token ids", &lists.unique)?,
                offsets: put("starts of token occurrences", &lists.offsets)?,
                occurrences: put("token occurrences", &lists.tokens)?,
                host_unique: lists.unique,
            })
        })?;
        Ok(Self { ids: ids_span, gradient })
    }

    /// Ids that are already on the device, U32 `[tokens]`, for a table without gradient.
    pub fn on_device(ids: Span) -> Self {
        Self { ids, gradient: None }
    }

    /// Number of tokens.
    pub fn n_tokens(&self) -> usize {
        self.ids.len
    }
}

struct Embedding {
    table: Tensor,
    index: TokenIndex,
    scale: f32,
}

impl Op for Embedding {
    fn label(&self) -> &'static str {
        LABEL
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let dtable = when(need[0], || {
            let Some(index) = &self.index.gradient else {
                crate::bail!("the embedding table needs a gradient, but its tokens were uploaded without one");
            };
            let dtable = Tensor::transient_like(rec, "embedding dtable", &self.table);
            for piece in dtable.pieces() {
                rec.clear(&piece.span);
                let below = |row: usize| index.host_unique.partition_point(|&id| (id as usize) < row);
                let (first, end) = (below(piece.row), below(piece.row + piece.rows));
                if first == end {
                    continue;
                }
                let (cols, first_row) = (dtable.cols as u32, piece.row as u32);
                let (first_unique, n_unique) = (first as u32, (end - first) as u32);
                let params = BackwardParams { cols, first_row, first_unique, n_unique, scale: self.scale };
                let spans = [grads[0].span(), &index.unique, &index.offsets, &index.occurrences, &piece.span];
                let groups = groups_for((end - first) * dtable.cols, GROUP);
                rec.dispatch(&EMBEDDING_BACKWARD, &[], params, &spans, groups);
            }
            Ok(dtable)
        })?;
        Ok(vec![dtable])
    }
}

/// scale · the rows `ids` of `table` [vocabulary, channels], in any format and any cuts → [tokens,
/// channels]. Ids outside the table give zeros. Input: table.
pub fn embedding(rec: &mut Recording, table: &Tensor, ids: &TokenIndex, scale: f32) -> Result<Applied> {
    let out = Tensor::transient(rec, "embedding", ids.n_tokens(), table.cols);
    let kernel = look_up(table.format);
    for piece in table.pieces() {
        let params = Params {
            tokens: out.rows as u32,
            cols: out.cols as u32,
            first_row: piece.row as u32,
            rows: piece.rows as u32,
            zero_others: u32::from(piece.row == 0),
            scale,
        };
        rec.dispatch(kernel, &[], params, &[&ids.ids, &piece.span, out.span()], groups_for(out.len(), GROUP));
    }
    Ok((vec![out], Box::new(Embedding { table: table.clone(), index: ids.clone(), scale })))
}

fn case(name: &str, table: Input, ids: Vec<u32>) -> Case {
    let lists = Occurrences::of(&ids);
    let words = [&ids, &lists.unique, &lists.offsets, &lists.tokens].map(|w| Input::Words(w.clone()));
    let inputs = std::iter::once(table).chain(words).collect();
    Case::new(format!("embedding/embedding: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let [ids, unique, offsets, occurrences] = std::array::from_fn(|i| b.words[i].clone());
        let gradient = Some(GradientIndex { host_unique: lists.unique.clone(), unique, offsets, occurrences });
        embedding(rec, &b.tensors[0], &TokenIndex { ids, gradient }, 1.5).map(|(outs, op)| (outs, Some(op)))
    })
}

/// A table in two slices, forward and backward, with ids at the ends of both slices and ids outside
/// the table.
fn sliced_case(name: &str, rows: [usize; 2], cols: usize, ids: Vec<u32>) -> Case {
    let lists = Occurrences::of(&ids);
    let n = ids.len();
    let words = [&ids, &lists.unique, &lists.offsets, &lists.tokens].map(|w| Input::Words(w.clone()));
    let slices = [real(1, rows[0], cols, 1.0).frozen(), real(2, rows[1], cols, 1.0).frozen()];
    let inputs = slices.into_iter().chain([real(3, n, cols, 1.0).frozen()]).chain(words).collect();
    Case::new(format!("embedding/embedding: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let [ids, unique, offsets, occurrences] = std::array::from_fn(|i| b.words[i].clone());
        let gradient = Some(GradientIndex { host_unique: lists.unique.clone(), unique, offsets, occurrences });
        let piece = |i: usize, row: usize| Piece { row, rows: rows[i], span: b.tensors[i].span().clone() };
        let pieces = vec![piece(0, 0), piece(1, rows[0])];
        let table = Tensor::from_pieces(rows[0] + rows[1], cols, Format::F32, pieces);
        let (outs, op) = embedding(rec, &table, &TokenIndex { ids, gradient }, 0.75)?;
        op.backward(rec, &[b.tensors[2].clone()], &[true])?;
        Ok((outs, None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let repeated = || vec![3, 36, 3, 0, 7, 3, 3, 11, 0];
    let quantised = |f: Format| case(&format!("{f:?}"), blocks(1, 300, f.block_len(), f), vec![299, 150, 3, 0, 3]);
    let plain = vec![
        case("odd, repeated", real(1, 37, 19, 1.0), repeated()),
        case("one of one", real(1, 1, 1, 1.0), vec![0]),
        case("ids beyond 16 bits", real(1, 66_000, 2, 1.0), vec![65_999, 3, 65_537, 3]),
        case("one id many times, beyond 16 bits", real(1, 7, 256, 1.0), (0..300).map(|i| i % 2 * 5).collect()),
        case("f16, beyond 16 bits", frozen(1, 300, 512, 1.0, Format::F16), vec![299, 150, 0]),
        case("bf16, beyond 16 bits", frozen(1, 300, 512, 1.0, Format::Bf16), vec![299, 150, 0]),
        case("bf16", frozen(1, 37, 19, 1.0, Format::Bf16), repeated()),
        case("f16", frozen(1, 37, 19, 1.0, Format::F16), repeated()),
        case("whole workgroups", real(1, 8, 64, 1.0), vec![7, 0, 5, 2, 6, 3]),
        case("more ids than columns", real(1, 37, 3, 1.0), (0..37).collect()),
        case("large values", real(1, 9, 130, 1e6), vec![8, 8, 1]),
        sliced_case("two slices", [20, 17], 19, vec![3, 36, 20, 0, 19, 3, 28, 20]),
        sliced_case("two slices, narrow", [7, 9], 5, vec![15, 7, 6, 0, 8, 6, 1]),
        case("bench", real(1, 32_000, 256, 1.0), (0..1024).map(|i| i * 7919 % 3001).collect()).bench(),
    ];
    plain.into_iter().chain(Format::QUANTISED.map(quantised)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::CpuExecutor;

    type Results = (usize, Vec<f32>, Option<Vec<f32>>);

    fn run(case: &Case, max_binding_bytes: u64) -> Results {
        let mut device = CpuExecutor::<f32>::with_binding_limit(max_binding_bytes);
        let recorded = case.record(&mut device).unwrap();
        device.run(&recorded.recording).unwrap();
        let gradient = recorded.input_grads[0].as_ref().map(|g| g.read(&mut device).unwrap());
        (recorded.bound.tensors[0].pieces().len(), recorded.outputs[0].read(&mut device).unwrap(), gradient)
    }

    #[test]
    fn slices_give_what_the_whole_table_gives() {
        for case in cases().into_iter().filter(|c| c.name.contains(": odd") || c.name.ends_with("f16")) {
            let (n_slices, out, gradient) = run(&case, 768);
            assert!(n_slices > 1, "{}: {n_slices} slices", case.name);
            let (_, whole_out, whole_gradient) = run(&case, 1 << 20);
            assert_eq!((out, gradient), (whole_out, whole_gradient), "{}", case.name);
        }
    }

    #[test]
    fn occurrences_list_every_token_once_in_order() {
        let lists = Occurrences::of(&[5, 2, 5, 9, 2]);
        assert_eq!(lists.unique, [2, 5, 9]);
        assert_eq!(lists.offsets, [0, 2, 4, 5]);
        assert_eq!(lists.tokens, [1, 4, 0, 2, 3]);
    }

    #[test]
    fn a_missing_index_and_no_tokens_are_errors() {
        let mut device = CpuExecutor::<f32>::new();
        assert!(TokenIndex::upload(&mut device, &[], true).is_err());
        let index = TokenIndex::upload(&mut device, &[1], false).unwrap();
        let mut rec = Recording::new();
        let table = Tensor::transient(&rec, "table", 2, 3);
        let (outs, op) = embedding(&mut rec, &table, &index, 1.0).unwrap();
        assert!(op.backward(&mut rec, &outs, &[true]).is_err());
    }
}
