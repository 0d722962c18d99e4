//! What the queries of one chunk of a streamed sequence see, for one kind of layer.
//!
//! The queries read two buffers. `recent` holds the chunk's own pairs behind the last pairs of
//! earlier chunks (the history): the partition before the chunk, or what a sliding window still
//! reaches. `kept` holds what all later queries see: the sink and the selected pairs, or in dense
//! attention all pairs of earlier chunks. The tables are those of `layout.rs`, and at a sequence of
//! one chunk they say the same.

use super::layout::{Tables, queries_of_tile};
use super::tiles::{KeyTile, LANES, QueryTile, UNLIMITED, width_of};
use super::{Attention, LayerAttention, Lrsa};

/// Rows to copy: from the recent buffer to the kept one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) n: usize,
}

/// A chunk as one kind of layer sees it.
#[derive(Clone, Debug)]
pub(super) struct ChunkTables {
    /// Rows of the recent buffer before the chunk's own.
    pub(super) history: usize,
    /// Tiles whose queries are rows of the chunk and whose keys are rows of the two buffers, and
    /// the first recent rows of the partitions that the chunk scores and of their successors.
    pub(super) tables: Tables,
    /// Kept rows that queries of the chunk see: the first ones.
    pub(super) n_seen: usize,
    /// First kept row of the pairs that the chunk selects.
    pub(super) selected_row: usize,
    /// Pairs that later queries see without selection: the sink, or all pairs of a dense chunk.
    pub(super) moved: Option<Moved>,
    /// Last rows of the chunk that later chunks read as their history.
    pub(super) tail: usize,
}

/// The chunk start..start + n of a sequence of `total` tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) total: usize,
    pub(super) start: usize,
    pub(super) n: usize,
}

impl Place {
    fn end(&self) -> usize {
        self.start + self.n
    }

    fn is_last(&self) -> bool {
        self.end() == self.total
    }
}

impl ChunkTables {
    /// The tables of a chunk. With LRSA it starts and ends at the ends of partitions, but for the
    /// first token and the last one of the sequence.
    pub(super) fn new(attention: LayerAttention, place: Place, group: usize) -> Self {
        match attention {
            LayerAttention::Full(Attention::Dense) => Self::dense(place, group),
            LayerAttention::Full(Attention::Lrsa(l)) => Self::lrsa(&l, place, group),
            LayerAttention::Window(window) => Self::window(window, place, group),
        }
    }

    fn of(history: usize) -> Self {
        Self { history, tables: Tables::default(), n_seen: 0, selected_row: 0, moved: None, tail: 0 }
    }

    /// Adds the queries of these rows of the chunk. `tile` names the keys of the first one.
    fn add_queries(&mut self, first: usize, end: usize, group: usize, tile: QueryTile) {
        let step = queries_of_tile(group);
        for q in (first..end).step_by(step) {
            let n_recent = (self.history + q + 1) as u32 - tile.recent;
            let n_queries = step.min(end - q) as u32;
            self.tables.query_tiles.push(QueryTile { query: q as u32, n_queries, n_recent, ..tile });
        }
    }

    /// Adds these rows of the recent buffer as keys that the queries before `query_end` see.
    fn add_recent(&mut self, first: usize, end: usize, query_end: usize) {
        for key in (first..end).step_by(LANES) {
            self.push_recent(key, LANES.min(end - key), query_end, UNLIMITED);
        }
    }

