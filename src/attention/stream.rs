//! The pairs of one sequence while a training step streams through it, chunk by chunk.
//!
//! The forward passes of the chunks keep, per layer, what later queries see: the sink and the
//! selected pairs (all pairs in dense attention), the selected rows, and the last raw pairs of each
//! chunk, its tail. The backward passes run from the last chunk to the first. Each records its
//! chunk again with these pairs as inputs, and leaves their gradients for the chunks before it
//! (`attend_stream.rs`).

use std::ops::Range;

use super::chunk_tables::{ChunkTables, Place};
use super::config::kinds_of;
use super::tile_table::{Bound, TileTable};
use super::{Attention, Heads, LayerAttention, Lrsa};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Buffer, ELEMENT_ALIGNMENT, Executor, Kind, Recording, Span, upload_words};

/// Cuts a sequence of `total` tokens into chunks of about `chunk` tokens: whole partitions, with
/// the sink in the first one. Dense attention cuts anywhere. A sequence that fits gives one chunk.
pub fn chunks_of(attention: Attention, total: usize, chunk: usize) -> Vec<Range<usize>> {
    let (sink, unit) = match attention {
        Attention::Dense => (0, 1),
        Attention::Lrsa(l) => (l.sink().min(total), l.lag()),
    };
    let step = (chunk / unit).max(1) * unit;
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < total {
        let end = start.max(sink).saturating_add(step).min(total);
        chunks.push(start..end);
        start = end;
    }
    chunks
}

/// How the layers of one kind store pairs.
#[derive(Clone, Debug)]
struct StreamKind {
    attention: LayerAttention,
    /// The chunks, in order, as these layers see them.
    chunks: Vec<ChunkTables>,
    /// Kept rows of the whole sequence.
    kept_rows: usize,
    /// Rows of the tails of one chunk, and the number of chunks whose tail gradients live at once.
    slot_rows: usize,
    live_slots: usize,
    /// Words of the selected rows of one chunk.
    selected_words: usize,
}

/// Memory of one layer.
#[derive(Clone, Debug)]
struct StreamLayer {
    kind: usize,
    kept: Option<Span>,
    kept_gradient: Option<Span>,
    tails: Option<Buffer>,
    tail_gradients: Option<Buffer>,
    selected: Option<Buffer>,
}

/// The pairs of one sequence, for all layers.
#[derive(Debug)]
pub struct Stream {
    pub(super) heads: Heads,
    kinds: Vec<StreamKind>,
    layers: Vec<StreamLayer>,
    chunks: Vec<Range<usize>>,
}

/// A part of the history of a chunk: rows of an earlier chunk's tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HistoryPart {
    /// The earlier chunk.
    pub(super) chunk: usize,
    /// First row within its tail.
    pub(super) tail_row: usize,
    /// First row in the recent buffer of the later chunk.
    pub(super) row: usize,
    pub(super) n: usize,
}

/// The parts of the history of chunk `c`, the latest first.
fn history(chunks: &[ChunkTables], c: usize) -> Vec<HistoryPart> {
    let mut parts = Vec::new();
    let mut left = chunks[c].tables.history;
    for chunk in (0..c).rev() {
        if left == 0 {
            break;
        }
        let tail = chunks[chunk].tail;
        let n = tail.min(left);
        left -= n;
        parts.push(HistoryPart { chunk, tail_row: tail - n, row: left, n });
    }
    assert_eq!(left, 0, "the tails hold the history");
    parts
}

