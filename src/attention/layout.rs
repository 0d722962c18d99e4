//! Tile tables for a training batch: which queries see which keys.
//!
//! The host builds them. A query tile is a run of queries of one partition. All of its queries read
//! the same three runs of keys: the sink, a prefix of the kept keys, and the window from the start
//! of the previous partition to the query itself. Dense attention and sliding windows use the
//! window run alone. A key tile is the transpose: a run of keys and the queries that see them.
//! There is no n×n matrix and no mask. Layers with the same attention share their tables.

use super::config::kinds_of;
use super::tile_table::{Bound, TileTable};
use super::tiles::{KeyTile, LANES, QueryTile, UNLIMITED, width_of};
use super::{Attention, Heads, LayerAttention, Lrsa};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Executor, Span, upload_words};
use crate::params;

/// The `ring` of buffers that do not wrap.
pub(super) const NO_RING: u32 = u32::MAX;

params! {
    /// Parameters of `attend/forward` and `attend/backward_query`.
    pub struct TileParams { n_heads: u32, n_kv_heads: u32, ring: u32, scale: f32 }
}

/// Workgroups per grid axis that WebGPU guarantees.
const MAX_TILES: usize = 65_535;

/// Queries per tile, for `group` query heads per KV head.
pub(super) fn queries_of_tile(group: usize) -> usize {
    (LANES / group).max(1)
}

/// The tables of one batch, on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) query_tiles: Vec<QueryTile>,
    pub(super) recent_tiles: Vec<KeyTile>,
    pub(super) kept_tiles: Vec<KeyTile>,
    /// First rows of each scored partition and of its successor.
    pub(super) pairs: Vec<[u32; 2]>,
    /// Rows of the recent buffer before those of the queries' own keys: 0 in a batch, and in a chunk
    /// of a streamed sequence the pairs of earlier chunks.
    pub(super) history: usize,
}

impl Tables {
    /// Tables for consecutive sequences (first row, length) without gaps.
    pub(super) fn new(attention: LayerAttention, sequences: &[(usize, usize)], group: usize) -> Self {
        let mut tables = Tables::default();
        let mut next = 0;
        for &(start, n) in sequences {
            assert_eq!(start, next, "sequences follow one another");
            next += n;
            match attention {
                LayerAttention::Full(Attention::Dense) => tables.add_window(usize::MAX, start, n, group),
                LayerAttention::Full(Attention::Lrsa(lrsa)) => tables.add_lrsa(&lrsa, start, n, group),
                LayerAttention::Window(window) => tables.add_window(window, start, n, group),
            }
        }
        tables
    }

    /// Fails if a table has more tiles than a dispatch has workgroups.
    pub(super) fn check_size(&self, attention: LayerAttention, n_tokens: usize) -> Result<()> {
        let n_tiles = self.query_tiles.len().max(self.recent_tiles.len()).max(self.kept_tiles.len());
        if n_tiles > MAX_TILES {
            return Err(Error::of_kind(
                ErrorKind::OutOfMemory,
                format!(
                    "{attention} cuts {n_tokens} tokens into {n_tiles} tiles, more than the {MAX_TILES} of one dispatch: \
                     use `chunk`, a larger `lag` or shorter sequences"
                ),
            ));
        }
        Ok(())
    }

    /// Adds the queries of these rows. `tile` names the keys of the first one.
    pub(super) fn add_queries(&mut self, first: usize, end: usize, group: usize, tile: QueryTile) {
        let step = queries_of_tile(group);
        for q in (first..end).step_by(step) {
            let n_recent = (self.history + q + 1) as u32 - tile.recent;
            self.query_tiles.push(QueryTile { query: q as u32, n_queries: step.min(end - q) as u32, n_recent, ..tile });
        }
    }

    /// Adds these rows of the recent buffer as keys that the queries before `query_end` see.
    pub(super) fn add_recent_keys(&mut self, first: usize, end: usize, query_end: usize) {
        for key in (first..end).step_by(LANES) {
            self.push_recent(key, LANES.min(end - key), query_end, UNLIMITED);
        }
    }

