//! The attention backward kernels: dQ by query tiles, dK and dV by key tiles.
//!
//! Both recompute the probabilities from the saved log-sum-exp.

use rayon::prelude::*;

use super::Heads;
use super::layout::TileParams;
use super::reference::{Keys, Shape, split_by};
use super::shared::{Keys as AttendKeys, OWN_QUADS, QUADS, QUERIES, QUERY_TILE, TILES, broadcast_shape};
use super::tile_table::TileTable;
use super::tiles::{KeyTile, QueryTile};
use super::work::{key_tile_work, query_tile_work};
use crate::gpu::{
    Alternative, Binding, Expected, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Source, Span, groups_for,
};
use crate::kernels::product::{View, product};
use crate::kernels::rows::{dot, for_rows};
use crate::simd::vectorised;
use crate::tensor::Tensor;
use crate::{params, wgsl};

params! {
    /// Parameters of `attend/delta`.
    pub struct DeltaParams { n: u32, head_dim: u32 }
}
params! {
    /// Parameters of `attend/backward_key`.
    pub struct KeyParams { n_heads: u32, n_kv_heads: u32, scale: f32 }
}

static DELTA: KernelDef = KernelDef {
    label: "attend/delta",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("attend/delta")],
    bindings: &[
        Binding::read("out", Kind::Real, "[tokens, H, d]"),
        Binding::read("dout", Kind::Real, "[tokens, H, d]"),
        Binding::read("lse", Kind::Real, "[tokens, H]"),
        Binding::write("stats", Kind::Real, "[tokens, H, 2]"),
    ],
    params: DeltaParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.len("out"))),
    reference_f32: delta_reference,
    reference_f64: delta_reference,
};

static QUERY: KernelDef = KernelDef {
    label: "attend/backward_query",
    suffix: "",
    parts: &[QUERY_TILE, TILES, QUERIES, wgsl!("attend/backward_query")],
    bindings: &[
        Binding::read("q", Kind::Real, "[tokens, H, d]"),
        Binding::read("recent", Kind::Real, "[rows, 2, Hk, d]"),
        Binding::read("kept", Kind::Real, "[kept rows, 2, Hk, d]"),
        Binding::read("tiles", Kind::U32, "[n_tiles]").of_rows::<QueryTile>(),
        Binding::read("dout", Kind::Real, "[tokens, H, d]"),
        Binding::read("stats", Kind::Real, "[tokens, H, 2]"),
        Binding::write("dq", Kind::Real, "[tokens, H, d]"),
    ],
    params: TileParams::FIELDS,
    constants: &["D4"],
    alternatives: &[Alternative { kernel: &QUERY_BROADCAST, expected: Expected::OnSoftware, shape: broadcast_shape }],
    work: |d| query_tile_work(d, 6),
    reference_f32: query_reference,
    reference_f64: query_reference,
};

static QUERY_BROADCAST: KernelDef = KernelDef {
    label: "attend/backward_query_broadcast",
    parts: &[QUERY_TILE, TILES, QUERIES, QUADS, OWN_QUADS, wgsl!("attend/backward_query_broadcast")],
    alternatives: &[],
    ..QUERY
};

/// Parameters, inputs and output of the kernels over key tiles.
const KEY_TILES: Source = wgsl!("attend/key_tiles");

static KEY: KernelDef = KernelDef {
    label: "attend/backward_key",
    suffix: "",
    parts: &[KEY_TILES, wgsl!("attend/backward_key")],
    bindings: &[
        Binding::read("q", Kind::Real, "[tokens, H, d]"),
        Binding::read("keys", Kind::Real, "[rows, 2, Hk, d]"),
        Binding::read("tiles", Kind::U32, "[n_tiles]").of_rows::<KeyTile>(),
        Binding::read("dout", Kind::Real, "[tokens, H, d]"),
        Binding::read("stats", Kind::Real, "[tokens, H, 2]"),
        Binding::write("dkv", Kind::Real, "[rows, 2, Hk, d]"),
    ],
    params: KeyParams::FIELDS,
    constants: &["D4"],
    alternatives: &[Alternative { kernel: &KEY_BROADCAST, expected: Expected::OnSoftware, shape: broadcast_shape }],
    work: |d| key_tile_work(d, 8),
    reference_f32: key_reference,
    reference_f64: key_reference,
};

static KEY_BROADCAST: KernelDef = KernelDef {
    label: "attend/backward_key_broadcast",
    parts: &[KEY_TILES, QUADS, wgsl!("attend/backward_key_broadcast")],
    alternatives: &[],
    ..KEY
};

/// The kernels of this file, compiled for a head size of 32.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let tiled = [&QUERY, &KEY].into_iter().flat_map(KernelDef::with_alternatives).map(|k| (k, vec![8]));
    std::iter::once((&DELTA, vec![])).chain(tiled).collect()
}