impl StreamKind {
    fn new(attention: LayerAttention, heads: Heads, ranges: &[Range<usize>]) -> Self {
        let total = ranges.last().map_or(0, |r| r.end);
        let tables =
            |r: &Range<usize>| ChunkTables::new(attention, Place { total, start: r.start, n: r.len() }, heads.group());
        let chunks: Vec<ChunkTables> = ranges.iter().map(tables).collect();
        let kept_rows = match attention {
            LayerAttention::Full(Attention::Dense) => ranges.last().map_or(0, |r| r.start),
            LayerAttention::Full(Attention::Lrsa(l)) => {
                l.sink().min(total) + l.partitions(total).saturating_sub(1) * l.kept()
            }
            LayerAttention::Window(_) => 0,
        };
        // A slot starts where a span can.
        let mut slot_rows = chunks.iter().map(|c| c.tail).max().unwrap_or(0);
        while !(slot_rows * heads.kv_cols()).is_multiple_of(ELEMENT_ALIGNMENT) {
            slot_rows += 1;
        }
        let reach = |c: usize| history(&chunks, c).last().map_or(0, |part| c - part.chunk);
        let live_slots = (0..chunks.len()).map(reach).max().unwrap_or(0) + 1;
        let pairs = chunks.iter().map(|c| c.tables.pairs.len()).max().unwrap_or(0);
        let kept = attention.lrsa().map_or(0, |l| l.kept());
        let selected_words = (pairs * heads.keys * kept).next_multiple_of(ELEMENT_ALIGNMENT);
        Self { attention, chunks, kept_rows, slot_rows, live_slots, selected_words }
    }
}

fn too_large(total: usize) -> Error {
    Error::of_kind(
        ErrorKind::OutOfMemory,
        format!(
            "the pairs of {total} tokens have more elements in a layer than this device binds at once: keep fewer with \
             `attention` lrsa and a smaller `keep`, or use `device` cpu or another GPU"
        ),
    )
}

impl Stream {
    /// The memory for one sequence, cut into `chunks` ([`chunks_of`]); with gradients if the
    /// backward passes will run. `max_elements` is the device's. Fails if a layer's pairs exceed it.
    pub fn new(
        layers: &[LayerAttention],
        heads: Heads,
        chunks: Vec<Range<usize>>,
        with_gradients: bool,
        max_elements: usize,
    ) -> Result<Self> {
        layers.iter().try_for_each(LayerAttention::check_trainable)?;
        let total = chunks.last().map_or(0, |r| r.end);
        let (kinds, kind_of) = kinds_of(layers);
        let kinds: Vec<StreamKind> = kinds.into_iter().map(|kind| StreamKind::new(kind, heads, &chunks)).collect();
        let buffer = |layer: usize, what: &str, rows: usize| -> Result<Option<Buffer>> {
            if rows == 0 {
                return Ok(None);
            }
            let len = rows.checked_mul(heads.kv_cols()).filter(|&len| len <= max_elements);
            let len = len.ok_or_else(|| too_large(total))?;
            Ok(Some(Buffer::persistent(format!("layer {layer} {what}"), Kind::Real, len)))
        };
        let n = chunks.len();
        let layer = |(i, kind): (usize, usize)| -> Result<StreamLayer> {
            let of = &kinds[kind];
            let gradient = |what, rows| if with_gradients { buffer(i, what, rows) } else { Ok(None) };
            let selected = of.selected_words > 0;
            Ok(StreamLayer {
                kind,
                kept: buffer(i, "kept pairs", of.kept_rows)?.map(|b| b.span()),
                kept_gradient: gradient("kept pair gradients", of.kept_rows)?.map(|b| b.span()),
                tails: buffer(i, "chunk tails", (n - 1) * of.slot_rows)?,
                tail_gradients: gradient("chunk tail gradients", of.live_slots.min(n - 1) * of.slot_rows)?,
                selected: selected
                    .then(|| Buffer::persistent(format!("layer {i} selected rows"), Kind::U32, n * of.selected_words)),
            })
        };
        let layers = kind_of.into_iter().enumerate().map(layer).collect::<Result<_>>()?;
        Ok(Self { heads, kinds, layers, chunks })
    }

    /// The token ranges of the chunks.
    pub fn chunks(&self) -> &[Range<usize>] {
        &self.chunks
    }

