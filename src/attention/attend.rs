//! The attention forward kernels and their op, for training and for cached generation.
//!
//! Training builds the kept keys here; generation reads them from the cache. Dense attention and
//! sliding windows use the same kernel with a single run of keys. The backward kernels are in
//! `backward.rs`.

use rayon::prelude::*;

use super::backward::Saved;
use super::layout::{NO_RING, TileParams};
use super::reference::{self, Shape, split_by};
use super::score::Pairs;
use super::shared::{Keys, OWN_QUADS, QUADS, QUERIES, QUERY_TILE, TILES, broadcast_shape};
use super::tile_table::{Bound, TileTable, laid_out};
use super::tiles::{KeyTile, LANES, QueryTile, UNLIMITED};
use super::work::query_tile_work;
use super::{Attention, Heads, LayerAttention, Lrsa, TrainingLayout};
use super::{decode, select};
use crate::error::Result;
use crate::gpu::{
    Alternative, Binding, CpuExecutor, Expected, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span,
};
use crate::kernels::case::{Built, Case, Input, Tolerance, frozen, real};
use crate::kernels::op::{Applied, Op};
use crate::kernels::rows::softmax;
use crate::tensor::{Format, Tensor};
use crate::wgsl;

static FORWARD: KernelDef = KernelDef {
    label: "attend/forward",
    suffix: "",
    parts: &[QUERY_TILE, TILES, QUERIES, wgsl!("attend/forward")],
    bindings: &[
        Binding::read("q", Kind::Real, "[tokens, H, d]"),
        Binding::read("recent", Kind::Real, "[rows, 2, Hk, d]"),
        Binding::read("kept", Kind::Real, "[kept rows, 2, Hk, d]"),
        Binding::read("tiles", Kind::U32, "[n_tiles]").of_rows::<QueryTile>(),
        Binding::write("out", Kind::Real, "[tokens, H, d]"),
        Binding::write("lse", Kind::Real, "[tokens, H]"),
    ],
    params: TileParams::FIELDS,
    constants: &["D4"],
    alternatives: &[Alternative { kernel: &FORWARD_BROADCAST, expected: Expected::OnSoftware, shape: broadcast_shape }],
    work: |d| query_tile_work(d, 4),
    reference_f32: forward_reference,
    reference_f64: forward_reference,
};

static FORWARD_BROADCAST: KernelDef = KernelDef {
    label: "attend/forward_broadcast",
    parts: &[QUERY_TILE, TILES, QUERIES, QUADS, OWN_QUADS, wgsl!("attend/forward_broadcast")],
    alternatives: &[],
    ..FORWARD
};

/// The kernels of this family, compiled for a head size of 32.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    FORWARD.with_alternatives().into_iter().map(|k| (k, vec![8])).collect()
}

fn forward_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: TileParams = args.params();
    let dim = 4 * args.constants[0] as usize;
    let shape = Shape { n_heads: p.n_heads as usize, n_kv_heads: p.n_kv_heads as usize, dim };
    let n_tiles = args.groups[0] as usize;
    let [q, recent, kept, tiles, out, lse] = args.buffers();
    let (q, recent, kept) = (q.real(), recent.real(), kept.real());
    let tiles: &[QueryTile] = &bytemuck::cast_slice(tiles.u32())[..n_tiles];
    let first = tiles[0].query as usize; // the rows of a slice of a table follow those of the slice before
    let counts = || tiles.iter().map(|t| t.n_queries as usize);
    let outs = split_by(&mut out.real_mut()[first * shape.q_cols()..], counts().map(|n| n * shape.q_cols()));
    let lses = split_by(&mut lse.real_mut()[first * shape.n_heads..], counts().map(|n| n * shape.n_heads));
    let work: Vec<_> = tiles.iter().zip(outs.into_iter().zip(lses)).collect();
    work.into_par_iter().for_each(|(tile, (out, lse))| {
        let keys = reference::Keys::of(tile, recent, kept, p.ring, shape);
        let n_queries = tile.n_queries as usize;
        let mut scores = vec![T::ZERO; n_queries * keys.n];
        for head in 0..shape.n_heads {
            let kv_head = head / shape.group();
            let q = &q[tile.query as usize * shape.q_cols() + head * dim..];
            keys.scores(0, kv_head, q, [n_queries, shape.q_cols()], T::of(p.scale), &mut scores);
            for (i, row) in scores.chunks_exact_mut(keys.n).enumerate() {
                let (hidden, end) = tile.hidden_and_end(i);
                let (seen, unseen) = row.split_at_mut(end);
                unseen.fill(T::ZERO);
                seen[hidden.clone()].fill(T::LOWEST);
                lse[i * shape.n_heads + head] = softmax(seen);
                seen[hidden].fill(T::ZERO);
            }
            keys.mix(1, kv_head, &scores, n_queries, &mut out[head * dim..], shape.q_cols());
        }
    });
}

