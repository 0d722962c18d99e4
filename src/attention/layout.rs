//! Who sees whom in a training batch, as host-made tables.
//!
//! A query tile is a run of queries of one partition; all of them read the same three runs of keys: the sink, a prefix of the
//! packed keys, and the window from the previous partition to themselves. A key tile is the mirror image: a run of keys
//! and the queries that see them. No n×n matrix and no mask exists anywhere.

use super::tiles::{KeyTile, LANES, QueryTile};
use super::{Attention, Lrsa, Selection};
use crate::error::{Error, Result};
use crate::gpu::{Executor, Span, upload_words};
use crate::params;

/// Head counts and size of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// H: query heads.
    pub queries: usize,
    /// Hk: key-value heads.
    pub keys: usize,
    /// d: channels of a head, a multiple of 4.
    pub dim: usize,
}

impl Heads {
    /// g: query heads that share a key-value head.
    pub fn group(&self) -> usize {
        self.queries / self.keys
    }

    /// 1/√d, the factor of the scores.
    pub(super) fn scale(&self) -> f32 {
        (1.0 / (self.dim as f64).sqrt()) as f32
    }

    /// Columns of a kv row: Hk keys of d channels, then Hk values.
    pub fn kv_cols(&self) -> usize {
        2 * self.keys * self.dim
    }
}

/// Keys that no ring wraps.
pub(super) const NO_RING: u32 = u32::MAX;

params! {
    /// Of `attend/forward` and `attend/backward_query`.
    pub struct TileParams { n_heads: u32, n_kv_heads: u32, ring: u32, scale: f32 }
}

/// Workgroups of one axis that WebGPU promises.
const MAX_TILES: usize = 65_535;

/// Tables of one batch, before upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) query_tiles: Vec<QueryTile>,
    pub(super) raw_tiles: Vec<KeyTile>,
    pub(super) packed_tiles: Vec<KeyTile>,
    /// First rows of a scored partition and of its successor.
    pub(super) pairs: Vec<[u32; 2]>,
}

impl Tables {
    /// Tables for sequences (first row, length) that follow one another without gaps.
    pub(super) fn new(attention: Attention, sequences: &[(usize, usize)], group: usize) -> Self {
        let mut tables = Tables::default();
        let mut next = 0;
        for &(start, n) in sequences {
            assert_eq!(start, next, "sequences follow one another");
            next += n;
            match attention {
                Attention::Dense => tables.add_dense(start, n, group),
                Attention::Lrsa(lrsa) => tables.add_lrsa(&lrsa, start, n, group),
            }
        }
        tables
    }

    fn add_queries(&mut self, first: usize, end: usize, group: usize, tile: QueryTile) {
        let step = (LANES / group).max(1);
        for q in (first..end).step_by(step) {
            let n_window = (q + 1) as u32 - tile.window;
            self.query_tiles.push(QueryTile { query: q as u32, n_queries: step.min(end - q) as u32, n_window, ..tile });
        }
    }

    fn add_raw_keys(&mut self, first: usize, end: usize, query_end: usize) {
        for key in (first..end).step_by(LANES) {
            let n_keys = LANES.min(end - key) as u32;
            let (key, query_end) = (key as u32, query_end as u32);
            self.raw_tiles.push(KeyTile { key, n_keys, query: key, query_end, run: 1, step: 1 });
        }
    }

    fn add_dense(&mut self, start: usize, n: usize, group: usize) {
        let tile = QueryTile { window: start as u32, ..bytemuck::Zeroable::zeroed() };
        self.add_queries(start, start + n, group, tile);
        self.add_raw_keys(start, start + n, start + n);
    }

    fn add_lrsa(&mut self, lrsa: &Lrsa, start: usize, n: usize, group: usize) {
        let (sink, lag, kept) = (lrsa.sink().min(n), lrsa.lag(), lrsa.kept());
        let end = start + n;
        let packed_start = self.pairs.len() * kept;
        let partition = |p: usize| (start + sink + p * lag).min(end);
        self.add_queries(
            start,
            start + sink,
            group,
            QueryTile { window: start as u32, ..bytemuck::Zeroable::zeroed() },
        );
        self.add_raw_keys(start, start + sink, end);
        for p in 0..(n - sink).div_ceil(lag) {
            let before = p.saturating_sub(1);
            let tile = QueryTile {
                sink: start as u32,
                n_sink: sink as u32,
                packed: packed_start as u32,
                n_packed: (before * kept) as u32,
                window: partition(before) as u32,
                ..bytemuck::Zeroable::zeroed()
            };
            self.add_queries(partition(p), partition(p + 1), group, tile);
            self.add_raw_keys(partition(p), partition(p + 1), partition(p + 2));
        }
        let n_pairs = lrsa.partitions(n).saturating_sub(1);
        let at_once = (LANES / kept).max(1); // partitions of a tile
        for p in (0..n_pairs).step_by(at_once) {
            let n_keys = at_once.min(n_pairs - p) * kept;
            for i in (0..n_keys).step_by(LANES) {
                self.packed_tiles.push(KeyTile {
                    key: (packed_start + p * kept + i) as u32,
                    n_keys: LANES.min(n_keys - i) as u32,
                    query: partition(p + 2) as u32,
                    query_end: end as u32,
                    run: kept.min(LANES) as u32,
                    step: lrsa.lag() as u32,
                });
            }
        }
        for p in 0..n_pairs {
            self.pairs.push([partition(p) as u32, partition(p + 1) as u32]);
        }
    }
}