    /// All of its memory.
    pub fn spans(&self) -> Vec<Span> {
        let of = |layer: &StreamLayer| {
            let buffers = [&layer.tails, &layer.tail_gradients, &layer.selected];
            let whole = buffers.map(|buffer| buffer.as_ref().map(Buffer::span));
            [layer.kept.clone(), layer.kept_gradient.clone()].into_iter().chain(whole).flatten().collect::<Vec<_>>()
        };
        self.layers.iter().flat_map(of).collect()
    }

    /// Appends the clearing of all gradients, before the first backward pass.
    pub fn clear_gradients(&self, rec: &mut Recording) {
        for layer in &self.layers {
            layer.kept_gradient.iter().for_each(|gradients| rec.clear(gradients));
            layer.tail_gradients.iter().for_each(|gradients| rec.clear(&gradients.span()));
        }
    }

    /// The positions that a layer has selected, of partition after partition: [partitions, Hk, K].
    /// `None` if the layer selects nothing.
    pub fn selected(&self, device: &mut dyn Executor, layer: usize) -> Result<Option<Vec<u32>>> {
        let of = &self.kinds[self.layers[layer].kind];
        let mut positions = Vec::new();
        for (c, (tables, range)) in of.chunks.iter().zip(&self.chunks).enumerate() {
            let Some(rows) = self.selected_rows(layer, c) else { continue };
            let absolute = |row: u32| row + range.start as u32 - tables.tables.history as u32;
            positions.extend(device.read_words(&rows)?.into_iter().map(absolute));
        }
        Ok((!positions.is_empty()).then_some(positions))
    }

    /// Where the rows that a layer selects in a chunk are: [pairs, Hk, K].
    pub(super) fn selected_rows(&self, layer: usize, chunk: usize) -> Option<Span> {
        let StreamLayer { kind, selected, .. } = &self.layers[layer];
        let of = &self.kinds[*kind];
        let n = of.chunks[chunk].tables.pairs.len() * self.heads.keys * of.attention.lrsa()?.kept();
        (n > 0).then(|| selected.as_ref().expect("a layer that selects").slice(chunk * of.selected_words, n))
    }

    pub(super) fn lrsa(&self, layer: usize) -> Option<Lrsa> {
        self.kinds[self.layers[layer].kind].attention.lrsa()
    }

    pub(super) fn tables(&self, layer: usize, chunk: usize) -> &ChunkTables {
        &self.kinds[self.layers[layer].kind].chunks[chunk]
    }

    pub(super) fn history(&self, layer: usize, chunk: usize) -> Vec<HistoryPart> {
        history(&self.kinds[self.layers[layer].kind].chunks, chunk)
    }

    pub(super) fn kept(&self, layer: usize) -> Option<&Span> {
        self.layers[layer].kept.as_ref()
    }

    pub(super) fn kept_gradient(&self, layer: usize) -> Option<&Span> {
        self.layers[layer].kept_gradient.as_ref()
    }

    /// The slot with the tail of a chunk; rows beyond the tail's are undefined.
    pub(super) fn tail(&self, layer: usize, chunk: usize) -> Span {
        self.slot(layer, self.layers[layer].tails.as_ref(), chunk)
    }

    /// The gradient of the tail of a chunk. A slot holds the gradients of one chunk after another.
    pub(super) fn tail_gradient(&self, layer: usize, chunk: usize) -> Span {
        let buffer = self.layers[layer].tail_gradients.as_ref();
        let of = &self.kinds[self.layers[layer].kind];
        self.slot(layer, buffer, chunk % of.live_slots.min(self.chunks.len() - 1))
    }

    fn slot(&self, layer: usize, buffer: Option<&Buffer>, slot: usize) -> Span {
        let len = self.kinds[self.layers[layer].kind].slot_rows * self.heads.kv_cols();
        buffer.expect("only layers with tails read them").slice(slot * len, len)
    }
}