/// Appends the forward of all tiles: output [tokens, H·d] and log-sum-exp [tokens, H].
pub(super) fn forward(rec: &mut Recording, q: &Tensor, keys: &Keys<'_>, heads: Heads) -> (Tensor, Span) {
    let out = Tensor::transient(rec, "attention", q.rows, q.cols);
    let lse = forward_into(rec, q, keys, heads, &out);
    (out, lse)
}

/// [`forward`] with the output written to `out`; returns the log-sum-exp.
fn forward_into(rec: &mut Recording, q: &Tensor, keys: &Keys<'_>, heads: Heads, out: &Tensor) -> Span {
    let lse = rec.transient("attention lse", Kind::Real, q.rows * heads.queries);
    let (n_heads, n_kv_heads) = (heads.queries as u32, heads.keys as u32);
    let params = TileParams { n_heads, n_kv_heads, ring: keys.ring, scale: keys.scale };
    for (tiles, n_tiles) in keys.tiles.slices() {
        let spans = [q.span(), keys.recent, keys.kept, &tiles, out.span(), &lse];
        rec.dispatch(&FORWARD, &[heads.dim as u32 / 4], params, &spans, [n_tiles, n_kv_heads, 1]);
    }
    lse
}

/// Attention of cached generation, written to `out` [tokens, H·d]. The last query sees `most_keys`
/// keys.
pub(super) fn attend_cached(
    rec: &mut Recording,
    q: &Tensor,
    keys: &Keys<'_>,
    most_keys: usize,
    heads: Heads,
    out: &Tensor,
) {
    if q.rows == 1 && decode::takes(heads) {
        decode::decode(rec, q, keys, most_keys, heads, out);
    } else {
        forward_into(rec, q, keys, heads, out);
    }
}

/// Attention of a training batch: q [tokens, H·d], kv [tokens, 2·Hk·d] → [tokens, H·d].
///
/// `scale` multiplies the scores. `earlier` is the selection of a previous forward of the same
/// layer: recomputation reuses it and never selects again. Returns the selection (recent rows
/// [n_pairs, Hk, K]), or `None` if the layer selects nothing.
pub fn attend_training(
    rec: &mut Recording,
    q: &Tensor,
    kv: &Tensor,
    layout: &TrainingLayout,
    scale: f32,
    earlier: Option<Span>,
) -> Result<(Applied, Option<Span>)> {
    let heads = layout.heads;
    assert_eq!((q.cols, kv.cols), (heads.queries * heads.dim, heads.kv_cols()), "columns of q and kv");
    let selection = match (layout.attention.lrsa(), &layout.pairs) {
        (Some(lrsa), Some(table)) => {
            let pairs = Pairs { lrsa: &lrsa, n: layout.n_pairs(), table };
            let rows = earlier.unwrap_or_else(|| select::select_pairs(rec, kv.span(), &pairs, heads, NO_RING));
            let kept = Tensor::transient(rec, "kept kv", pairs.n * lrsa.kept(), heads.kv_cols());
            select::gather(rec, kv.span(), &rows, kept.span(), heads, lrsa.kept(), 0);
            Some((rows, kept, lrsa))
        }
        _ => None,
    };
    let kept = selection.as_ref().map_or(kv.span(), |(_, kept, _)| kept.span());
    let keys = Keys { recent: kv.span(), kept, tiles: &layout.query_tiles, ring: NO_RING, scale };
    let (out, lse) = forward(rec, q, &keys, heads);
    let rows = selection.as_ref().map(|(rows, ..)| rows.clone());
    let op = Attend { q: q.clone(), kv: kv.clone(), out: out.clone(), lse, selection, layout: layout.clone(), scale };
    Ok(((vec![out], Box::new(op)), rows))
}