    fn push_recent(&mut self, key: usize, n_keys: usize, query_end: usize, width: u32) {
        self.tables.recent_tiles.push(KeyTile {
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

    /// Adds the first `n` kept rows as keys that all queries from `query` on see.
    fn add_older(&mut self, n: usize, query: usize, query_end: usize) {
        for key in (0..n).step_by(LANES) {
            self.tables.kept_tiles.push(KeyTile {
                key: key as u32,
                n_keys: LANES.min(n - key) as u32,
                query: query as u32,
                before: 0,
                query_end: query_end as u32,
                run: LANES as u32,
                step: 1,
                width: UNLIMITED,
            });
        }
    }

    fn dense(place: Place, group: usize) -> Self {
        let Place { start, n, .. } = place;
        let mut chunk = Self::of(0);
        let tile = QueryTile { n_kept: start as u32, width: UNLIMITED, ..bytemuck::Zeroable::zeroed() };
        chunk.add_queries(0, n, group, tile);
        chunk.add_recent(0, n, n);
        chunk.add_older(start, 0, n);
        chunk.n_seen = start;
        chunk.moved = (!place.is_last()).then_some(Moved { from: 0, to: start, n });
        chunk
    }

    fn window(window: usize, place: Place, group: usize) -> Self {
        let Place { start, n, .. } = place;
        let mut chunk = Self::of((window - 1).min(start));
        let (history, width) = (chunk.history, width_of(window));
        let step = queries_of_tile(group);
        for q in (0..n).step_by(step) {
            let n_recent = (history + q + 1).min(window);
            chunk.tables.query_tiles.push(QueryTile {
                query: q as u32,
                n_queries: step.min(n - q) as u32,
                recent: (history + q + 1 - n_recent) as u32,
                n_recent: n_recent as u32,
                width,
                ..bytemuck::Zeroable::zeroed()
            });
        }
        for key in (0..history + n).step_by(LANES) {
            let n_keys = LANES.min(history + n - key);
            let seen_until = (key + n_keys - 1).saturating_add(window).saturating_sub(history);
            chunk.push_recent(key, n_keys, seen_until.min(n), width);
        }
        chunk.tail = if place.is_last() { 0 } else { n.min(window - 1) };
        chunk
    }

    fn lrsa(l: &Lrsa, place: Place, group: usize) -> Self {
        let Place { total, start, n } = place;
        let (sink, lag, kept, end) = (l.sink().min(total), l.lag(), l.kept(), place.end());
        let mut chunk = Self::of(if start == 0 { 0 } else { lag });
        assert!(start == 0 || (start - sink).is_multiple_of(lag), "a chunk starts with a partition");
        assert!(place.is_last() || (end - sink).is_multiple_of(lag), "a chunk ends with a partition");
        let partition = |p: usize| (sink + p * lag).min(end);
        let recent_row = |position: usize| position + chunk.history - start;
        let first = start.saturating_sub(sink) / lag;
        // The first partition whose pairs this chunk holds in full: that of the history, if any.
        let held = first.saturating_sub(1);
        let older = sink + held * kept;
        let tile = QueryTile { width: UNLIMITED, ..bytemuck::Zeroable::zeroed() };
        let partitions = first..(end - sink).div_ceil(lag);
        let tiles: Vec<QueryTile> = partitions
            .clone()
            .map(|p| {
                let before = p.saturating_sub(1);
                let n_kept = (sink + before * kept) as u32;
                QueryTile { n_kept, recent: recent_row(partition(before)) as u32, ..tile }
            })
            .collect();
        chunk.selected_row = older;
        for p in held..l.partitions(end).saturating_sub(1) {
            chunk.tables.pairs.push([p, p + 1].map(|p| recent_row(partition(p)) as u32));
        }
        if start == 0 {
            chunk.add_queries(0, sink, group, tile);
            chunk.add_recent(0, sink, sink);
            chunk.moved = (sink > 0 && end > sink).then_some(Moved { from: 0, to: 0, n: sink });
        }
        for (p, tile) in partitions.clone().zip(tiles) {
            chunk.add_queries(partition(p) - start, partition(p + 1) - start, group, tile);
        }
        for p in held..partitions.end {
            let row = |p: usize| partition(p) + chunk.history - start;
            chunk.add_recent(row(p), row(p + 1), partition(p + 2) - start);
        }
        if end > sink {
            chunk.add_older(older, partition(first) - start, n);
            chunk.n_seen = older;
        }
        chunk.add_selected(l, older, (held..partitions.end.saturating_sub(2)).map(|p| partition(p + 2) - start), n);
        chunk.tail = if place.is_last() { 0 } else { lag };
        chunk
    }

    /// Adds the selected pairs of partitions that become visible within the chunk, from kept row
    /// `row` on. `visible` has the first query that sees each partition.
    fn add_selected(&mut self, l: &Lrsa, row: usize, visible: impl ExactSizeIterator<Item = usize> + Clone, n: usize) {
        let (kept, count) = (l.kept(), visible.len());
        let at_once = (LANES / kept).max(1); // partitions per tile
        for (p, query) in visible.enumerate().step_by(at_once) {
            let n_keys = at_once.min(count - p) * kept;
            for i in (0..n_keys).step_by(LANES) {
                self.tables.kept_tiles.push(KeyTile {
                    key: (row + p * kept + i) as u32,
                    n_keys: LANES.min(n_keys - i) as u32,
                    query: query as u32,
                    before: 0,
                    query_end: n as u32,
                    run: kept.min(LANES) as u32,
                    step: l.lag() as u32,
                    width: UNLIMITED,
                });
            }
        }
        self.n_seen += count * kept;
    }
}
