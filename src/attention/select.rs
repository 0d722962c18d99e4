//! Top-K selection in each partition, and the gather and scatter of kept pairs.
//!
//! The selection takes the K highest scores, breaks ties in favour of the lowest position, and
//! stores rows in ascending order. Equal scores give the same selection on every device. The gather
//! copies the kept pairs; the scatter adds their gradients back.

use super::score::{self, Pairs};
use super::{Heads, Lrsa};
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for};
use crate::kernels::case::{Case, Input, Tolerance, frozen};
use crate::tensor::copy_tensor;
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// Invocations per workgroup.
const GROUP: usize = 64;

params! {
    /// Parameters of `lrsa/keep_mark`.
    pub struct MarkParams { n: u32, lag: u32, kept: u32 }
}
params! {
    /// Parameters of `lrsa/keep_pack`.
    pub struct PackParams { n: u32, n_heads: u32, lag: u32, kept: u32, ring: u32 }
}
params! {
    /// Parameters of `lrsa/gather_kept`.
    pub struct GatherParams { n: u32, kv_cols: u32, head_dim: u32, kept: u32, out_row: u32 }
}
params! {
    /// Parameters of `lrsa/scatter_kept`.
    pub struct ScatterParams { n: u32, kv_cols: u32, head_dim: u32, kept: u32 }
}

static MARK: KernelDef = KernelDef {
    label: "lrsa/keep_mark",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/keep_mark")],
    bindings: &[
        Binding::read("scores", Kind::Real, "[n_pairs, Hk, lag]"),
        Binding::write("marks", Kind::U32, "[n_pairs, Hk, lag]"),
    ],
    params: MarkParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(0)),
    reference_f32: mark_reference,
    reference_f64: mark_reference,
};

static PACK: KernelDef = KernelDef {
    label: "lrsa/keep_pack",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/keep_pack")],
    bindings: &[
        Binding::read("marks", Kind::U32, "[n_pairs, Hk, lag]"),
        Binding::read("pairs", Kind::U32, "[n_pairs, 2]"),
        Binding::write("rows", Kind::U32, "[n_pairs, Hk, kept]"),
    ],
    params: PackParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(0)),
    reference_f32: pack_reference,
    reference_f64: pack_reference,
};

static GATHER: KernelDef = KernelDef {
    label: "lrsa/gather_kept",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/gather_kept")],
    bindings: &[
        Binding::read("recent", Kind::Real, "[rows, kv_cols]"),
        Binding::read("rows", Kind::U32, "[n_pairs, Hk, kept]"),
        Binding::read_write("kept", Kind::Real, "[kept rows, kv_cols]"),
    ],
    params: GatherParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 0, bytes: 4 * (2 * d.param("n") + d.len("rows")) }),
    reference_f32: gather_reference,
    reference_f64: gather_reference,
};

static SCATTER: KernelDef = KernelDef {
    label: "lrsa/scatter_kept",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/scatter_kept")],
    bindings: &[
        Binding::read("kept", Kind::Real, "[kept rows, kv_cols]"),
        Binding::read("rows", Kind::U32, "[n_pairs, Hk, kept]"),
        Binding::read_write("recent", Kind::Real, "[rows, kv_cols]"),
    ],
    params: ScatterParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: d.param("n"), bytes: 4 * (3 * d.param("n") + d.len("rows")) }),
    reference_f32: scatter_reference,
    reference_f64: scatter_reference,
};

/// The kernels of this family.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&MARK, &PACK, &GATHER, &SCATTER].map(|k| (k, vec![])).to_vec()
}

fn mark_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: MarkParams = args.params();
    let [scores, marks] = args.buffers();
    let (scores, marks) = (&scores.real()[..p.n as usize], marks.u32_mut());
    let lag = p.lag as usize;
    for (scores, marks) in scores.chunks_exact(lag).zip(marks.chunks_exact_mut(lag)) {
        let mut order: Vec<usize> = (0..lag).collect();
        order.sort_by(|&a, &b| scores[b].to_f64().total_cmp(&scores[a].to_f64())); // stable, and a total order even with NaN
        marks.fill(0);
        order[..p.kept as usize].iter().for_each(|&i| marks[i] = 1);
    }
}

fn pack_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: PackParams = args.params();
    let [marks, pairs, rows] = args.buffers();
    let (marks, pairs, rows) = (&marks.u32()[..p.n as usize], pairs.u32(), rows.u32_mut());
    let lists = marks.chunks_exact(p.lag as usize).zip(rows.chunks_exact_mut(p.kept as usize));
    for (list, (marks, rows)) in lists.enumerate() {
        let first = pairs[2 * (list / p.n_heads as usize)];
        let kept = marks.iter().enumerate().filter(|(_, m)| **m == 1).map(|(t, _)| (first + t as u32) % p.ring);
        rows.iter_mut().zip(kept).for_each(|(r, k)| *r = k);
    }
}