struct Attend {
    q: Tensor,
    kv: Tensor,
    out: Tensor,
    lse: Span,
    selection: Option<(Span, Tensor, Lrsa)>,
    layout: TrainingLayout,
    scale: f32,
}

impl Op for Attend {
    fn label(&self) -> &'static str {
        FORWARD.label
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let heads = self.layout.heads;
        let saved = Saved { q: &self.q, dout: &grads[0], heads, scale: self.scale };
        let stats = saved.stats(rec, &self.out, &self.lse);
        let kept = self.selection.as_ref().map(|(_, kept, _)| kept);
        let dq = need[0].then(|| {
            let kept = kept.map_or(self.kv.span(), |kept| kept.span());
            let tiles = &self.layout.query_tiles;
            let keys = Keys { recent: self.kv.span(), kept, tiles, ring: NO_RING, scale: self.scale };
            saved.query_gradient(rec, &keys, &stats)
        });
        let dkv = need[1].then(|| {
            let dkv = saved.key_gradient(rec, &self.kv, &self.layout.recent_tiles, &stats);
            if let (Some((rows, kept, lrsa)), Some(tiles)) = (&self.selection, &self.layout.kept_tiles) {
                let dkept = saved.key_gradient(rec, kept, tiles, &stats);
                select::scatter(rec, dkept.span(), rows, dkv.span(), heads, lrsa.kept());
            }
            dkv
        });
        Ok(vec![dq, dkv])
    }
}

/// A case that takes the layout tables of these sequences as word inputs, so that any device can
/// hold them.
fn case(
    name: &str,
    attention: impl Into<LayerAttention>,
    heads: Heads,
    lengths: &'static [usize],
    spread: f32,
) -> Case {
    case_within(name, attention.into(), heads, lengths, spread, Bound::NONE)
}

/// Slices of a few tiles.
const SHORT_SLICES: Bound = Bound { flops: 1, fewest_groups: 4 };

/// A [`case`] whose tables are cut into slices.
fn sliced_case(name: &str, attention: impl Into<LayerAttention>, heads: Heads, lengths: &'static [usize]) -> Case {
    let name = format!("{name}, in several dispatches");
    case_within(&name, attention.into(), heads, lengths, 1.0, SHORT_SLICES)
}

