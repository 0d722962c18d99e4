//! Lag-relative scores of LagKV: each partition is scored against the next one.
//!
//! Source: arXiv 2504.04704, eq. 7-13.
//!
//! Three kernels: the range of each channel over the next partition, the standard deviation of each
//! normalised token, and the softmax over the partition. Scores are f32 for every storage type and
//! carry no gradient.

use rayon::prelude::*;

use super::{Heads, Lrsa};
use crate::gpu::{
    Binding, DispatchView, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for,
};
use crate::kernels::case::{Case, Input, Tolerance, frozen, random};
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

/// Invocations per workgroup.
const GROUP: usize = 64;
/// A channel with a smaller range is flat: its normalised value is 0.
const FLAT: f32 = 1e-6;

/// Partitions to score: `table` [n, 2] holds the first recent rows of each partition and of its
/// successor.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<'a> {
    /// The LRSA settings.
    pub lrsa: &'a Lrsa,
    /// Number of pairs.
    pub n: usize,
    /// The table of first rows.
    pub table: &'a Span,
}

params! {
    /// Parameters of `lrsa/lag_bounds`.
    pub struct BoundsParams { n_pairs: u32, kv_cols: u32, lag: u32, ring: u32 }
}
params! {
    /// Parameters of `lrsa/lag_std`.
    pub struct StdParams { n_pairs: u32, kv_cols: u32, lag: u32, ring: u32, head_dim: u32 }
}
params! {
    /// Parameters of `lrsa/lag_score`.
    pub struct ScoreParams { n_pairs: u32, n_heads: u32, lag: u32 }
}

/// Elements of the scored partitions; also those of their successors.
fn partition_elements(d: &DispatchView<'_>) -> u64 {
    d.param("n_pairs") * d.param("kv_cols") * d.param("lag")
}

/// Bytes that the kernel moves: it reads one partition of each pair from `recent`.
fn partition_bytes(d: &DispatchView<'_>) -> u64 {
    d.all_bytes() - 4 * d.len("recent") + 4 * partition_elements(d)
}

static BOUNDS: KernelDef = KernelDef {
    label: "lrsa/lag_bounds",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/lag_bounds")],
    bindings: &[
        Binding::read("recent", Kind::Real, "[rows, kv_cols]"),
        Binding::read("pairs", Kind::U32, "[n_pairs, 2]"),
        Binding::write("bounds", Kind::Real, "[n_pairs, kv_cols, 2]"),
    ],
    params: BoundsParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 0, bytes: partition_bytes(d) }),
    reference_f32: bounds_reference,
    reference_f64: bounds_reference,
};

static STD: KernelDef = KernelDef {
    label: "lrsa/lag_std",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/lag_std")],
    bindings: &[
        Binding::read("recent", Kind::Real, "[rows, kv_cols]"),
        Binding::read("pairs", Kind::U32, "[n_pairs, 2]"),
        Binding::read("bounds", Kind::Real, "[n_pairs, kv_cols, 2]"),
        Binding::write("spread", Kind::Real, "[n_pairs, 2 * Hk, lag]"),
    ],
    params: StdParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 7 * partition_elements(d), bytes: partition_bytes(d) }),
    reference_f32: std_reference,
    reference_f64: std_reference,
};

static SCORE: KernelDef = KernelDef {
    label: "lrsa/lag_score",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("lrsa/lag_score")],
    bindings: &[
        Binding::read("spread", Kind::Real, "[n_pairs, 2 * Hk, lag]"),
        Binding::write("scores", Kind::Real, "[n_pairs, Hk, lag]"),
    ],
    params: ScoreParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(4 * d.len("spread"))),
    reference_f32: score_reference,
    reference_f64: score_reference,
};

/// The kernels of this family.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&BOUNDS, &STD, &SCORE].map(|k| (k, vec![])).to_vec()
}

