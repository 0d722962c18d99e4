//! Attention forward of single queries (decode), split over ranges of keys that run in parallel.
//!
//! It computes the same result as `attend.rs` for a tile of one query, which would leave most of a
//! device idle. The ranges are summed in a fixed order. `layout.rs` defines the keys that a query
//! sees.

use rayon::prelude::*;

use super::Heads;
use super::decode_vectors;
use super::reference::{Keys, Shape};
use super::shared::{Keys as CacheKeys, QUERY_TILE, TILES};
use super::tile_table::{Bound, TileTable, laid_out};
use super::tiles::{LANES, QueryTile, UNLIMITED};
use super::work::query_tile_work;
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span};
use crate::kernels::case::{Case, Input, Tolerance, frozen};
use crate::kernels::parts::REDUCE;
use crate::kernels::rows::{row_max, row_sum};
use crate::simd::vectorised;
use crate::tensor::{Format, Tensor};
use crate::{params, wgsl};

params! {
    /// Parameters of `attend/decode`.
    pub struct DecodeParams { n_heads: u32, n_kv_heads: u32, ring: u32, n_splits: u32, scale: f32 }
}
params! {
    /// Parameters of `attend/combine`.
    pub struct CombineParams { n_heads: u32, n_splits: u32 }
}

/// Keys per range.
const SPLIT: usize = 128;
/// Maximum number of query heads that a workgroup processes together.
const MOST_HEADS: usize = 8;
/// Maximum head size of these kernels: one quad of channels per lane.
const MOST_CHANNELS: usize = 4 * LANES;
/// Minimum number of values that one parallel task of the reference reads.
const TASK: usize = 1 << 15;

static DECODE: KernelDef = KernelDef {
    label: "attend/decode",
    suffix: "",
    parts: &[REDUCE, QUERY_TILE, TILES, wgsl!("attend/decode")],
    bindings: &[
        Binding::read("q", Kind::Real, "[tokens, H, d]"),
        Binding::read("recent", Kind::Real, "[rows, 2, Hk, d]"),
        Binding::read("kept", Kind::Real, "[kept rows, 2, Hk, d]"),
        Binding::read("tiles", Kind::U32, "[n_tiles]").of_rows::<QueryTile>(),
        Binding::write("stats", Kind::Real, "[n_tiles, n_splits, H, 2]"),
        Binding::write("mixed", Kind::Real, "[n_tiles, n_splits, H, d]"),
    ],
    params: DecodeParams::FIELDS,
    constants: &["D4", "G", "SPLIT"],
    alternatives: &[],
    work: |d| query_tile_work(d, 4),
    reference_f32: decode_reference,
    reference_f64: decode_reference,
};

static COMBINE: KernelDef = KernelDef {
    label: "attend/combine",
    suffix: "",
    parts: &[REDUCE, QUERY_TILE, wgsl!("attend/combine")],
    bindings: &[
        Binding::read("stats", Kind::Real, "[n_tiles, n_splits, H, 2]"),
        Binding::read("mixed", Kind::Real, "[n_tiles, n_splits, H, d]"),
        Binding::read("tiles", Kind::U32, "[n_tiles]").of_rows::<QueryTile>(),
        Binding::write("out", Kind::Real, "[tokens, H, d]"),
        Binding::write("lse", Kind::Real, "[tokens, H]"),
    ],
    params: CombineParams::FIELDS,
    constants: &["D4"],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.len("mixed") + 3 * d.len("stats") / 2 + d.len("out"))),
    reference_f32: combine_reference,
    reference_f64: combine_reference,
};

/// The kernels of this file, compiled for a head size of 32 in groups of 3.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&DECODE, vec![8, 3, SPLIT as u32]), (&COMBINE, vec![8])]
}

