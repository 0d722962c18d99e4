//! The attention of one chunk of a streamed sequence, and its gradient.
//!
//! The gradient has two parts beside that of the chunk's output. Later chunks have left the
//! gradients of the pairs that this chunk gave them, in the stream's buffers; the rule adds them.
//! And it leaves there the gradients of the pairs that this chunk took from earlier ones. All sums
//! run in the order of the chunks, so two runs give the same bits.

use std::rc::Rc;

use super::attend::forward;
use super::backward::Saved;
use super::chunk_tables::{ChunkTables, Place};
use super::layout::NO_RING;
use super::move_rows::{RowsAt, add_rows, copy_rows};
use super::score::Pairs;
use super::select;
use super::shared::Keys;
use super::stream::{Stream, StreamChunk};
use super::tile_table::{Bound, TileTable, laid_out};
use super::tiles::{KeyTile, QueryTile};
use super::{Attention, Heads, LayerAttention, Lrsa};
use crate::error::Result;
use crate::gpu::{Recording, Span};
use crate::kernels::case::{Case, Input, Tolerance, real};
use crate::kernels::op::{Applied, Op};
use crate::tensor::Tensor;

/// Whether a pass over a chunk is its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Selects, and stores what later chunks see.
    First,
    /// Reads what the first pass has stored.
    Again,
}

/// Attention of a chunk: q [n, H·d], kv [n, 2·Hk·d] → [n, H·d], and [1, 1] without a value.
///
/// The second output stands for the pairs that later chunks see. Seed its gradient with any tensor,
/// so that their gradients flow even if nothing else depends on the chunk. `scale` multiplies the
/// scores.
pub fn attend_streamed(
    rec: &mut Recording,
    q: &Tensor,
    kv: &Tensor,
    at: (&Rc<Stream>, &Rc<StreamChunk>, usize),
    scale: f32,
    pass: Pass,
) -> Result<Applied> {
    let (stream, chunk, layer) = at;
    let heads = stream.heads;
    assert_eq!((q.cols, kv.cols), (heads.queries * heads.dim, heads.kv_cols()), "columns of q and kv");
    let chunk = LayerChunk { stream: stream.clone(), chunk: chunk.clone(), layer };
    let recent = chunk.recent(rec, kv);
    if pass == Pass::First {
        chunk.store(rec, &recent);
    }
    let keys = chunk.keys(&recent, scale);
    let (out, lse) = forward(rec, q, &keys, heads);
    let carried = Tensor::transient(rec, "carried pairs", 1, 1);
    let op = AttendStreamed { q: q.clone(), recent, out: out.clone(), lse, chunk, scale };
    Ok((vec![out, carried], Box::new(op)))
}

/// A chunk in one layer.
struct LayerChunk {
    stream: Rc<Stream>,
    chunk: Rc<StreamChunk>,
    layer: usize,
}

fn rows(span: &Span, row: usize) -> RowsAt<'_> {
    RowsAt { span, row }
}

impl LayerChunk {
    fn kept(&self) -> Option<&Span> {
        self.stream.kept(self.layer)
    }

    /// The history and the chunk's own pairs.
    fn recent(&self, rec: &mut Recording, kv: &Tensor) -> Tensor {
        let Self { stream, layer, .. } = self;
        let index = self.chunk.index;
        let (history, cols) = (stream.tables(*layer, index).tables.history, kv.cols);
        if history == 0 {
            return kv.clone();
        }
        let recent = Tensor::transient(rec, "recent pairs", history + kv.rows, cols);
        for part in stream.history(*layer, index) {
            let tail = stream.tail(*layer, part.chunk);
            copy_rows(rec, rows(&tail, part.tail_row), rows(recent.span(), part.row), part.n, cols);
        }
        copy_rows(rec, rows(kv.span(), 0), rows(recent.span(), history), kv.rows, cols);
        recent
    }

    /// Selects and stores what later queries see.
    fn store(&self, rec: &mut Recording, recent: &Tensor) {
        let Self { stream, layer, .. } = self;
        let (index, cols) = (self.chunk.index, recent.cols);
        let tables = stream.tables(*layer, index);
        if let (Some(moved), Some(kept)) = (tables.moved, self.kept()) {
            copy_rows(rec, rows(recent.span(), moved.from), rows(kept, moved.to), moved.n, cols);
        }
        if let (Some(lrsa), Some(table), Some(kept)) =
            (stream.lrsa(*layer), &self.chunk.layout(*layer).pairs, self.kept())
        {
            let pairs = Pairs { lrsa: &lrsa, n: tables.tables.pairs.len(), table };
            let selected = select::select_pairs(rec, recent.span(), &pairs, stream.heads, NO_RING);
            select::gather(rec, recent.span(), &selected, kept, stream.heads, lrsa.kept(), tables.selected_row);
            rec.copy(&selected, &stream.selected_rows(*layer, index).expect("a chunk that selects"));
        }
        if tables.tail > 0 {
            let tail = stream.tail(*layer, index);
            copy_rows(rec, rows(recent.span(), recent.rows - tables.tail), rows(&tail, 0), tables.tail, cols);
        }
    }