fn case_within(
    name: &str,
    attention: LayerAttention,
    heads: Heads,
    lengths: &'static [usize],
    spread: f32,
    bound: Bound,
) -> Case {
    let mut start = 0;
    let sequence = |&n: &usize| {
        start += n;
        (start - n, n)
    };
    let sequences: Vec<(usize, usize)> = lengths.iter().map(sequence).collect();
    let n: usize = lengths.iter().sum();
    let layout = TrainingLayout::upload(&mut CpuExecutor::<f32>::new(), attention, heads, &sequences)
        .expect("a case describes a valid batch");
    let tables = &layout.tables;
    let mut inputs = vec![real(11, n, heads.queries * heads.dim, spread), real(12, n, heads.kv_cols(), spread)];
    let (words, query_slices) = laid_out(&tables.query_tiles, heads, bound);
    inputs.push(Input::Words(words));
    let (words, recent_slices) = laid_out(&tables.recent_tiles, heads, bound);
    inputs.push(Input::Words(words));
    let (words, kept_slices) = laid_out(&tables.kept_tiles, heads, bound);
    if !tables.pairs.is_empty() {
        inputs.push(Input::Words(words));
        inputs.push(Input::Words(bytemuck::pod_collect_to_vec(&tables.pairs)));
        // The selection is an input, so that finite differences hold it fixed.
        let lrsa = attention.lrsa().expect("only LRSA pairs partitions");
        let pick = |pair: &[u32; 2]| {
            (0..heads.keys * lrsa.kept())
                .map(|i| pair[0] + (i % lrsa.kept() * lrsa.lag() / lrsa.kept()) as u32)
                .collect::<Vec<_>>()
        };
        inputs.push(Input::Words(tables.pairs.iter().flat_map(pick).collect()));
    }
    Case::new(format!("attend: {name}"), inputs, Tolerance::SUMS, move |rec, b| -> Result<Built> {
        let mut layout = layout.clone();
        layout.query_tiles = TileTable::new::<QueryTile>(b.words[0].clone(), query_slices.clone());
        layout.recent_tiles = TileTable::new::<KeyTile>(b.words[1].clone(), recent_slices.clone());
        layout.kept_tiles = b.words.get(2).map(|words| TileTable::new::<KeyTile>(words.clone(), kept_slices.clone()));
        layout.pairs = b.words.get(3).cloned();
        let ((outs, op), _) =
            attend_training(rec, &b.tensors[0], &b.tensors[1], &layout, heads.scale(), b.words.get(4).cloned())?;
        Ok((outs, Some(op)))
    })
}

/// A case for the forward and dQ kernels alone, on tables like those of a cache and wider ones.
/// Sink and window wrap around a ring, the kept run starts mid-buffer, and runs end at, before and
/// after block boundaries.
fn ring_case(name: &str, heads: Heads, ring: u32, spread: f32, tiles: &[QueryTile]) -> Case {
    ring_case_within(name, heads, ring, spread, tiles, Bound::NONE)
}

fn ring_case_within(name: &str, heads: Heads, ring: u32, spread: f32, tiles: &[QueryTile], bound: Bound) -> Case {
    let n = tiles.iter().map(|t| t.n_queries as usize).sum::<usize>();
    let (q_cols, kv_cols) = (heads.queries * heads.dim, heads.kv_cols());
    let kept_rows = tiles.iter().map(|t| t.kept + t.n_kept).max().unwrap_or(0).max(1) as usize;
    let sizes = [(1, n, q_cols), (2, ring as usize, kv_cols), (3, kept_rows, kv_cols), (4, n, q_cols)];
    let reals = sizes.map(|(seed, rows, cols)| real(seed, rows, cols, spread).frozen());
    let (words, slices) = laid_out(tiles, heads, bound);
    let inputs = reals.into_iter().chain([Input::Words(words)]).collect();
    Case::new(format!("attend: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let [q, recent, kept, dout] = std::array::from_fn(|i| b.tensors[i].clone());
        let scale = heads.scale();
        let tiles = TileTable::new::<QueryTile>(b.words[0].clone(), slices.clone());
        let keys = Keys { recent: recent.span(), kept: kept.span(), tiles: &tiles, ring, scale };
        let (out, lse) = forward(rec, &q, &keys, heads);
        let saved = Saved { q: &q, dout: &dout, heads, scale };
        let stats = saved.stats(rec, &out, &lse);
        let dq = saved.query_gradient(rec, &keys, &stats);
        Ok((vec![out, dq], None))
    })
}