fn decode_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: DecodeParams = args.params();
    let [dim, split] = [4 * args.constants[0] as usize, args.constants[2] as usize];
    let shape = Shape { n_heads: p.n_heads as usize, n_kv_heads: p.n_kv_heads as usize, dim };
    let n_splits = p.n_splits as usize;
    let [q, recent, kept, tiles, stats, mixed] = args.buffers();
    let (q, recent, kept) = (q.real(), recent.real(), kept.real());
    let tiles: &[QueryTile] = bytemuck::cast_slice(tiles.u32());
    let stats = stats.real_mut().par_chunks_exact_mut(2 * shape.n_heads);
    let ranges = stats.zip(mixed.real_mut().par_chunks_exact_mut(shape.q_cols())).enumerate();
    ranges.with_min_len(TASK.div_ceil(split * shape.kv_cols())).for_each(|(i, (stats, mixed))| {
        let tile = &tiles[i / n_splits];
        let keys = Keys::of(tile, recent, kept, p.ring, shape).part(i % n_splits * split, split);
        let q = &q[tile.query as usize * shape.q_cols()..][..shape.q_cols()];
        let mut weights = vec![T::ZERO; shape.n_heads * keys.n];
        let mut at = 0;
        for (kv, rows) in keys.runs() {
            scores(q, kv, rows, shape, T::of(p.scale), &mut weights[at..], keys.n);
            at += rows;
        }
        for (h, stats) in stats.chunks_exact_mut(2).enumerate() {
            stats.copy_from_slice(&weigh(&mut weights[h * keys.n..][..keys.n]));
        }
        mixed.fill(T::ZERO);
        let mut at = 0;
        for (kv, rows) in keys.runs() {
            mix(&weights[at..], keys.n, kv, rows, shape, mixed);
            at += rows;
        }
    });
}

/// out[h, k] = scale · q[h] · key k of the head's group, for `n` rows of kv. Rows of out are
/// `out_row` apart.
fn scores<T: Real>(q: &[T], kv: &[T], n: usize, shape: Shape, scale: T, out: &mut [T], out_row: usize) {
    if let (Some(q), Some(kv), Some(out)) = (T::as_f32(q), T::as_f32(kv), T::as_f32_mut(out)) {
        return decode_vectors::scores(q, kv, n, shape, scale.to_f32(), out, out_row);
    }
    let (dim, group, cols) = (shape.dim, shape.group(), shape.kv_cols());
    for k in 0..n {
        for h in 0..shape.n_heads {
            let key = &kv[k * cols + h / group * dim..][..dim];
            out[h * out_row + k] = scale * q[h * dim..][..dim].iter().zip(key).map(|(&q, &k)| q * k).sum();
        }
    }
}

vectorised! {
    /// Replaces scores with e^(score - max); returns the maximum and the sum.
    fn weigh<T: Real>(row: &mut [T]) -> [T; 2] {
        let top = row_max(row);
        for i in 0..row.len() {
            row[i] = (row[i] - top).exp();
        }
        [top, row_sum(row)]
    }
}

/// out[h] += Σ_k weights[h, k] · value k of the head's group, over `n` rows of kv. Rows of weights
/// are `weight_row` apart.
fn mix<T: Real>(weights: &[T], weight_row: usize, kv: &[T], n: usize, shape: Shape, out: &mut [T]) {
    if let (Some(weights), Some(kv), Some(out)) = (T::as_f32(weights), T::as_f32(kv), T::as_f32_mut(out)) {
        return decode_vectors::mix(weights, weight_row, kv, n, shape, out);
    }
    let (dim, group, cols) = (shape.dim, shape.group(), shape.kv_cols());
    for (h, out) in out.chunks_exact_mut(dim).enumerate() {
        for k in 0..n {
            let value = &kv[k * cols + (shape.n_kv_heads + h / group) * dim..][..dim];
            out.iter_mut().zip(value).for_each(|(out, &v)| *out += weights[h * weight_row + k] * v);
        }
    }
}

