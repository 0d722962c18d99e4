//! Gradients of a sequence that is too long for one recording: it streams chunk by chunk.
//!
//! With LRSA, the past reaches later tokens only through the sink, the selected pairs and one
//! partition. So the forward passes run chunk by chunk and keep just these ([`Stream`]). Then the
//! last chunk is recorded again with its backward pass, then the one before it, down to the first.
//! Loss and gradients are those of the whole sequence at once, to rounding. The price is one more
//! forward pass.

use std::ops::Range;
use std::rc::Rc;

use super::objective::{Labelled, Objective};
use crate::attention::{Attention, Pass, Stream, StreamChunk, chunks_of};
use crate::autograd::{Tape, Var};
use crate::data::batch::Batch;
use crate::data::dataset::IGNORED;
use crate::error::Result;
use crate::gpu::{Executor, Recording, upload_words};
use crate::kernels::elementwise::add_into;
use crate::kernels::embedding::TokenIndex;
use crate::model::block::StreamContext;
use crate::model::llama::Llama;
use crate::nn::Dropout;
use crate::tensor::Tensor;

/// A part of a batch that one recording or one stream takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Sequences that fit, as a batch of their own, and the number of their first token.
    AtOnce(Batch, usize),
    /// A sequence that streams.
    Streamed(Range<usize>),
}

/// Cuts a batch into pieces: each sequence of more than one chunk streams by itself, and
/// neighbouring short ones stay together up to the length of a chunk. `None` streams nothing.
pub(super) fn pieces(batch: &Batch, attention: Attention, chunk: Option<usize>) -> Vec<Piece> {
    let Some(chunk) = chunk else { return vec![Piece::AtOnce(batch.clone(), 0)] };
    let mut pieces = Vec::new();
    let mut short: Range<usize> = 0..0; // sequences
    let flush = |short: &mut Range<usize>, pieces: &mut Vec<Piece>| {
        if short.start < short.end {
            pieces.push(Piece::AtOnce(batch.part(short.clone()), batch.sequences[short.start].0));
        }
        short.start = short.end;
    };
    for (i, &(start, n)) in batch.sequences.iter().enumerate() {
        if chunks_of(attention, n, chunk).len() > 1 {
            flush(&mut short, &mut pieces);
            pieces.push(Piece::Streamed(start..start + n));
            short = i + 1..i + 1;
            continue;
        }
        let first = batch.sequences[short.start].0;
        if start + n - first > chunk {
            flush(&mut short, &mut pieces);
        }
        short.end = i + 1;
    }
    flush(&mut short, &mut pieces);
    pieces
}

/// A sequence that streams through a device.
pub(super) struct StreamedSequence<'a> {
    batch: &'a Batch,
    /// Tokens of the batch.
    tokens: Range<usize>,
    objective: &'a Objective,
    stream: Rc<Stream>,
    max_elements: usize,
}

impl<'a> StreamedSequence<'a> {
    /// Prepares the memory of these tokens of a batch, in chunks of about `chunk` tokens.
    pub(super) fn new(
        device: &mut dyn Executor,
        model: &mut Llama,
        (batch, tokens): (&'a Batch, Range<usize>),
        objective: &'a Objective,
        chunk: usize,
        with_gradients: bool,
    ) -> Result<Self> {
        model.check_ids(&batch.ids[tokens.clone()])?;
        model.reserve_positions(device, batch.longest)?;
        let chunks = chunks_of(objective.attention, tokens.len(), chunk);
        let layers = model.config.layer_attentions(objective.attention);
        let max_elements = device.limits().max_elements();
        let stream = Rc::new(Stream::new(&layers, model.heads(), chunks, with_gradients, max_elements)?);
        Ok(Self { batch, tokens, objective, stream, max_elements })
    }

    /// The pairs of the sequence.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    fn n_chunks(&self) -> usize {
        self.stream.chunks().len()
    }

    fn labels(&self, chunk: usize) -> &[i32] {
        let Range { start, end } = self.stream.chunks()[chunk];
        &self.batch.labels_shifted[self.tokens.start + start..self.tokens.start + end]
    }

    /// The last chunk with a label: no gradient starts after it.
    fn last_labelled(&self) -> Option<usize> {
        (0..self.n_chunks()).rev().find(|&c| self.labels(c).iter().any(|&label| label != IGNORED))
    }

    /// Appends the forward pass over a chunk: hidden states, and what it carries on.
    fn forward(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        tape: &mut Tape,
        chunk: usize,
        pass: Pass,
    ) -> Result<(Var, Vec<Var>)> {
        let Range { start, end } = self.stream.chunks()[chunk];
        let first = self.tokens.start + start;
        let ids = &self.batch.ids[first..self.tokens.start + end];
        let ids = TokenIndex::upload(device, ids, model.trains_embedding() && tape.is_training())?;
        let positions: Vec<u32> = (start as u32..end as u32).collect();
        let context = StreamContext {
            stream: self.stream.clone(),
            chunk: Rc::new(StreamChunk::upload(device, &self.stream, chunk)?),
            pass,
            positions: upload_words(device, "positions", &positions)?,
            rotations: model.rotations(),
            dropout: self.objective.dropout.map(|d| Dropout { first_token: d.first_token + first, ..d }),
        };
        model.forward_streamed(tape, &ids, &context)
    }