fn ring_cases() -> Vec<Case> {
    let heads = |queries, keys| Heads { queries, keys, dim: 8 };
    let tile = |[query, n_queries, sink, n_sink, kept, n_kept, recent, n_recent]: [u32; 8]| QueryTile {
        query,
        n_queries,
        sink,
        n_sink,
        kept,
        n_kept,
        recent,
        n_recent,
        width: UNLIMITED,
    };
    let wraps = [[0, 3, 12, 5, 2, 7, 11, 6], [3, 5, 9, 3, 1, 9, 13, 1], [8, 1, 0, 0, 0, 0, 5, 8]];
    let blocks = [[0, 8, 1, 8, 3, 16, 20, 9], [8, 2, 0, 1, 0, 17, 29, 15], [10, 1, 3, 15, 2, 1, 4, 16]];
    // The queries of the three tiles see at most 6, 1 and 9 recent keys, with and without sink and
    // kept keys before them.
    let mut narrow = wraps.map(tile);
    [narrow[0].width, narrow[1].width, narrow[2].width] = [6, 1, 9];
    let mut within = blocks.map(tile);
    [within[0].width, within[1].width, within[2].width] = [12, 15, 30];
    let long = [[0, 43, 1, 8, 3, 16, 20, 45]];
    // 65 and 150 rows: just above and well above the number of lanes.
    let longer = [[0, 13, 1, 8, 3, 16, 20, 45], [13, 30, 1, 8, 3, 16, 20, 45]];
    vec![
        ring_case("a ring that wraps", heads(4, 2), 14, 1.0, &wraps.map(tile)),
        ring_case("runs around blocks", heads(6, 3), 31, 1.0, &blocks.map(tile)),
        ring_case("a ring that wraps, heads of 32", Heads { queries: 4, keys: 2, dim: 32 }, 14, 1.0, &wraps.map(tile)),
        ring_case(
            "runs around blocks, heads of 32",
            Heads { queries: 6, keys: 3, dim: 32 },
            31,
            3.0,
            &blocks.map(tile),
        ),
        ring_case("more rows than lanes", heads(4, 2), 61, 1.0, &long.map(tile)),
        ring_case(
            "more rows than lanes, heads of 32",
            Heads { queries: 5, keys: 1, dim: 32 },
            61,
            1.0,
            &longer.map(tile),
        ),
        ring_case("sliding windows in a ring", heads(4, 2), 14, 1.0, &narrow),
        ring_case("sliding windows in a ring, heads of 32", Heads { queries: 4, keys: 2, dim: 32 }, 14, 1.0, &narrow),
        ring_case(
            "sliding windows around blocks, heads of 32",
            Heads { queries: 6, keys: 3, dim: 32 },
            31,
            1.0,
            &within,
        ),
        ring_case("a ring, large values", heads(4, 2), 14, 6.0, &wraps.map(tile)),
        ring_case_within(
            "sliding windows around blocks, in several dispatches",
            heads(6, 3),
            31,
            1.0,
            &within,
            SHORT_SLICES,
        ),
    ]
}

/// A case for the row sums alone, with wide heads and many rows.
fn delta_case() -> Case {
    let heads = Heads { queries: 9, keys: 9, dim: 80 };
    let (rows, cols) = (128, heads.queries * heads.dim);
    let inputs = vec![frozen(1, rows, cols, 1.0, Format::F32), frozen(2, rows, cols, 1.0, Format::F32)];
    let lse = frozen(3, rows, heads.queries, 1.0, Format::F32);
    let inputs = inputs.into_iter().chain([lse]).collect();
    Case::new("attend/delta: wide heads, beyond 16 bits", inputs, Tolerance::SUMS, move |rec, b| {
        let [out, dout, lse] = std::array::from_fn(|i| b.tensors[i].clone());
        Saved { q: &out, dout: &dout, heads, scale: heads.scale() }.stats(rec, &out, lse.span());
        Ok((vec![], None))
    })
}