    fn keys<'a>(&'a self, recent: &'a Tensor, scale: f32) -> Keys<'a> {
        let kept = self.kept().unwrap_or(recent.span());
        Keys { recent: recent.span(), kept, tiles: &self.chunk.layout(self.layer).query_tiles, ring: NO_RING, scale }
    }

    /// Adds the gradients that later chunks have left to `recent`, that of the recent buffer, and
    /// leaves those of earlier chunks' pairs. `own` has the gradients of the kept pairs that the
    /// chunk's queries see, as far as it sees any.
    fn pass_on(&self, rec: &mut Recording, recent: &Tensor, own: Option<&Tensor>) {
        let Self { stream, layer, .. } = self;
        let (index, cols, heads) = (self.chunk.index, recent.cols, stream.heads);
        let tables = stream.tables(*layer, index);
        if let Some(kept) = stream.kept_gradient(*layer) {
            if let Some(own) = own {
                add_rows(rec, rows(own.span(), 0), rows(kept, 0), own.rows, cols);
            }
            if let Some(moved) = tables.moved {
                add_rows(rec, rows(kept, moved.to), rows(recent.span(), moved.from), moved.n, cols);
            }
            if let (Some(lrsa), Some(selected)) = (stream.lrsa(*layer), stream.selected_rows(*layer, index)) {
                let n = tables.tables.pairs.len() * lrsa.kept();
                let selected_gradient = Tensor::transient(rec, "selected pair gradients", n, cols);
                let to = rows(selected_gradient.span(), 0);
                copy_rows(rec, rows(kept, tables.selected_row), to, n, cols);
                select::scatter(rec, selected_gradient.span(), &selected, recent.span(), heads, lrsa.kept());
            }
        }
        if tables.tail > 0 {
            let left = stream.tail_gradient(*layer, index);
            add_rows(rec, rows(&left, 0), rows(recent.span(), recent.rows - tables.tail), tables.tail, cols);
            rec.clear(&left); // for the earlier chunk that uses the slot next
        }
        for part in stream.history(*layer, index) {
            let left = stream.tail_gradient(*layer, part.chunk);
            add_rows(rec, rows(recent.span(), part.row), rows(&left, part.tail_row), part.n, cols);
        }
    }
}

struct AttendStreamed {
    q: Tensor,
    recent: Tensor,
    out: Tensor,
    lse: Span,
    chunk: LayerChunk,
    scale: f32,
}

impl Op for AttendStreamed {
    fn label(&self) -> &'static str {
        "attend/streamed"
    }

    fn backward(&self, rec: &mut Recording, grads: &[Tensor], need: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (chunk, layer) = (&self.chunk, self.chunk.layer);
        let heads = chunk.stream.heads;
        let tables = chunk.stream.tables(layer, chunk.chunk.index);
        let layout = chunk.chunk.layout(layer);
        let saved = Saved { q: &self.q, dout: &grads[0], heads, scale: self.scale };
        let stats = saved.stats(rec, &self.out, &self.lse);
        let dq = need[0].then(|| {
            let keys = chunk.keys(&self.recent, self.scale);
            saved.query_gradient(rec, &keys, &stats)
        });
        let dkv = need[1].then(|| {
            let recent = saved.key_gradient(rec, &self.recent, &layout.recent_tiles, &stats);
            let own = layout.kept_tiles.as_ref().map(|tiles| {
                let (n, cols) = (tables.n_seen, heads.kv_cols());
                let seen = chunk.kept().expect("tiles of kept keys").prefix(n * cols);
                let seen = Tensor::from_span(seen, n, cols);
                saved.key_gradient(rec, &seen, tiles, &stats)
            });
            chunk.pass_on(rec, &recent, own.as_ref());
            if tables.tables.history == 0 {
                return recent;
            }
            let dkv = Tensor::transient(rec, "chunk dkv", self.q.rows, recent.cols);
            copy_rows(rec, rows(recent.span(), tables.tables.history), rows(dkv.span(), 0), dkv.rows, dkv.cols);
            dkv
        });
        Ok(vec![dq, dkv])
    }
}