fn bounds_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: BoundsParams = args.params();
    let [recent, pairs, bounds] = args.buffers();
    let (recent, pairs, bounds) = (recent.real(), pairs.u32(), bounds.real_mut());
    let cols = p.kv_cols as usize;
    for (pair, out) in bounds.chunks_exact_mut(2 * cols).enumerate().take(p.n_pairs as usize) {
        let row = |t: u32| &recent[((pairs[2 * pair + 1] + t) % p.ring) as usize * cols..][..cols];
        let (mut lo, mut hi) = (row(0).to_vec(), row(0).to_vec());
        for t in 1..p.lag {
            for (c, &x) in row(t).iter().enumerate() {
                lo[c] = lo[c].min(x);
                hi[c] = hi[c].max(x);
            }
        }
        for c in 0..cols {
            let span = hi[c] - lo[c];
            out[2 * c] = lo[c];
            out[2 * c + 1] = if span < T::of(FLAT) { T::ZERO } else { T::ONE / span };
        }
    }
}

fn std_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: StdParams = args.params();
    let [recent, pairs, bounds, spread] = args.buffers();
    let (recent, pairs, bounds, spread) = (recent.real(), pairs.u32(), bounds.real(), spread.real_mut());
    let (cols, d, lag) = (p.kv_cols as usize, p.head_dim as usize, p.lag as usize);
    let sides = cols / d;
    let n = p.n_pairs as usize * sides * lag;
    spread[..n].par_chunks_mut(lag).enumerate().for_each(|(i, out)| {
        let (pair, side) = (i / sides, i % sides);
        let bound = &bounds[2 * (pair * cols + side * d)..][..2 * d];
        for (t, out) in out.iter_mut().enumerate() {
            let row = ((pairs[2 * pair] + t as u32) % p.ring) as usize * cols + side * d;
            let x = |c: usize| (recent[row + c] - bound[2 * c]) * bound[2 * c + 1];
            let mean = (0..d).map(x).sum::<T>() / T::from_f64(d as f64);
            let square = (0..d).map(|c| (x(c) - mean) * (x(c) - mean)).sum::<T>();
            *out = (square / T::from_f64((d - 1) as f64)).sqrt();
        }
    });
}

fn softmax<T: Real>(x: &[T]) -> Vec<T> {
    let top = x.iter().fold(x[0], |m, &v| m.max(v));
    let e: Vec<T> = x.iter().map(|&v| (v - top).exp()).collect();
    let sum: T = e.iter().copied().sum();
    e.iter().map(|&v| v / sum).collect()
}

fn score_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: ScoreParams = args.params();
    let [spread, scores] = args.buffers();
    let (spread, scores) = (spread.real(), scores.real_mut());
    let (heads, lag) = (p.n_heads as usize, p.lag as usize);
    for (i, out) in scores.chunks_exact_mut(lag).enumerate().take(p.n_pairs as usize * heads) {
        let key = (i / heads * 2 * heads + i % heads) * lag;
        let keys = softmax(&spread[key..key + lag]);
        let values = softmax(&spread[key + heads * lag..][..lag]);
        for (o, (k, v)) in out.iter_mut().zip(keys.into_iter().zip(values)) {
            *o = k + v;
        }
    }
}

/// Appends the scores [n_pairs, Hk, L] of the partitions. `recent` [rows, 2·Hk·d] wraps at `ring`
/// rows.
pub(super) fn scores(rec: &mut Recording, recent: &Span, pairs: &Pairs<'_>, heads: Heads, ring: u32) -> Span {
    let (n, cols, lag) = (pairs.n, heads.kv_cols(), pairs.lrsa.lag());
    let bounds = rec.transient("lag bounds", Kind::Real, n * cols * 2);
    let spread = rec.transient("lag std", Kind::Real, n * 2 * heads.keys * lag);
    let scores = rec.transient("lag scores", Kind::Real, n * heads.keys * lag);
    let (n_pairs, kv_cols, lag_words) = (n as u32, cols as u32, lag as u32);
    let params = BoundsParams { n_pairs, kv_cols, lag: lag_words, ring };
    rec.dispatch(&BOUNDS, &[], params, &[recent, pairs.table, &bounds], groups_for(n * cols, GROUP));
    let params = StdParams { n_pairs, kv_cols, lag: lag_words, ring, head_dim: heads.dim as u32 };
    rec.dispatch(&STD, &[], params, &[recent, pairs.table, &bounds, &spread], groups_for(spread.len, GROUP));
    let params = ScoreParams { n_pairs, n_heads: heads.keys as u32, lag: lag_words };
    rec.dispatch(&SCORE, &[], params, &[&spread, &scores], groups_for(n * heads.keys, GROUP));
    scores
}