/// The family's cases for the forward and both backward kernels.
pub(super) fn cases() -> Vec<Case> {
    let heads = |queries, keys, dim| Heads { queries, keys, dim };
    let lrsa = |s, l, r| Attention::Lrsa(Lrsa::new(s, l, r).expect("a case describes a valid method"));
    let mut cases = ring_cases();
    cases.extend([
        case("dense, odd sizes", Attention::Dense, heads(6, 2, 12), &[37, 1, 70], 1.0),
        case("dense, one token", Attention::Dense, heads(1, 1, 4), &[1], 1.0),
        case("dense, large values", Attention::Dense, heads(4, 4, 16), &[33], 4.0),
        case("LRSA, ragged batch", lrsa(3, 10, 0.4), heads(4, 2, 8), &[57, 2, 23, 33], 1.0),
        case("LRSA, lag above the workgroup", lrsa(5, 70, 0.93), heads(3, 1, 8), &[300], 1.0),
        case("dense, whole tiles", Attention::Dense, heads(2, 1, 8), &[64, 128], 1.0),
        case("dense, many queries of a wide group", Attention::Dense, heads(8, 1, 4), &[600], 1.0),
        case("LRSA, a long sink", lrsa(21, 9, 0.4), heads(5, 1, 4), &[70], 1.0),
        case("dense, heads of 32", Attention::Dense, heads(6, 2, 32), &[37, 1, 70], 1.0),
        case("LRSA, heads of 32", lrsa(3, 10, 0.4), heads(4, 2, 32), &[57, 2, 33], 1.0),
        case("LRSA, a lag above the tile, heads of 32", lrsa(5, 70, 0.93), heads(3, 1, 32), &[300], 2.0),
        case("dense, one row more than lanes have, heads of 32", Attention::Dense, heads(5, 1, 32), &[13], 1.0),
        delta_case(),
        case("a window, ragged batch", LayerAttention::Window(7), heads(4, 2, 8), &[57, 2, 23, 33], 1.0),
        case("a window of two", LayerAttention::Window(2), heads(2, 2, 8), &[9, 70], 1.0),
        case("a window above the tile", LayerAttention::Window(70), heads(3, 1, 8), &[200, 40], 1.0),
        case("a window, large values, heads of 32", LayerAttention::Window(12), heads(4, 2, 32), &[57, 2, 75], 3.0),
        case("a window above the tile, heads of 32", LayerAttention::Window(65), heads(2, 1, 32), &[140], 1.0),
        case("LRSA, no sink", lrsa(0, 7, 0.3), heads(2, 2, 8), &[29], 1.0),
        case("dense, heads of 64", Attention::Dense, heads(4, 2, 64), &[37, 12], 1.0),
        case("LRSA, heads of 64", lrsa(3, 10, 0.4), heads(4, 2, 64), &[57, 2], 1.0),
        case("LRSA, heads of 128", lrsa(3, 10, 0.4), heads(2, 1, 128), &[57], 1.0).slow(),
        sliced_case("dense, odd sizes", Attention::Dense, heads(6, 2, 12), &[37, 1, 70]),
        sliced_case("dense, heads of 32", Attention::Dense, heads(4, 2, 32), &[37, 70]),
        sliced_case("LRSA, ragged batch", lrsa(3, 10, 0.4), heads(4, 2, 8), &[57, 2, 23, 33]),
        sliced_case("a window, ragged batch", LayerAttention::Window(7), heads(4, 2, 8), &[57, 2, 23, 33]),
        case(BENCH_LRSA, lrsa(16, 128, 0.25), heads(4, 4, 32), &[1024], 1.0).bench(),
        case("dense, bench", Attention::Dense, heads(4, 4, 32), &[1024], 1.0).bench(),
    ]);
    cases
}

const BENCH_LRSA: &str = "LRSA, bench";
const _: () = assert!(LANES == 64, "the shaders' workgroups have 64 lanes");