/// Calls `f(kept element, recent element)` for each of the first `n` elements of the kept rows.
fn each_kept(n: u32, kv_cols: u32, head_dim: u32, kept: u32, rows: &[u32], mut f: impl FnMut(usize, usize)) {
    let (cols, d, kept) = (kv_cols as usize, head_dim as usize, kept as usize);
    let heads = cols / (2 * d);
    for i in 0..n as usize {
        let (row, col) = (i / cols, i % cols);
        let source = rows[(row / kept * heads + col / d % heads) * kept + row % kept];
        f(i, source as usize * cols + col);
    }
}

fn gather_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: GatherParams = args.params();
    let [recent, rows, kept] = args.buffers();
    let (recent, kept) = (recent.real(), &mut kept.real_mut()[(p.out_row * p.kv_cols) as usize..]);
    each_kept(p.n, p.kv_cols, p.head_dim, p.kept, rows.u32(), |to, from| kept[to] = recent[from]);
}

fn scatter_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: ScatterParams = args.params();
    let [kept, rows, recent] = args.buffers();
    let (kept, recent) = (kept.real(), recent.real_mut());
    each_kept(p.n, p.kv_cols, p.head_dim, p.kept, rows.u32(), |from, to| recent[to] += kept[from]);
}

/// Appends scoring and selection. Returns the recent rows of the kept tokens [n_pairs, Hk, K], in
/// ascending order. `recent` wraps at `ring` rows.
pub fn select_pairs(rec: &mut Recording, recent: &Span, pairs: &Pairs<'_>, heads: Heads, ring: u32) -> Span {
    let scores = score::scores(rec, recent, pairs, heads, ring);
    select_scored(rec, &scores, pairs, heads, ring)
}

fn select_scored(rec: &mut Recording, scores: &Span, pairs: &Pairs<'_>, heads: Heads, ring: u32) -> Span {
    let (lag, kept) = (pairs.lrsa.lag(), pairs.lrsa.kept());
    let n = pairs.n * heads.keys * lag;
    let marks = rec.transient("kept marks", Kind::U32, n);
    let rows = rec.transient("kept rows", Kind::U32, pairs.n * heads.keys * kept);
    let params = MarkParams { n: n as u32, lag: lag as u32, kept: kept as u32 };
    rec.dispatch(&MARK, &[], params, &[scores, &marks], groups_for(n, GROUP));
    let n_heads = heads.keys as u32;
    let params = PackParams { n: n as u32, n_heads, lag: lag as u32, kept: kept as u32, ring };
    rec.dispatch(&PACK, &[], params, &[&marks, pairs.table, &rows], groups_for(n, GROUP));
    rows
}

/// Appends kept[out_row..] = the selected rows of `recent`.
pub(super) fn gather(
    rec: &mut Recording,
    recent: &Span,
    rows: &Span,
    kept: &Span,
    heads: Heads,
    n_kept: usize,
    out_row: usize,
) {
    let n = rows.len / heads.keys * heads.kv_cols();
    let params = GatherParams {
        n: n as u32,
        kv_cols: heads.kv_cols() as u32,
        head_dim: heads.dim as u32,
        kept: n_kept as u32,
        out_row: out_row as u32,
    };
    rec.dispatch(&GATHER, &[], params, &[recent, rows, kept], groups_for(n, GROUP));
}

/// Appends recent[selected rows] += kept, the gradient of [`gather`].
pub(super) fn scatter(rec: &mut Recording, kept: &Span, rows: &Span, recent: &Span, heads: Heads, n_kept: usize) {
    let n = rows.len / heads.keys * heads.kv_cols();
    let (kv_cols, head_dim) = (heads.kv_cols() as u32, heads.dim as u32);
    let params = ScatterParams { n: n as u32, kv_cols, head_dim, kept: n_kept as u32 };
    rec.dispatch(&SCATTER, &[], params, &[kept, rows, recent], groups_for(n, GROUP));
}

/// A case that selects from scores with ties, gathers the kept rows and scatters them back.
fn case(name: &str, heads: Heads, lag: usize, keep: f64, first: u32, rows: usize, scores: Vec<f32>) -> Case {
    let n = scores.len() / (heads.keys * lag);
    let table: Vec<u32> = (0..n as u32).flat_map(|p| [first + p * lag as u32, first + (p + 1) * lag as u32]).collect();
    let (score_rows, format) = (n * heads.keys, Format::F32);
    let inputs = vec![
        Input::Real { rows: score_rows, cols: lag, format, values: scores, differentiable: false },
        frozen(6, rows, heads.kv_cols(), 1.0, format),
        Input::Words(table),
    ];
    Case::new(format!("lrsa/select: {name}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        let lrsa = Lrsa::new(0, lag, keep)?;
        let pairs = Pairs { lrsa: &lrsa, n, table: &b.words[0] };
        let chosen = select_scored(rec, b.tensors[0].span(), &pairs, heads, rows as u32);
        let kept = Tensor::transient(rec, "kept", n * lrsa.kept(), heads.kv_cols());
        gather(rec, b.tensors[1].span(), &chosen, kept.span(), heads, lrsa.kept(), 0);
        let cols = heads.kv_cols();
        let later = rec.transient("kept behind others", Kind::Real, (n * lrsa.kept() + 3) * cols);
        gather(rec, b.tensors[1].span(), &chosen, &later, heads, lrsa.kept(), 3);
        let back = Tensor::transient(rec, "back", rows, heads.kv_cols());
        copy_tensor(rec, &b.tensors[1], &back);
        scatter(rec, kept.span(), &chosen, back.span(), heads, lrsa.kept());
        Ok((vec![kept, back], None))
    })
}