    fn push_recent(&mut self, key: usize, n_keys: usize, query_end: usize, width: u32) {
        self.recent_tiles.push(KeyTile {
            key: key as u32,
            n_keys: n_keys as u32,
            query: key.saturating_sub(self.history) as u32,
            before: self.history.saturating_sub(key) as u32,
            query_end: query_end as u32,
            run: 1,
            step: 1,
            width,
        });
    }

    /// Adds queries that see the last `window` keys, their own included.
    pub(super) fn add_window(&mut self, window: usize, start: usize, n: usize, group: usize) {
        let (end, history, width) = (start + n, self.history, width_of(window));
        let step = queries_of_tile(group);
        for q in (start..end).step_by(step) {
            let n_recent = (history + q + 1 - start).min(window);
            self.query_tiles.push(QueryTile {
                query: q as u32,
                n_queries: step.min(end - q) as u32,
                recent: (history + q + 1 - n_recent) as u32,
                n_recent: n_recent as u32,
                width,
                ..bytemuck::Zeroable::zeroed()
            });
        }
        for key in (start..history + end).step_by(LANES) {
            let n_keys = LANES.min(history + end - key);
            let query_end = (key + n_keys - 1).saturating_add(window).saturating_sub(history).min(end);
            self.push_recent(key, n_keys, query_end, width);
        }
    }

    /// Adds the kept keys of `n` partitions, from kept row `row` on. `query` gives the first query that
    /// sees a partition; consecutive ones are a lag apart.
    pub(super) fn add_kept_keys(
        &mut self,
        lrsa: &Lrsa,
        row: usize,
        n: usize,
        query: impl Fn(usize) -> usize,
        query_end: usize,
    ) {
        let kept = lrsa.kept();
        let at_once = (LANES / kept).max(1); // partitions per tile
        for p in (0..n).step_by(at_once) {
            let n_keys = at_once.min(n - p) * kept;
            for i in (0..n_keys).step_by(LANES) {
                self.kept_tiles.push(KeyTile {
                    key: (row + p * kept + i) as u32,
                    n_keys: LANES.min(n_keys - i) as u32,
                    query: query(p) as u32,
                    before: 0,
                    query_end: query_end as u32,
                    run: kept.min(LANES) as u32,
                    step: lrsa.lag() as u32,
                    width: UNLIMITED,
                });
            }
        }
    }

    fn add_lrsa(&mut self, lrsa: &Lrsa, start: usize, n: usize, group: usize) {
        let (sink, lag, kept) = (lrsa.sink().min(n), lrsa.lag(), lrsa.kept());
        let end = start + n;
        let kept_start = self.pairs.len() * kept;
        let partition = |p: usize| (start + sink + p * lag).min(end);
        self.add_queries(
            start,
            start + sink,
            group,
            QueryTile { recent: start as u32, width: UNLIMITED, ..bytemuck::Zeroable::zeroed() },
        );
        self.add_recent_keys(start, start + sink, end);
        for p in 0..(n - sink).div_ceil(lag) {
            let before = p.saturating_sub(1);
            let tile = QueryTile {
                sink: start as u32,
                n_sink: sink as u32,
                kept: kept_start as u32,
                n_kept: (before * kept) as u32,
                recent: partition(before) as u32,
                width: UNLIMITED,
                ..bytemuck::Zeroable::zeroed()
            };
            self.add_queries(partition(p), partition(p + 1), group, tile);
            self.add_recent_keys(partition(p), partition(p + 1), partition(p + 2));
        }
        let n_pairs = lrsa.partitions(n).saturating_sub(1);
        self.add_kept_keys(lrsa, kept_start, n_pairs, |p| partition(p + 2), end);
        for p in 0..n_pairs {
            self.pairs.push([partition(p) as u32, partition(p + 1) as u32]);
        }
    }
}

/// The tables of one batch on a device, for layers with the same attention.
#[derive(Clone, Debug)]
pub struct TrainingLayout {
    /// The attention of these layers.
    pub attention: LayerAttention,
    /// Tokens in the batch.
    pub n_tokens: usize,
    pub(super) heads: Heads,
    pub(super) tables: Tables,
    pub(super) query_tiles: TileTable,
    pub(super) recent_tiles: TileTable,
    pub(super) kept_tiles: Option<TileTable>,
    pub(super) pairs: Option<Span>,
}

