//! Tables of the keys that the queries of one chunk of a streamed sequence see.
//!
//! The queries read two buffers. `recent` holds the chunk's own pairs behind the last pairs of
//! earlier chunks (the history): the partition before the chunk, or what a sliding window still
//! reaches. `kept` holds what all later queries see: the sink and the selected pairs, or in dense
//! attention all pairs of earlier chunks. The tables are those of `layout.rs`, and at a sequence of
//! one chunk they say the same.

use super::layout::Tables;
use super::tiles::{KeyTile, LANES, QueryTile, UNLIMITED};
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
        let tables = Tables { history, ..Tables::default() };
        Self { tables, n_seen: 0, selected_row: 0, moved: None, tail: 0 }
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
        chunk.tables.add_queries(0, n, group, tile);
        chunk.tables.add_recent_keys(0, n, n);
        chunk.add_older(start, 0, n);
        chunk.n_seen = start;
        chunk.moved = (!place.is_last()).then_some(Moved { from: 0, to: start, n });
        chunk
    }

    fn window(window: usize, place: Place, group: usize) -> Self {
        let Place { start, n, .. } = place;
        let mut chunk = Self::of((window - 1).min(start));
        chunk.tables.add_window(window, 0, n, group);
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
        let history = chunk.tables.history;
        let recent_row = |position: usize| position + history - start;
        let first = start.saturating_sub(sink) / lag;
        // The first partition whose pairs this chunk holds in full: that of the history, if any.
        let held = first.saturating_sub(1);
        let older = sink + held * kept;
        let tile = QueryTile { width: UNLIMITED, ..bytemuck::Zeroable::zeroed() };
        let partitions = first..(end - sink).div_ceil(lag);
        chunk.selected_row = older;
        for p in held..l.partitions(end).saturating_sub(1) {
            chunk.tables.pairs.push([p, p + 1].map(|p| recent_row(partition(p)) as u32));
        }
        if start == 0 {
            chunk.tables.add_queries(0, sink, group, tile);
            chunk.tables.add_recent_keys(0, sink, sink);
            chunk.moved = (sink > 0 && end > sink).then_some(Moved { from: 0, to: 0, n: sink });
        }
        for p in partitions.clone() {
            let before = p.saturating_sub(1);
            let n_kept = (sink + before * kept) as u32;
            let tile = QueryTile { n_kept, recent: recent_row(partition(before)) as u32, ..tile };
            chunk.tables.add_queries(partition(p) - start, partition(p + 1) - start, group, tile);
        }
        for p in held..partitions.end {
            let [first, end] = [p, p + 1].map(|p| recent_row(partition(p)));
            chunk.tables.add_recent_keys(first, end, partition(p + 2) - start);
        }
        if end > sink {
            chunk.add_older(older, partition(first) - start, n);
            chunk.n_seen = older;
        }
        let n_visible = partitions.end.saturating_sub(2).saturating_sub(held);
        chunk.tables.add_kept_keys(l, older, n_visible, |p| partition(held + p + 2) - start, n);
        chunk.n_seen += n_visible * kept;
        chunk.tail = if place.is_last() { 0 } else { lag };
        chunk
    }
}