fn delta_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: DeltaParams = args.params();
    let [out, dout, lse, stats] = args.buffers();
    let (out, dout, lse, stats) = (out.real(), dout.real(), lse.real(), stats.real_mut());
    let d = p.head_dim as usize;
    let n = p.n as usize;
    for_rows(n * d, &mut stats[..2 * n], 2, |i, stats| {
        stats.copy_from_slice(&[lse[i], dot(&out[i * d..][..d], &dout[i * d..][..d])]);
    });
}

fn query_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: TileParams = args.params();
    let dim = 4 * args.constants[0] as usize;
    let shape = Shape { n_heads: p.n_heads as usize, n_kv_heads: p.n_kv_heads as usize, dim };
    let n_tiles = args.groups[0] as usize;
    let [q, recent, kept, tiles, dout, stats, dq] = args.buffers();
    let (q, recent, kept, dout, stats) = (q.real(), recent.real(), kept.real(), dout.real(), stats.real());
    let tiles: &[QueryTile] = &bytemuck::cast_slice(tiles.u32())[..n_tiles];
    let first = tiles[0].query as usize * shape.q_cols();
    let outs = split_by(&mut dq.real_mut()[first..], tiles.iter().map(|t| t.n_queries as usize * shape.q_cols()));
    tiles.iter().zip(outs).collect::<Vec<_>>().into_par_iter().for_each(|(tile, dq)| {
        let keys = Keys::of(tile, recent, kept, p.ring, shape);
        let n_queries = tile.n_queries as usize;
        let mut slopes = vec![T::ZERO; n_queries * keys.n];
        let mut along = slopes.clone();
        for head in 0..shape.n_heads {
            let (kv_head, from) = (head / shape.group(), tile.query as usize * shape.q_cols() + head * dim);
            let rows = [n_queries, shape.q_cols()];
            keys.scores(0, kv_head, &q[from..], rows, T::of(p.scale), &mut slopes);
            keys.scores(1, kv_head, &dout[from..], rows, T::ONE, &mut along);
            let both = slopes.chunks_exact_mut(keys.n).zip(along.chunks_exact(keys.n));
            for (i, (row, along)) in both.enumerate() {
                let stat = 2 * ((tile.query as usize + i) * shape.n_heads + head);
                let (hidden, end) = tile.hidden_and_end(i);
                let (seen, unseen) = row.split_at_mut(end);
                unseen.fill(T::ZERO);
                query_slopes(seen, along, &stats[stat..], T::of(p.scale));
                seen[hidden].fill(T::ZERO);
            }
            keys.mix(0, kv_head, &slopes, n_queries, &mut dq[head * dim..], shape.q_cols());
        }
    });
}

vectorised! {
    /// Replaces the scores of one row with their gradients. `along` holds dout · v, `stats` the
    /// log-sum-exp and delta of the row.
    fn query_slopes<T: Real>(row: &mut [T], along: &[T], stats: &[T], scale: T) {
        let (lse, delta) = (stats[0], stats[1]);
        let along = &along[..row.len()];
        for i in 0..row.len() {
            row[i] = (row[i] - lse).exp() * (along[i] - delta) * scale;
        }
    }
}

vectorised! {
    /// Replaces the scores of one row with probabilities, and dout · v in `slopes` with the
    /// gradients of the scores.
    fn key_slopes<T: Real>(weights: &mut [T], slopes: &mut [T], stats: &[T], scale: T) {
        let (lse, delta) = (stats[0], stats[1]);
        let slopes = &mut slopes[..weights.len()];
        for i in 0..weights.len() {
            weights[i] = (weights[i] - lse).exp();
            slopes[i] = weights[i] * (slopes[i] - delta) * scale;
        }
    }
}

/// Queries that the reference processes per step for one key tile.
const QUERY_BLOCK: usize = 128;