/// A case for packing alone: more marks than kept rows, partitions in any order, and a ring that
/// wraps.
fn pack_case(name: &str, [lag, kept, ring]: [u32; 3]) -> Case {
    let n_heads = 3;
    let marks = (0..2 * n_heads * lag).map(|i| u32::from(i % 4 != 1)).collect::<Vec<_>>();
    let inputs = vec![Input::Words(marks), Input::Words(vec![23, 5, 7, 18])];
    Case::new(format!("lrsa/keep_pack: {name}"), inputs, Tolerance::EXACT, move |rec, b| {
        let rows = rec.transient("kept rows", Kind::U32, (2 * n_heads * kept) as usize);
        let n = b.words[0].len as u32;
        let params = PackParams { n, n_heads, lag, kept, ring };
        rec.dispatch(&PACK, &[], params, &[&b.words[0], &b.words[1], &rows], groups_for(n as usize, GROUP));
        Ok((vec![], None))
    })
}

/// A case that gathers and scatters fewer rows than the tables hold. The remaining rows stay
/// unchanged.
fn partial_case() -> Case {
    let heads = Heads { queries: 2, keys: 2, dim: 4 };
    let (cols, n_kept, rows) = (heads.kv_cols(), 3, vec![1, 4, 5, 0, 2, 6, 9, 7, 8, 7, 8, 9]);
    let inputs = [(1, 10), (2, 6)].map(|(seed, rows)| frozen(seed, rows, cols, 1.0, Format::F32));
    let inputs = inputs.into_iter().chain([Input::Words(rows)]).collect();
    Case::new("lrsa/select: fewer rows than there are", inputs, Tolerance::ROUNDING, move |rec, b| {
        let (recent, kept, rows) = (b.tensors[0].span(), b.tensors[1].span(), &b.words[0]);
        let used = Span { len: rows.len / 2, ..rows.clone() };
        let [first, back] = [("kept", 6), ("back", 10)].map(|(l, rows)| rec.transient(l, Kind::Real, rows * cols));
        let n = (used.len / heads.keys * cols) as u32;
        let (kv_cols, head_dim) = (cols as u32, heads.dim as u32);
        let params = GatherParams { n, kv_cols, head_dim, kept: n_kept, out_row: 0 };
        rec.dispatch(&GATHER, &[], params, &[recent, rows, &first], groups_for(n as usize, GROUP));
        rec.copy(recent, &back);
        let params = ScatterParams { n, kv_cols, head_dim, kept: n_kept };
        rec.dispatch(&SCATTER, &[], params, &[kept, rows, &back], groups_for(n as usize, GROUP));
        Ok((vec![], None))
    })
}

/// The family's cases.
pub(super) fn cases() -> Vec<Case> {
    let heads = |keys, dim| Heads { queries: keys, keys, dim };
    let pattern = |n: usize, period: usize| (0..n).map(|i| ((i * 7919) % period) as f32 / 8.0).collect::<Vec<_>>();
    let close = |n: u32| (0..n).map(|i| f32::from_bits(0.25f32.to_bits() + i * 7919 % n)).collect::<Vec<_>>();
    vec![
        case("all equal", heads(2, 4), 9, 0.5, 0, 20, vec![0.25; 18]),
        case("many ties", heads(2, 4), 17, 0.4, 3, 60, pattern(2 * 2 * 17, 4)),
        case("distinct", heads(3, 8), 70, 0.3, 0, 210, pattern(2 * 3 * 70, 10_007)),
        case("one kept", heads(1, 4), 5, 0.2, 1, 12, pattern(5, 3)),
        case("all kept", heads(1, 4), 5, 1.0, 8, 10, pattern(5, 3)),
        case("whole workgroups", heads(3, 8), 64, 0.0625, 0, 192, pattern(2 * 3 * 64, 10_007)),
        case("a long lag, beyond 16 bits", heads(2, 32), 300, 0.9, 0, 900, pattern(2 * 2 * 300, 100_003)),
        case("scores a step apart", heads(1, 4), 61, 0.3, 0, 122, close(61)),
        pack_case("more marks than are kept", [11, 4, 29]),
        pack_case("whole workgroups", [64, 48, 100]),
        partial_case(),
        case("bench", heads(4, 64), 128, 0.25, 16, 16 + 9 * 128, pattern(8 * 4 * 128, 100_003)).bench(),
    ]
}