/// The tables of one batch on a device, shared by all layers.
#[derive(Clone, Debug)]
pub struct TrainingLayout {
    /// Which attention.
    pub attention: Attention,
    /// Tokens of the batch.
    pub n_tokens: usize,
    pub(super) heads: Heads,
    pub(super) tables: Tables,
    pub(super) query_tiles: Span,
    pub(super) raw_tiles: Span,
    pub(super) packed_tiles: Option<Span>,
    pub(super) pairs: Option<Span>,
}

impl TrainingLayout {
    /// Makes and uploads the tables for sequences (first row, length) that follow one another.
    pub fn upload(
        device: &mut dyn Executor,
        attention: Attention,
        heads: Heads,
        sequences: &[(usize, usize)],
    ) -> Result<Self> {
        let n_tokens: usize = sequences.iter().map(|s| s.1).sum();
        if n_tokens == 0 || sequences.iter().any(|s| s.1 == 0) {
            return Err(Error::new("a batch has at least one token in every sequence; remove empty examples"));
        }
        if let Attention::Lrsa(l) = attention
            && l.selection() != Selection::Scored
        {
            return Err(Error::new(format!("{attention} is a control for generation: nothing trains with it")));
        }
        if n_tokens >= 1 << 20 {
            return Err(Error::new(format!(
                "a batch of {n_tokens} tokens is too large (at most {}): use shorter sequences",
                (1 << 20) - 1
            )));
        }
        let tables = Tables::new(attention, sequences, heads.group());
        let n_tiles = tables.query_tiles.len().max(tables.raw_tiles.len()).max(tables.packed_tiles.len());
        if n_tiles > MAX_TILES {
            return Err(Error::new(format!(
                "{attention} cuts {n_tokens} tokens into {n_tiles} tiles, more than the {MAX_TILES} of one dispatch: use a larger \
                 `lag`, or shorter sequences"
            )));
        }
        let mut table = |label: &str, words: &[u32]| upload_words(device, label, words);
        let query_tiles = table("query tiles", bytemuck::cast_slice(&tables.query_tiles))?;
        let raw_tiles = table("key tiles", bytemuck::cast_slice(&tables.raw_tiles))?;
        let (mut packed_tiles, mut pairs) = (None, None);
        if !tables.pairs.is_empty() {
            packed_tiles = Some(table("packed key tiles", bytemuck::cast_slice(&tables.packed_tiles))?);
            pairs = Some(table("partition pairs", bytemuck::cast_slice(&tables.pairs))?);
        }
        Ok(Self { attention, n_tokens, heads, tables, query_tiles, raw_tiles, packed_tiles, pairs })
    }

    /// Partitions that are scored, over all sequences.
    pub fn n_pairs(&self) -> usize {
        self.tables.pairs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether query t sees key j by the plain definition, `kept` standing for the selection.
    fn sees(lrsa: &Lrsa, t: usize, j: usize, kept: impl Fn(usize) -> bool) -> bool {
        let part = |x: usize| if x < lrsa.sink() { -1 } else { ((x - lrsa.sink()) / lrsa.lag()) as i64 };
        j <= t && (j < lrsa.sink() || part(j) >= part(t) - 1 || kept(j))
    }

    #[test]
    fn tiles_say_what_the_definition_says() {
        let lrsa = Lrsa::new(3, 5, 0.4).unwrap();
        let keeps = |j: usize| j >= 3 && (j - 3) % 5 < 2; // any fixed choice of K = 2 a partition
        for n in [1, 2, 3, 4, 8, 13, 14, 18, 29, 40] {
            let tables = Tables::new(Attention::Lrsa(lrsa), &[(0, 7), (7, n)], 2);
            let packed_start: usize = (7 - 3) / 5;
            assert_eq!(packed_start, 0, "the first sequence packs nothing");
            let mut covered = 0;
            for tile in tables.query_tiles.iter().filter(|t| t.query >= 7) {
                for i in 0..tile.n_queries {
                    let t = (tile.query + i) as usize - 7;
                    covered += 1;
                    let mut seen: Vec<usize> = (tile.sink..tile.sink + tile.n_sink).map(|x| x as usize - 7).collect();
                    seen.extend(
                        (tile.packed..tile.packed + tile.n_packed).map(|x| 3 + x as usize / 2 * 5 + x as usize % 2),
                    );
                    seen.extend((tile.window..tile.window + tile.n_window + i).map(|x| x as usize - 7));
                    let expected: Vec<usize> = (0..n).filter(|&j| sees(&lrsa, t, j, keeps)).collect();
                    assert_eq!(seen, expected, "n {n} query {t}");
                }
            }
            assert_eq!(covered, n);
        }
    }

    #[test]
    fn key_tiles_mirror_query_tiles() {
        let lrsa = Lrsa::new(4, 70, 0.3).unwrap();
        let tables = Tables::new(Attention::Lrsa(lrsa), &[(0, 400), (400, 1), (401, 300)], 3);
        let mut raw = std::collections::HashSet::new();
        let mut packed = std::collections::HashSet::new();
        for t in &tables.query_tiles {
            for q in 0..t.n_queries {
                raw.extend(
                    (t.sink..t.sink + t.n_sink).chain(t.window..t.window + t.n_window + q).map(|k| (t.query + q, k)),
                );
                packed.extend((t.packed..t.packed + t.n_packed).map(|k| (t.query + q, k)));
            }
        }
        let mirror = |tiles: &[KeyTile]| {
            let mut pairs = std::collections::HashSet::new();
            for t in tiles {
                for k in 0..t.n_keys {
                    let first = t.query + k / t.run * t.step;
                    pairs.extend((first..t.query_end).map(|q| (q, t.key + k)));
                }
            }
            pairs
        };
        assert_eq!(mirror(&tables.raw_tiles), raw);
        assert_eq!(mirror(&tables.packed_tiles), packed);
    }
}