fn case(name: &str, heads: Heads, lag: usize, firsts: &[u32], rows: usize, spread: f32) -> Case {
    let table: Vec<u32> = firsts.iter().flat_map(|&f| [f, f + lag as u32]).collect();
    let n = firsts.len();
    let inputs = vec![frozen(5, rows, heads.kv_cols(), spread, Format::F32), Input::Words(table)];
    Case::new(format!("lrsa/score: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let lrsa = Lrsa::new(0, lag, 1.0)?;
        let pairs = Pairs { lrsa: &lrsa, n, table: &b.words[0] };
        let out = scores(rec, b.tensors[0].span(), &pairs, heads, rows as u32);
        Ok((vec![Tensor::from_span(out, n * heads.keys, lag)], None))
    })
}

/// A case with channel ranges around the flat threshold: 0.7, exactly 1, 1.5 and 3 times its value,
/// each in one head of keys and of values.
fn flat_case() -> Case {
    let (heads, lag) = (Heads { queries: 2, keys: 2, dim: 4 }, 5);
    let range = |col: usize| FLAT * [0.7, 1.0, 1.5, 3.0][col % 4];
    let at = |i: usize| if i / 16 % lag == i % 3 { range(i % 16) } else { 0.0 };
    let values = (0..2 * lag * 16).map(at).collect();
    let recent = Input::Real { rows: 2 * lag, cols: 16, format: Format::F32, values, differentiable: false };
    let inputs = vec![recent, Input::Words(vec![0, lag as u32])];
    Case::new("lrsa/score: nearly constant channels", inputs, Tolerance::SUMS, move |rec, b| {
        let lrsa = Lrsa::new(0, lag, 1.0)?;
        let pairs = Pairs { lrsa: &lrsa, n: 1, table: &b.words[0] };
        let out = scores(rec, b.tensors[0].span(), &pairs, heads, 2 * lag as u32);
        Ok((vec![Tensor::from_span(out, heads.keys, lag)], None))
    })
}

/// A case for the softmax alone: many lists, in whole workgroups, with outliers at the ends of the
/// lists.
fn outlier_case() -> Case {
    let (n_pairs, n_heads, lag) = (32u32, 12u32, 5);
    let mut values = random(7, (n_pairs * 2 * n_heads * lag) as usize, 1.0);
    let lists = values.chunks_exact_mut(lag as usize).enumerate();
    lists.for_each(|(i, list)| list[i * 2 % lag as usize] += [0.0, 150.0, 40.0][i % 3]);
    let spread = Input::Real { rows: values.len(), cols: 1, format: Format::F32, values, differentiable: false };
    Case::new("lrsa/lag_score: outliers", vec![spread], Tolerance::SUMS, move |rec, b| {
        let scores = rec.transient("lag scores", Kind::Real, (n_pairs * n_heads * lag) as usize);
        let groups = groups_for((n_pairs * n_heads) as usize, GROUP);
        rec.dispatch(&SCORE, &[], ScoreParams { n_pairs, n_heads, lag }, &[b.tensors[0].span(), &scores], groups);
        Ok((vec![], None))
    })
}

/// The family's cases.
pub(super) fn cases() -> Vec<Case> {
    let heads = |keys, dim| Heads { queries: keys, keys, dim };
    vec![
        case("odd sizes", heads(3, 12), 7, &[2, 9, 16], 31, 1.0),
        case("one token a partition", heads(1, 4), 1, &[0], 2, 1.0),
        case("a ring that wraps", heads(2, 8), 10, &[13], 20, 1.0),
        case("a ring that wraps within the reference", heads(2, 8), 10, &[5], 20, 1.0),
        case("large values", heads(2, 16), 9, &[0, 9], 27, 1e5),
        case("constant channels", heads(2, 16), 9, &[0], 18, 0.0),
        case("whole workgroups", heads(3, 32), 32, &[1, 40], 110, 1.0),
        case("a long lag, beyond 16 bits", heads(4, 32), 200, &[1, 201], 603, 1.0),
        case("wide heads", heads(1, 128), 9, &[0], 18, 1.0),
        flat_case(),
        outlier_case(),
        case("bench", heads(3, 64), 128, &[16, 144, 272, 400], 656, 1.0).bench(),
    ]
}