/// The tables of one chunk on a device.
#[derive(Clone, Debug)]
pub struct StreamChunk {
    /// Number of the chunk.
    pub(super) index: usize,
    /// Of each kind of layer.
    layouts: Vec<ChunkLayout>,
    kind_of: Vec<usize>,
}

/// The tables of one chunk on a device, for layers of one kind.
#[derive(Clone, Debug)]
pub(super) struct ChunkLayout {
    pub(super) query_tiles: TileTable,
    pub(super) recent_tiles: TileTable,
    pub(super) kept_tiles: Option<TileTable>,
    pub(super) pairs: Option<Span>,
}

impl StreamChunk {
    /// Uploads the tables of a chunk.
    pub fn upload(device: &mut dyn Executor, stream: &Stream, index: usize) -> Result<Self> {
        let (heads, bound) = (stream.heads, Bound::of(&device.limits()));
        let mut layout = |kind: &StreamKind| -> Result<ChunkLayout> {
            let tables = &kind.chunks[index].tables;
            tables.check_size(kind.attention, stream.chunks[index].len())?;
            let (mut kept_tiles, mut pairs) = (None, None);
            if !tables.kept_tiles.is_empty() {
                kept_tiles = Some(TileTable::upload(device, "kept key tiles", &tables.kept_tiles, heads, bound)?);
            }
            if !tables.pairs.is_empty() {
                pairs = Some(upload_words(device, "partition pairs", bytemuck::cast_slice(&tables.pairs))?);
            }
            Ok(ChunkLayout {
                kept_tiles,
                pairs,
                query_tiles: TileTable::upload(device, "query tiles", &tables.query_tiles, heads, bound)?,
                recent_tiles: TileTable::upload(device, "key tiles", &tables.recent_tiles, heads, bound)?,
            })
        };
        let layouts = stream.kinds.iter().map(&mut layout).collect::<Result<_>>()?;
        Ok(Self { index, layouts, kind_of: stream.layers.iter().map(|l| l.kind).collect() })
    }

    pub(super) fn layout(&self, layer: usize) -> &ChunkLayout {
        &self.layouts[self.kind_of[layer]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Selection;

    #[test]
    fn chunks_are_whole_partitions_and_the_first_has_the_sink() {
        let lrsa = |sink, lag| Attention::Lrsa(Lrsa::new(sink, lag, 0.5).unwrap());
        assert_eq!(chunks_of(lrsa(3, 10), 57, 25), [0..23, 23..43, 43..57]);
        assert_eq!(chunks_of(lrsa(30, 4), 50, 4), [0..34, 34..38, 38..42, 42..46, 46..50]);
        assert_eq!(chunks_of(lrsa(30, 4), 20, 4).len(), 1);
        assert_eq!(chunks_of(lrsa(3, 10), 23, 1), [0..13, 13..23]);
        assert_eq!(chunks_of(Attention::Dense, 5, 2), [0..2, 2..4, 4..5]);
        for chunk in [60, 100, usize::MAX] {
            assert_eq!(chunks_of(lrsa(3, 10), 57, chunk).len(), 1);
        }
    }

    #[test]
    fn controls_of_generation_do_not_train() {
        let lrsa = Lrsa::new(3, 10, 0.5).unwrap().with_selection(Selection::Random { seed: 1 });
        let heads = Heads { queries: 2, keys: 1, dim: 8 };
        let stream = Stream::new(&[Attention::Lrsa(lrsa).into()], heads, vec![0..13, 13..20], true, 1 << 20);
        assert!(stream.unwrap_err().to_string().contains("control"));
    }

    #[test]
    fn a_layer_beyond_the_bindings_of_a_device_is_refused() {
        let heads = Heads { queries: 2, keys: 1, dim: 8 };
        let stream = Stream::new(&[Attention::Dense.into()], heads, vec![0..1000, 1000..1400], true, 1 << 10);
        assert_eq!(stream.unwrap_err().kind(), ErrorKind::OutOfMemory);
    }
}