fn combine_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: CombineParams = args.params();
    let dim = 4 * args.constants[0] as usize;
    let (n_heads, n_splits, n_tiles) = (p.n_heads as usize, p.n_splits as usize, args.groups[0] as usize);
    let [stats, mixed, tiles, out, lse] = args.buffers();
    let (stats, mixed, out, lse) = (stats.real(), mixed.real(), out.real_mut(), lse.real_mut());
    let tiles: &[QueryTile] = &bytemuck::cast_slice(tiles.u32())[..n_tiles];
    for (t, tile) in tiles.iter().enumerate() {
        for h in 0..n_heads {
            let ranges = || (0..n_splits).map(|s| (t * n_splits + s) * n_heads + h);
            let row = tile.query as usize * n_heads + h;
            let top = ranges().map(|i| stats[2 * i]).fold(T::LOWEST, T::max);
            let out = &mut out[row * dim..][..dim];
            out.fill(T::ZERO);
            let mut sum = T::ZERO;
            for i in ranges() {
                let weight = (stats[2 * i] - top).exp();
                sum += weight * stats[2 * i + 1];
                out.iter_mut().zip(&mixed[i * dim..]).for_each(|(o, &x)| *o += weight * x);
            }
            out.iter_mut().for_each(|o| *o = *o / sum);
            lse[row] = top + sum.ln();
        }
    }
}

/// Whether [`decode`] supports this head size.
pub(super) fn takes(heads: Heads) -> bool {
    heads.dim <= MOST_CHANNELS
}

/// Attention within ranges of keys, which [`combine`] puts together.
pub(super) struct Ranges {
    stats: Span,
    mixed: Span,
    tiles: Span,
    n_tiles: usize,
    n_splits: usize,
    heads: Heads,
}

/// Appends the attention of tiles of one query each within ranges of their keys. Every query sees at
/// most `most_keys` keys.
pub(super) fn ranges(rec: &mut Recording, q: &Tensor, keys: &CacheKeys<'_>, most_keys: usize, heads: Heads) -> Ranges {
    assert!(takes(heads), "a lane has a quad of a head");
    let (tiles, n_tiles) = keys.tiles.only_slice();
    let n_splits = most_keys.div_ceil(SPLIT).max(1);
    let n_ranges = n_tiles * n_splits;
    let stats = rec.transient("decode stats", Kind::Real, n_ranges * heads.queries * 2);
    let mixed = rec.transient("decode values", Kind::Real, n_ranges * q.cols);
    let [n_heads, n_kv_heads, d4] = [heads.queries, heads.keys, heads.dim / 4].map(|n| n as u32);
    let params = DecodeParams { n_heads, n_kv_heads, ring: keys.ring, n_splits: n_splits as u32, scale: keys.scale };
    let spans = [q.span(), keys.recent, keys.kept, &tiles, &stats, &mixed];
    let constants = [d4, heads.group().min(MOST_HEADS) as u32, SPLIT as u32];
    rec.dispatch(&DECODE, &constants, params, &spans, [n_tiles as u32, n_kv_heads, n_splits as u32]);
    Ranges { stats, mixed, tiles, n_tiles, n_splits, heads }
}

/// Appends the attention over all ranges. Writes `out` [tokens, H·d] and returns the log-sum-exp
/// [tokens, H].
pub(super) fn combine(rec: &mut Recording, ranges: &Ranges, out: &Tensor) -> Span {
    let Ranges { stats, mixed, tiles, n_tiles, n_splits, heads } = ranges;
    let lse = rec.transient("attention lse", Kind::Real, out.rows * heads.queries);
    let params = CombineParams { n_heads: heads.queries as u32, n_splits: *n_splits as u32 };
    let spans = [stats, mixed, tiles, out.span(), &lse];
    rec.dispatch(&COMBINE, &[heads.dim as u32 / 4], params, &spans, [*n_tiles as u32, heads.queries as u32, 1]);
    lse
}

/// Appends the forward of tiles of one query each: [`ranges`] and [`combine`].
pub(super) fn decode(
    rec: &mut Recording,
    q: &Tensor,
    keys: &CacheKeys<'_>,
    most_keys: usize,
    heads: Heads,
    out: &Tensor,
) -> Span {
    let ranges = ranges(rec, q, keys, most_keys, heads);
    combine(rec, &ranges, out)
}

/// A case with tiles of one query each: (sink, n_sink, kept, n_kept, recent, n_recent). It checks
/// the decode and combine kernels, with the output and the log-sum-exp. The last tile holds the
/// first query.
fn case(name: &str, heads: [usize; 3], ring: u32, spread: f32, runs: &[[u32; 6]]) -> Case {
    case_with(name, heads, ring, spread, runs, None)
}