impl TrainingLayout {
    /// Builds and uploads the tables for consecutive sequences (first row, length).
    pub fn upload(
        device: &mut dyn Executor,
        attention: impl Into<LayerAttention>,
        heads: Heads,
        sequences: &[(usize, usize)],
    ) -> Result<Self> {
        let bound = Bound::of(&device.limits());
        Self::upload_within(device, attention.into(), heads, sequences, bound)
    }

    /// [`TrainingLayout::upload`] with tables cut into slices within a bound.
    pub(super) fn upload_within(
        device: &mut dyn Executor,
        attention: LayerAttention,
        heads: Heads,
        sequences: &[(usize, usize)],
        bound: Bound,
    ) -> Result<Self> {
        let n_tokens: usize = sequences.iter().map(|s| s.1).sum();
        if n_tokens == 0 || sequences.iter().any(|s| s.1 == 0) {
            return Err(Error::new("a batch has at least one token in every sequence; remove empty examples"));
        }
        attention.check_trainable()?;
        if n_tokens >= 1 << 20 {
            return Err(Error::of_kind(
                ErrorKind::OutOfMemory,
                format!(
                    "a batch of {n_tokens} tokens is too large (at most {}): use `chunk` or shorter sequences",
                    (1 << 20) - 1
                ),
            ));
        }
        let tables = Tables::new(attention, sequences, heads.group());
        tables.check_size(attention, n_tokens)?;
        let query_tiles = TileTable::upload(device, "query tiles", &tables.query_tiles, heads, bound)?;
        let recent_tiles = TileTable::upload(device, "key tiles", &tables.recent_tiles, heads, bound)?;
        let (mut kept_tiles, mut pairs) = (None, None);
        if !tables.pairs.is_empty() {
            kept_tiles = Some(TileTable::upload(device, "kept key tiles", &tables.kept_tiles, heads, bound)?);
            pairs = Some(upload_words(device, "partition pairs", bytemuck::cast_slice(&tables.pairs))?);
        }
        Ok(Self { attention, n_tokens, heads, tables, query_tiles, recent_tiles, kept_tiles, pairs })
    }

    /// Number of scored partitions, over all sequences.
    pub fn n_pairs(&self) -> usize {
        self.tables.pairs.len()
    }
}

/// The tables of one batch for all layers of a model.
#[derive(Clone, Debug)]
pub struct TrainingLayouts {
    layouts: Vec<TrainingLayout>,
    kind_of: Vec<usize>,
}

impl TrainingLayouts {
    /// Builds and uploads the tables of each kind of attention among the layers.
    pub fn upload(
        device: &mut dyn Executor,
        layers: &[LayerAttention],
        heads: Heads,
        sequences: &[(usize, usize)],
    ) -> Result<Self> {
        let (kinds, kind_of) = kinds_of(layers);
        let upload = |kind| TrainingLayout::upload(device, kind, heads, sequences);
        Ok(Self { layouts: kinds.into_iter().map(upload).collect::<Result<_>>()?, kind_of })
    }