fn key_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: KeyParams = args.params();
    let dim = 4 * args.constants[0] as usize;
    let shape = Shape { n_heads: p.n_heads as usize, n_kv_heads: p.n_kv_heads as usize, dim };
    let n_tiles = args.groups[0] as usize;
    let [q, keys, tiles, dout, stats, dkv] = args.buffers();
    let (q, keys, dout, stats) = (q.real(), keys.real(), dout.real(), stats.real());
    let tiles: &[KeyTile] = &bytemuck::cast_slice(tiles.u32())[..n_tiles];
    let first = tiles[0].key as usize * shape.kv_cols();
    let outs = split_by(&mut dkv.real_mut()[first..], tiles.iter().map(|t| t.n_keys as usize * shape.kv_cols()));
    tiles.iter().zip(outs).collect::<Vec<_>>().into_par_iter().for_each(|(tile, dkv)| {
        dkv.fill(T::ZERO);
        let tile_keys = Keys::rows(keys, tile.key, tile.n_keys, shape);
        let (n_keys, cols) = (tile.n_keys as usize, shape.kv_cols());
        let mut weights = vec![T::ZERO; QUERY_BLOCK * n_keys];
        let mut slopes = weights.clone();
        let queries = tile.query as usize..tile.query_end as usize;
        for first in queries.clone().step_by(QUERY_BLOCK) {
            let n = QUERY_BLOCK.min(queries.end - first);
            for head in 0..shape.n_heads {
                let (kv_head, from) = (head / shape.group(), first * shape.q_cols() + head * dim);
                let (q, dout) = (&q[from..], &dout[from..]);
                let rows = [n, shape.q_cols()];
                tile_keys.scores(0, kv_head, q, rows, T::of(p.scale), &mut weights);
                tile_keys.scores(1, kv_head, dout, rows, T::ONE, &mut slopes);
                let both = weights.chunks_exact_mut(n_keys).zip(slopes.chunks_exact_mut(n_keys)).take(n);
                for (i, (weights, slopes)) in both.enumerate() {
                    let stat = 2 * ((first + i) * shape.n_heads + head);
                    let seen = tile.seen_by(first + i - queries.start);
                    for row in [&mut *weights, &mut *slopes] {
                        row[..seen.start].fill(T::ZERO);
                        row[seen.end..].fill(T::ZERO);
                    }
                    let (weights, slopes) = (&mut weights[seen.clone()], &mut slopes[seen]);
                    key_slopes(weights, slopes, &stats[stat..], T::of(p.scale));
                }
                let add = |out: &mut [T], left: &[T], right: &[T]| {
                    let (left, right) = (View::columns(left, n_keys), View::rows(right, shape.q_cols()));
                    product([n_keys, dim, n], left, right, out, cols, T::ONE, T::ONE, false);
                };
                add(&mut dkv[kv_head * dim..], &slopes, q);
                add(&mut dkv[cols / 2 + kv_head * dim..], &weights, dout);
            }
        }
    });
}

/// The inputs of both kernels.
pub(super) struct Saved<'a> {
    pub(super) q: &'a Tensor,
    pub(super) dout: &'a Tensor,
    pub(super) heads: Heads,
    /// Scale of the scores.
    pub(super) scale: f32,
}

impl Saved<'_> {
    /// Appends the (log-sum-exp, delta) pairs of all rows, [tokens, H, 2].
    pub(super) fn stats(&self, rec: &mut Recording, out: &Tensor, lse: &Span) -> Span {
        let n = self.q.rows * self.heads.queries;
        let stats = rec.transient("attention stats", Kind::Real, 2 * n);
        let params = DeltaParams { n: n as u32, head_dim: self.heads.dim as u32 };
        rec.dispatch(&DELTA, &[], params, &[out.span(), self.dout.span(), lse, &stats], groups_for(n, 64));
        stats
    }

    /// Appends dq [tokens, H·d].
    pub(super) fn query_gradient(&self, rec: &mut Recording, keys: &AttendKeys<'_>, stats: &Span) -> Tensor {
        let dq = Tensor::transient(rec, "attention dq", self.q.rows, self.q.cols);
        let (n_heads, n_kv_heads) = (self.heads.queries as u32, self.heads.keys as u32);
        let params = TileParams { n_heads, n_kv_heads, ring: keys.ring, scale: self.scale };
        for (tiles, n_tiles) in keys.tiles.slices() {
            let spans = [self.q.span(), keys.recent, keys.kept, &tiles, self.dout.span(), stats, dq.span()];
            rec.dispatch(&QUERY, &[self.heads.dim as u32 / 4], params, &spans, [n_tiles, n_kv_heads, 1]);
        }
        dq
    }

    /// Appends the gradient of recent or kept kv rows, in the shape of `keys`.
    pub(super) fn key_gradient(&self, rec: &mut Recording, keys: &Tensor, tiles: &TileTable, stats: &Span) -> Tensor {
        let dkv = Tensor::transient(rec, "attention dkv", keys.rows, keys.cols);
        let (n_heads, n_kv_heads) = (self.heads.queries as u32, self.heads.keys as u32);
        let params = KeyParams { n_heads, n_kv_heads, scale: self.scale };
        for (tiles, n_tiles) in tiles.slices() {
            let spans = [self.q.span(), keys.span(), &tiles, self.dout.span(), stats, dkv.span()];
            rec.dispatch(&KEY, &[self.heads.dim as u32 / 4], params, &spans, [n_tiles, n_kv_heads, 1]);
        }
        dkv
    }
}