/// A case in which one range of kept rows, from `first` on, has values four times as large.
fn loud_case(name: &str, first: usize, runs: &[[u32; 6]]) -> Case {
    case_with(name, [2, 1, 12], 7, 2.0, runs, Some(first))
}

/// A [`case`], or a [`loud_case`].
fn case_with(name: &str, heads: [usize; 3], ring: u32, spread: f32, runs: &[[u32; 6]], loud: Option<usize>) -> Case {
    let [queries, keys, dim] = heads;
    let heads = Heads { queries, keys, dim };
    let tile = |(i, &[sink, n_sink, kept, n_kept, recent, n_recent]): (usize, &[u32; 6])| QueryTile {
        query: (runs.len() - 1 - i) as u32,
        n_queries: 1,
        sink,
        n_sink,
        kept,
        n_kept,
        recent,
        n_recent,
        width: UNLIMITED,
    };
    let tiles: Vec<QueryTile> = runs.iter().enumerate().map(tile).collect();
    let most_keys = tiles.iter().map(|t| (t.n_sink + t.n_kept + t.n_recent) as usize).max().unwrap_or(0);
    let kept_rows = tiles.iter().map(|t| t.kept + t.n_kept).max().unwrap_or(0).max(1) as usize;
    let (n, kv_cols) = (tiles.len(), heads.kv_cols());
    let sizes = [(1, n, queries * dim), (2, ring as usize, kv_cols), (3, kept_rows, kv_cols)];
    let mut reals = sizes.map(|(seed, rows, cols)| frozen(seed, rows, cols, spread, Format::F32));
    if let (Some(first), Input::Real { values, .. }) = (loud, &mut reals[2]) {
        values[first * kv_cols..][..SPLIT * kv_cols].iter_mut().for_each(|x| *x *= 4.0);
    }
    let (words, slices) = laid_out(&tiles, heads, Bound::NONE);
    let inputs = reals.into_iter().chain([Input::Words(words)]).collect();
    Case::new(format!("attend/decode: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let [q, recent, kept] = std::array::from_fn(|i| b.tensors[i].clone());
        let scale = heads.scale();
        let tiles = TileTable::new::<QueryTile>(b.words[0].clone(), slices.clone());
        let keys = CacheKeys { recent: recent.span(), kept: kept.span(), tiles: &tiles, ring, scale };
        let out = Tensor::transient(rec, "attention", q.rows, q.cols);
        decode(rec, &q, &keys, most_keys, heads, &out);
        Ok((vec![out], None))
    })
}

/// The cases of both kernels.
pub(super) fn cases() -> Vec<Case> {
    let wraps = [[12, 5, 2, 7, 11, 6], [9, 3, 1, 9, 13, 1], [0, 0, 0, 0, 5, 8]];
    // Ranges start and end inside runs and at their ends, and some lie past the last key.
    let ranges = [[1, 5, 3, 300, 20, 87], [0, 0, 0, 0, 7, 1], [2, 16, 1, 112, 9, 128], [5, 3, 0, 128, 100, 126]];
    let many = [[0, 0, 0, 70 * SPLIT as u32, 3, 7]];
    vec![
        case("a ring that wraps", [4, 2, 12], 14, 1.0, &wraps),
        case("a head of its own for each query head, many ranges", [2, 2, 8], 131, 1.0, &ranges),
        case("one key", [2, 1, 12], 1, 1.0, &[[0, 0, 0, 0, 0, 1]]),
        case("a group beyond one turn", [10, 1, 4], 131, 1.0, &ranges),
        case("heads of 32, large values", [4, 2, 32], 131, 3.0, &ranges),
        case("heads of 64", [9, 3, 64], 131, 1.0, &ranges),
        case("heads of 80", [2, 1, 80], 14, 1.0, &wraps),
        case("the widest heads, more ranges than lanes", [2, 1, MOST_CHANNELS], 7, 1.0, &many),
        loud_case("the highest score in a range behind as many as lanes", 64 * SPLIT, &many),
        loud_case("the highest score in the first of more ranges than lanes", 0, &many),
        case("bench", [9, 3, 64], 256, 1.0, &[[0, 0, 0, 8192, 128, 200]]).bench(),
    ]
}