    /// Records the first pass over a chunk, which keeps what later chunks see.
    fn record_first(&self, device: &mut dyn Executor, model: &Llama, chunk: usize) -> Result<Recording> {
        let mut tape = Tape::inference();
        self.forward(device, model, &mut tape, chunk, Pass::First)?;
        Ok(tape.rec)
    }

    /// Records the first pass over a chunk; returns its final hidden states [tokens, hidden].
    pub(super) fn record_hidden(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        chunk: usize,
    ) -> Result<(Recording, Tensor)> {
        let mut tape = Tape::inference();
        let (hidden, _) = self.forward(device, model, &mut tape, chunk, Pass::First)?;
        Ok((tape.rec, hidden.tensor))
    }

    /// Records the first pass over a chunk with its loss, which is added to `loss`.
    fn record_loss(&self, device: &mut dyn Executor, model: &Llama, chunk: usize, loss: &Tensor) -> Result<Recording> {
        let mut tape = Tape::inference();
        let (hidden, _) = self.forward(device, model, &mut tape, chunk, Pass::First)?;
        if let Some(labelled) = Labelled::upload(device, self.labels(chunk))? {
            let of_chunk = labelled.loss(&mut tape, model, &hidden, self.objective.scale, self.max_elements)?;
            add_into(&mut tape.rec, &of_chunk.tensor, loss);
        }
        Ok(tape.rec)
    }

    /// Records forward and backward of a chunk. `last` is the last chunk with a label; its backward
    /// pass runs first. `sums` are a tensor of 1 and the one to which the loss is added.
    fn record_gradient(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        (chunk, last): (usize, usize),
        (one, loss): (&Tensor, &Tensor),
        recompute: bool,
    ) -> Result<Recording> {
        let mut tape = Tape::training(recompute);
        if chunk == last {
            self.stream.clear_gradients(&mut tape.rec);
        }
        let pass = if chunk == last { Pass::First } else { Pass::Again };
        let (hidden, carried) = self.forward(device, model, &mut tape, chunk, pass)?;
        let mut seeds = Vec::new();
        if let Some(labelled) = Labelled::upload(device, self.labels(chunk))? {
            let of_chunk = labelled.loss(&mut tape, model, &hidden, self.objective.scale, self.max_elements)?;
            add_into(&mut tape.rec, &of_chunk.tensor, loss);
            seeds.push((of_chunk, one.clone()));
        }
        if chunk < last {
            seeds.extend(carried.into_iter().map(|carried| (carried, one.clone())));
        }
        tape.backward_from(&seeds, &[])?;
        Ok(tape.rec)
    }

    /// Adds the gradients and the loss of the sequence. `sums` are a tensor of 1 and the one to
    /// which the loss is added. Does nothing without a label.
    pub(super) fn accumulate(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        sums: (&Tensor, &Tensor),
        recompute: bool,
    ) -> Result<()> {
        let Some(last) = self.last_labelled() else { return Ok(()) };
        for chunk in 0..last {
            let recording = self.record_first(device, model, chunk)?;
            device.run(&recording)?;
        }
        for chunk in (0..=last).rev() {
            let recording = self.record_gradient(device, model, (chunk, last), sums, recompute)?;
            device.run(&recording)?;
        }
        Ok(())
    }

    /// Adds the loss of the sequence to `loss`, without gradients.
    pub(super) fn evaluate(&self, device: &mut dyn Executor, model: &Llama, loss: &Tensor) -> Result<()> {
        for chunk in 0..self.n_chunks() {
            let recording = self.record_loss(device, model, chunk, loss)?;
            device.run(&recording)?;
        }
        Ok(())
    }

    /// Records the passes that take the most memory, for their sizes only.
    pub(super) fn record_largest(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        sums: (&Tensor, &Tensor),
        recompute: bool,
    ) -> Result<Vec<Recording>> {
        let last = self.last_labelled().unwrap_or(self.n_chunks() - 1);
        let before = last.saturating_sub(1);
        let mut recordings = vec![self.record_first(device, model, before)?];
        for chunk in [0, before, last] {
            recordings.push(self.record_gradient(device, model, (chunk, last), sums, recompute)?);
        }
        Ok(recordings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Lrsa;
    use crate::data::dataset::Example;

    #[test]
    fn long_sequences_stream_and_short_neighbours_stay_together() {
        let example = |n: usize| Example { ids: vec![1; n], labels: vec![1; n] };
        let batch = Batch::new(&[5, 30, 8, 8, 8, 40, 3].map(example));
        let attention = Attention::Lrsa(Lrsa::new(2, 4, 0.5).unwrap());
        let found = pieces(&batch, attention, Some(18)); // a chunk has 16 tokens, the first one 18
        let at_once = |range: Range<usize>| Piece::AtOnce(batch.part(range.clone()), batch.sequences[range.start].0);
        let expected = [
            at_once(0..1),
            Piece::Streamed(5..35),
            at_once(2..4),
            at_once(4..5),
            Piece::Streamed(59..99),
            at_once(6..7),
        ];
        assert_eq!(found, expected);
        assert_eq!(pieces(&batch, attention, None), [Piece::AtOnce(batch.clone(), 0)]);
        let part = batch.part(2..4);
        assert_eq!((part.sequences.as_slice(), part.n_targets, part.longest), (&[(0, 8), (8, 8)][..], 14, 40));
    }
}