/// A case of all kernels on one chunk: its queries see pairs of earlier chunks, in the recent
/// buffer and in the kept one.
fn case(name: &str, attention: LayerAttention, heads: Heads, place: Place, spread: f32) -> Case {
    case_within(name, attention, heads, place, spread, Bound::NONE)
}

fn case_within(name: &str, attention: LayerAttention, heads: Heads, place: Place, spread: f32, bound: Bound) -> Case {
    let chunk = ChunkTables::new(attention, place, heads.group());
    let tables = chunk.tables;
    let (n, kept_rows) = (place.n, chunk.n_seen.max(1));
    let (q_cols, kv_cols) = (heads.queries * heads.dim, heads.kv_cols());
    let sizes = [(1, n, q_cols), (2, tables.history + n, kv_cols), (3, kept_rows, kv_cols), (4, n, q_cols)];
    let reals = sizes.map(|(seed, rows, cols)| real(seed, rows, cols, spread).frozen());
    let (query_words, query_slices) = laid_out(&tables.query_tiles, heads, bound);
    let (recent_words, recent_slices) = laid_out(&tables.recent_tiles, heads, bound);
    let (kept_words, kept_slices) = laid_out(&tables.kept_tiles, heads, bound);
    let words = [query_words, recent_words, kept_words].into_iter().filter(|words| !words.is_empty());
    let inputs = reals.into_iter().chain(words.map(Input::Words)).collect();
    Case::new(format!("attend/streamed: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let [q, recent, kept, dout] = std::array::from_fn(|i| b.tensors[i].clone());
        let scale = heads.scale();
        let tiles = TileTable::new::<QueryTile>(b.words[0].clone(), query_slices.clone());
        let keys = Keys { recent: recent.span(), kept: kept.span(), tiles: &tiles, ring: NO_RING, scale };
        let (out, lse) = forward(rec, &q, &keys, heads);
        let saved = Saved { q: &q, dout: &dout, heads, scale };
        let stats = saved.stats(rec, &out, &lse);
        let dq = saved.query_gradient(rec, &keys, &stats);
        let mut outputs = vec![out, dq];
        let tiles = TileTable::new::<KeyTile>(b.words[1].clone(), recent_slices.clone());
        outputs.push(saved.key_gradient(rec, &recent, &tiles, &stats));
        if let Some(words) = b.words.get(2) {
            let tiles = TileTable::new::<KeyTile>(words.clone(), kept_slices.clone());
            outputs.push(saved.key_gradient(rec, &kept, &tiles, &stats));
        }
        Ok((outputs, None))
    })
}

/// The cases of this file.
pub(super) fn cases() -> Vec<Case> {
    let heads = |queries, keys, dim| Heads { queries, keys, dim };
    let lrsa = |sink, lag, keep| {
        LayerAttention::Full(Attention::Lrsa(Lrsa::new(sink, lag, keep).expect("a case has valid settings")))
    };
    let place = |total, start, n| Place { total, start, n };
    vec![
        case("a middle chunk", lrsa(3, 20, 0.4), heads(6, 2, 8), place(200, 63, 60), 1.0),
        case("the first chunk", lrsa(7, 20, 0.4), heads(3, 3, 4), place(200, 0, 67), 1.0),
        case("a ragged last chunk", lrsa(0, 70, 0.3), heads(2, 1, 32), place(313, 210, 103), 1.0),
        case("more kept than a tile has lanes", lrsa(2, 150, 0.6), heads(2, 2, 4), place(700, 152, 450), 1.0),
        case("dense", LayerAttention::Full(Attention::Dense), heads(4, 2, 8), place(180, 77, 40), 1.0),
        case("a window within the history", LayerAttention::Window(30), heads(3, 1, 8), place(300, 100, 90), 1.0),
        case("a window over several tiles", LayerAttention::Window(150), heads(2, 2, 32), place(400, 200, 70), 1.0),
        case_within(
            "a middle chunk, in several dispatches",
            lrsa(3, 20, 0.4),
            heads(6, 2, 8),
            place(200, 63, 60),
            1.0,
            Bound { flops: 1, fewest_groups: 1 },
        ),
        case("peaked, whole workgroups", lrsa(16, 64, 0.25), heads(4, 2, 64), place(656, 272, 128), 2.0),
    ]
}