    /// The tables of a layer.
    pub fn of(&self, layer: usize) -> &TrainingLayout {
        &self.layouts[self.kind_of[layer]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether query t sees key j by the definition of LRSA; `kept` stands for the selection.
    fn sees(lrsa: &Lrsa, t: usize, j: usize, kept: impl Fn(usize) -> bool) -> bool {
        let part = |x: usize| if x < lrsa.sink() { -1 } else { ((x - lrsa.sink()) / lrsa.lag()) as i64 };
        j <= t && (j < lrsa.sink() || part(j) >= part(t) - 1 || kept(j))
    }

    #[test]
    fn tiles_say_what_the_definition_says() {
        let lrsa = Lrsa::new(3, 5, 0.4).unwrap();
        let keeps = |j: usize| j >= 3 && (j - 3) % 5 < 2; // any fixed choice of K = 2 per partition
        for n in [1, 2, 3, 4, 8, 13, 14, 18, 29, 40] {
            let tables = Tables::new(Attention::Lrsa(lrsa).into(), &[(0, 7), (7, n)], 2);
            let kept_start: usize = (7 - 3) / 5;
            assert_eq!(kept_start, 0, "the first sequence keeps nothing");
            let mut covered = 0;
            for tile in tables.query_tiles.iter().filter(|t| t.query >= 7) {
                for i in 0..tile.n_queries {
                    let t = (tile.query + i) as usize - 7;
                    covered += 1;
                    let mut seen: Vec<usize> = (tile.sink..tile.sink + tile.n_sink).map(|x| x as usize - 7).collect();
                    seen.extend((tile.kept..tile.kept + tile.n_kept).map(|x| 3 + x as usize / 2 * 5 + x as usize % 2));
                    seen.extend((tile.recent..tile.recent + tile.n_recent + i).map(|x| x as usize - 7));
                    let expected: Vec<usize> = (0..n).filter(|&j| sees(&lrsa, t, j, keeps)).collect();
                    assert_eq!(seen, expected, "n {n} query {t}");
                }
            }
            assert_eq!(covered, n);
        }
    }

    #[test]
    fn key_tiles_mirror_query_tiles() {
        let full = Attention::Lrsa(Lrsa::new(4, 70, 0.3).unwrap());
        let windows = [1, 7, 64, 100, 1000].map(LayerAttention::Window);
        for attention in [full.into(), Attention::Dense.into()].into_iter().chain(windows) {
            check_mirror(&Tables::new(attention, &[(0, 400), (400, 1), (401, 300)], 3));
        }
    }

    #[test]
    fn a_window_ends_with_its_query() {
        for (window, group) in [(1, 1), (5, 3), (40, 2), (64, 1), (65, 1), (500, 4)] {
            let tables = Tables::new(LayerAttention::Window(window), &[(0, 9), (9, 200), (209, 1)], group);
            let mut seen = std::collections::BTreeMap::new();
            for tile in &tables.query_tiles {
                for i in 0..tile.n_queries {
                    let (hidden, end) = tile.hidden_and_end(i as usize);
                    let run = tile.recent as usize;
                    seen.insert((tile.query + i) as usize, run + hidden.end..run + end);
                }
            }
            let first = |t: usize| {
                if t < 9 {
                    0
                } else if t < 209 {
                    9
                } else {
                    209
                }
            };
            let expected = (0..210).map(|t| (t, first(t).max((t + 1).saturating_sub(window))..t + 1));
            assert!(seen.into_iter().eq(expected), "window {window}, group {group}");
        }
    }

    fn check_mirror(tables: &Tables) {
        let mut recent = std::collections::HashSet::new();
        let mut kept = std::collections::HashSet::new();
        for t in &tables.query_tiles {
            for q in 0..t.n_queries {
                let hidden = t.hidden_and_end(q as usize).0.len() as u32;
                let window = t.recent + hidden..t.recent + t.n_recent + q;
                recent.extend((t.sink..t.sink + t.n_sink).chain(window).map(|k| (t.query + q, k)));
                kept.extend((t.kept..t.kept + t.n_kept).map(|k| (t.query + q, k)));
            }
        }
        let mirror = |tiles: &[KeyTile]| {
            let mut pairs = std::collections::HashSet::new();
            for t in tiles {
                for k in 0..t.n_keys {
                    let first = t.query + k / t.run * t.step;
                    let seeing = first..t.query_end.min(first + t.width);
                    let of_reference = |q: &u32| t.seen_by((q - t.query) as usize).contains(&(k as usize));
                    assert!(seeing.clone().eq((t.query..t.query_end).filter(of_reference)), "key {k} of {t:?}");
                    pairs.extend(seeing.map(|q| (q, t.key + k)));
                }
            }
            pairs
        };
        assert_eq!(mirror(&tables.recent_tiles), recent);
        assert_eq!(mirror(&tables.kept_tiles), kept);
        let of_queries: u64 = tables.query_tiles.iter().map(QueryTile::n_pairs).sum();
        let of_keys: u64 = tables.recent_tiles.iter().chain(&tables.kept_tiles).map(KeyTile::n_pairs).sum();
        assert_eq!((of_queries, of_keys), ((recent.len() + kept.len()) as u64, (recent.len() + kept.len()) as u64));
    }
}
