//! Gradients of a sequence that is too long for one recording: it streams chunk by chunk.
//!
//! With LRSA, the past reaches later tokens only through the sink, the selected pairs and one
//! partition. So the forward passes run chunk by chunk and keep just these ([`Stream`]). Then the
//! last chunk is recorded again with its backward pass, then the one before it, down to the first.
//! Loss and gradients are those of the whole sequence at once, to rounding. The price is one more
//! forward pass. `streamed_pairs.rs` does this with both sequences of a preference pair.

use std::ops::Range;
use std::rc::Rc;

use super::distill::Teacher;
use super::loss_rows::{LossRows, Sums};
use super::objective::{Objective, noise};
use crate::attention::{Attention, Pass, Stream, StreamChunk, chunks_of};
use crate::autograd::{Tape, Var};
use crate::data::batch::Batch;
use crate::error::Result;
use crate::gpu::{Executor, Recording, upload_words};
use crate::kernels::distill::Scales;
use crate::kernels::elementwise::add_into;
use crate::kernels::embedding::TokenIndex;
use crate::kernels::neftune::Noise;
use crate::model::block::StreamContext;
use crate::model::llama::Llama;
use crate::nn::{Adapters, Dropout};
use crate::tensor::{Format, Tensor, copy_tensor};

/// A part of a batch that one recording or one stream takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Sequences that fit, as a batch of their own, and the number of their first token.
    AtOnce(Batch, usize),
    /// The tokens of a sequence that streams.
    Streamed(Range<usize>),
    /// The sequences of a preference pair that streams.
    StreamedPair(Range<usize>),
}

/// Cuts a batch into pieces: each sequence of more than one chunk streams by itself, and
/// neighbouring short ones stay together up to the length of a chunk. So do preference pairs, each of
/// which streams if its sequences are longer than a chunk together. `None` streams nothing.
pub(super) fn pieces(batch: &Batch, objective: &Objective, chunk: Option<usize>) -> Vec<Piece> {
    let Some(chunk) = chunk else { return vec![Piece::AtOnce(batch.clone(), 0)] };
    let is_paired = objective.preference.is_some();
    let unit = if is_paired { 2 } else { 1 };
    let mut pieces = Vec::new();
    let mut short: Range<usize> = 0..0; // sequences
    let flush = |short: &mut Range<usize>, pieces: &mut Vec<Piece>| {
        if short.start < short.end {
            pieces.push(Piece::AtOnce(batch.part(short.clone()), batch.sequences[short.start].0));
        }
        short.start = short.end;
    };
    for (i, together) in batch.sequences.chunks(unit).enumerate() {
        let sequences = i * unit..i * unit + together.len();
        let (start, end) = (together[0].0, together.iter().map(|&(start, n)| start + n).max().unwrap_or(0));
        let streams = match is_paired {
            true => end - start > chunk,
            false => chunks_of(objective.attention, end - start, chunk).len() > 1,
        };
        if streams {
            flush(&mut short, &mut pieces);
            short = sequences.end..sequences.end;
            pieces.push(if is_paired { Piece::StreamedPair(sequences) } else { Piece::Streamed(start..end) });
            continue;
        }
        let first = batch.sequences[short.start].0;
        if end - first > chunk {
            flush(&mut short, &mut pieces);
        }
        short.end = sequences.end;
    }
    flush(&mut short, &mut pieces);
    pieces
}

/// The chunks whose passes with gradients may take the most memory: the first one, the last ones, and
/// the latest with the most rows in the loss. `n_loss_rows` has the rows of the chunks up to the last
/// one with gradients.
pub(super) fn chunks_to_look_at(n_loss_rows: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let rows: Vec<usize> = n_loss_rows.into_iter().collect();
    let last = rows.len().saturating_sub(1);
    let most = (0..rows.len()).max_by_key(|&chunk| rows[chunk]).unwrap_or(0);
    let mut chunks = vec![0, most, last.saturating_sub(1), last];
    chunks.sort_unstable();
    chunks.dedup();
    chunks
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

/// How a step computes gradients.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub(super) sums: &'a Sums,
    pub(super) recompute: bool,
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
        let max_elements = device.limits().max_elements();
        let stream = Self::stream_of(model, objective.attention, chunks, with_gradients, max_elements)?;
        Ok(Self { batch, tokens, objective, stream, max_elements })
    }

    fn stream_of(
        model: &Llama,
        attention: Attention,
        chunks: Vec<Range<usize>>,
        with_gradients: bool,
        max_elements: usize,
    ) -> Result<Rc<Stream>> {
        let layers = model.config.layer_attentions(attention);
        Ok(Rc::new(Stream::new(&layers, model.heads(), chunks, with_gradients, max_elements)?))
    }

    /// The pairs of the sequence.
    pub(super) fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    pub(super) fn max_elements(&self) -> usize {
        self.max_elements
    }

    pub(super) fn n_chunks(&self) -> usize {
        self.stream.chunks().len()
    }

    fn labels(&self, chunk: usize) -> &[i32] {
        let Range { start, end } = self.stream.chunks()[chunk];
        &self.batch.labels_shifted[self.tokens.start + start..self.tokens.start + end]
    }

    /// Whether a row of a chunk counts even without a label: with a teacher, if it has a next token.
    fn counts(&self, chunk: usize) -> impl Fn(usize) -> bool {
        let (with_teacher, last) = (self.objective.distill.is_some(), self.tokens.len() - 1);
        let start = self.stream.chunks()[chunk].start;
        move |row| with_teacher && start + row < last
    }

    pub(super) fn loss_rows(&self, device: &mut dyn Executor, chunk: usize) -> Result<Option<LossRows>> {
        LossRows::upload(device, self.labels(chunk), self.counts(chunk))
    }

    /// Number of rows of a chunk that have a part in the loss.
    pub(super) fn n_loss_rows(&self, chunk: usize) -> usize {
        let counts = self.counts(chunk);
        self.labels(chunk).iter().enumerate().filter(|&(row, &label)| label >= 0 || counts(row)).count()
    }

    /// The last chunk with a part in the loss: no gradient starts after it.
    pub(super) fn last_trained(&self) -> Option<usize> {
        (0..self.n_chunks()).rev().find(|&chunk| self.n_loss_rows(chunk) > 0)
    }

    /// Appends the forward pass over a chunk: hidden states, and what it carries on.
    pub(super) fn forward(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        tape: &mut Tape,
        chunk: usize,
        pass: Pass,
    ) -> Result<(Var, Vec<Var>)> {
        let first = self.tokens.start + self.stream.chunks()[chunk].start;
        let dropout = self.objective.dropout.map(|d| Dropout { first_token: d.first_token + first, ..d });
        let parts = std::iter::once((self.stream.chunks()[chunk].len(), self.tokens.len()));
        let noise = noise(device, dropout, parts, &model.config)?;
        self.forward_through(device, model, tape, &self.stream, (chunk, pass), (Adapters::On(dropout), noise))
    }

    /// [`StreamedSequence::forward`] with other pairs, adapters and noise.
    pub(super) fn forward_through(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        tape: &mut Tape,
        stream: &Rc<Stream>,
        (chunk, pass): (usize, Pass),
        (adapters, noise): (Adapters, Option<Noise>),
    ) -> Result<(Var, Vec<Var>)> {
        let Range { start, end } = stream.chunks()[chunk];
        let ids = &self.batch.ids[self.tokens.start + start..self.tokens.start + end];
        let ids = TokenIndex::upload(device, ids, model.trains_embedding() && tape.is_training())?;
        let positions: Vec<u32> = (start as u32..end as u32).collect();
        let context = StreamContext {
            stream: stream.clone(),
            chunk: Rc::new(StreamChunk::upload(device, stream, chunk)?),
            pass,
            positions: upload_words(device, "positions", &positions)?,
            rotations: model.rotations(),
            adapters,
            noise,
        };
        model.forward_streamed(tape, &ids, &context)
    }

    /// Records the first pass over a chunk, which keeps what later chunks see.
    fn record_first(&self, device: &mut dyn Executor, model: &Llama, chunk: usize) -> Result<Recording> {
        self.record_hidden(device, model, chunk).map(|(rec, _)| rec)
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
        if let Some(rows) = self.loss_rows(device, chunk)? {
            let of_chunk = rows.loss(&mut tape, model, &hidden, self.objective.scale, self.max_elements)?;
            add_into(&mut tape.rec, &of_chunk.tensor, loss);
        }
        Ok(tape.rec)
    }

    /// Records the teacher's dense pass over a chunk, which leaves its hidden states in the rows of the
    /// loss in `states`.
    fn record_teacher(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        (stream, teacher): (&Rc<Stream>, Teacher),
        chunk: usize,
        states: Option<&Tensor>,
    ) -> Result<Recording> {
        let mut tape = Tape::inference();
        let at = (chunk, Pass::First);
        let (hidden, _) = self.forward_through(device, model, &mut tape, stream, at, (teacher.adapters(), None))?;
        if let (Some(rows), Some(states)) = (self.loss_rows(device, chunk)?, states) {
            let chosen = rows.of(&mut tape, &hidden)?.tensor;
            copy_tensor(&mut tape.rec, &chosen, states);
        }
        Ok(tape.rec)
    }

    /// Memory for the teacher's hidden states in the rows of the loss, of each chunk; none without a
    /// teacher.
    fn teacher_states(&self, device: &dyn Executor, model: &Llama) -> Result<Vec<Option<Tensor>>> {
        let states = |chunk| {
            let n = self.n_loss_rows(chunk);
            let is_needed = self.objective.distill.is_some() && n > 0;
            let new = || Tensor::persistent("teacher's states", Format::F32, n, model.config.hidden, &device.limits());
            is_needed.then(new).transpose()
        };
        (0..self.n_chunks()).map(states).collect()
    }

    /// The pairs of the teacher, which attends densely.
    fn teacher_stream(&self, model: &Llama) -> Result<Rc<Stream>> {
        Self::stream_of(model, Attention::Dense, self.stream.chunks().to_vec(), false, self.max_elements)
    }

    /// Runs the teacher over all chunks; returns its hidden states.
    fn run_teacher(&self, device: &mut dyn Executor, model: &Llama) -> Result<Vec<Option<Tensor>>> {
        let all = self.teacher_states(device, model)?;
        if let Some((teacher, _)) = self.objective.distill {
            let stream = self.teacher_stream(model)?;
            for (chunk, states) in all.iter().enumerate() {
                let recording = self.record_teacher(device, model, (&stream, teacher), chunk, states.as_ref())?;
                device.run(&recording)?;
            }
        }
        Ok(all)
    }

    /// Records forward and backward of a chunk. `last` is the last chunk with a part in the loss; its
    /// backward pass runs first. `teacher` has the teacher's states in the rows of the loss.
    fn record_gradient(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        (chunk, last): (usize, usize),
        teacher: Option<&Tensor>,
        backward: Backward<'_>,
    ) -> Result<Recording> {
        let pass = if chunk == last { Pass::First } else { Pass::Again };
        let sums = backward.sums;
        self.record_backward(device, model, (chunk, last, pass), backward, |tape, hidden, rows| {
            let scales = Scales { ce: self.objective.scale, kl: self.objective.distill.map_or(0.0, |d| d.1) };
            let loss = rows.summed_loss(tape, model, (hidden, teacher), scales, sums, self.max_elements)?;
            Ok(vec![(loss, sums.one.clone())])
        })
    }

    /// Records a pass over a chunk and its backward pass. `last` is the chunk whose backward pass runs
    /// first. Given the hidden states and the rows of the loss, `seeds` appends the loss and says where
    /// gradients start.
    pub(super) fn record_backward(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        (chunk, last, pass): (usize, usize, Pass),
        Backward { sums, recompute }: Backward<'_>,
        seeds: impl FnOnce(&mut Tape, &Var, &LossRows) -> Result<Vec<(Var, Tensor)>>,
    ) -> Result<Recording> {
        let mut tape = Tape::training(recompute);
        if chunk == last {
            self.stream.clear_gradients(&mut tape.rec);
        }
        let (hidden, carried) = self.forward(device, model, &mut tape, chunk, pass)?;
        let mut all = match self.loss_rows(device, chunk)? {
            Some(rows) => seeds(&mut tape, &hidden, &rows)?,
            None => Vec::new(),
        };
        if chunk < last {
            all.extend(carried.into_iter().map(|carried| (carried, sums.one.clone())));
        }
        tape.backward_from(&all, &[])?;
        Ok(tape.rec)
    }

    /// Adds the gradients and the loss of the sequence. Does nothing if it has no part in the loss.
    pub(super) fn accumulate(&self, device: &mut dyn Executor, model: &Llama, backward: Backward<'_>) -> Result<()> {
        let Some(last) = self.last_trained() else { return Ok(()) };
        let teacher = self.run_teacher(device, model)?;
        for chunk in 0..last {
            let recording = self.record_first(device, model, chunk)?;
            device.run(&recording)?;
        }
        for (chunk, states) in teacher.into_iter().enumerate().take(last + 1).rev() {
            let recording = self.record_gradient(device, model, (chunk, last), states.as_ref(), backward)?;
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

    /// Records the passes that take the most memory, for their sizes only: those of the teacher, and
    /// those of the student, which start when the teacher's pairs are gone.
    pub(super) fn record_largest(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        backward: Backward<'_>,
    ) -> Result<Vec<Vec<Recording>>> {
        let last = self.last_trained().unwrap_or(self.n_chunks() - 1);
        let before = last.saturating_sub(1);
        let states = self.teacher_states(device, model)?;
        let mut teacher = Vec::new();
        if let Some((of, _)) = self.objective.distill {
            let stream = self.teacher_stream(model)?;
            for chunk in [before, self.n_chunks() - 1] {
                let states = states[chunk].as_ref();
                teacher.push(self.record_teacher(device, model, (&stream, of), chunk, states)?);
            }
        }
        let mut student = vec![self.record_first(device, model, before)?];
        for chunk in chunks_to_look_at((0..=last).map(|chunk| self.n_loss_rows(chunk))) {
            let states = states[chunk].as_ref();
            student.push(self.record_gradient(device, model, (chunk, last), states, backward)?);
        }
        // All of the teacher's states are there while teacher and student run.
        for recording in teacher.iter_mut().chain(&mut student) {
            let held = states.iter().flatten().flat_map(Tensor::pieces);
            held.for_each(|piece| recording.clear(&piece.span));
        }
        Ok([teacher, student].into_iter().filter(|list| !list.is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Lrsa;
    use crate::data::dataset::Example;
    use crate::train::preference::{PairCounts, Preference};

    #[test]
    fn long_sequences_stream_and_short_neighbours_stay_together() {
        let example = |n: usize| Example { ids: vec![1; n], labels: vec![1; n], rejected: None };
        let batch = Batch::new(&[5, 30, 8, 8, 8, 40, 3].map(example));
        let attention = Attention::Lrsa(Lrsa::new(2, 4, 0.5).unwrap());
        let objective = Objective { attention, scale: 1.0, dropout: None, distill: None, preference: None, kept: None };
        let found = pieces(&batch, &objective, Some(18)); // a chunk has 16 tokens, the first one 18
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
        assert_eq!(pieces(&batch, &objective, None), [Piece::AtOnce(batch.clone(), 0)]);
        let part = batch.part(2..4);
        assert_eq!((part.sequences.as_slice(), part.n_targets, part.longest), (&[(0, 8), (8, 8)][..], 14, 40));
    }

    #[test]
    fn the_plan_looks_at_the_ends_and_at_the_most_labels() {
        assert_eq!(chunks_to_look_at([3]), [0]);
        assert_eq!(chunks_to_look_at([0, 0, 0, 0, 3]), [0, 3, 4]);
        assert_eq!(chunks_to_look_at([0, 5, 1, 0, 0, 3]), [0, 1, 4, 5]);
        assert_eq!(chunks_to_look_at([1, 0, 2, 2, 0, 0, 2]), [0, 5, 6], "of equal ones the latest sees the most");
    }

    #[test]
    fn both_sequences_of_a_pair_are_in_one_piece() {
        let sequence = |n: usize| Example { ids: vec![1; n], labels: vec![1; n], rejected: None };
        let pair = |&[a, b]: &[usize; 2]| Example { rejected: Some(Box::new(sequence(b))), ..sequence(a) };
        let batch = Batch::new(&[[9, 9], [4, 5], [4, 3], [3, 30], [5, 6]].iter().map(pair).collect::<Vec<_>>());
        let preference = (Preference { with_reference: false, beta: 0.1 }, PairCounts::of([&batch]));
        let attention = Attention::Dense;
        let preference = Some(preference);
        let objective = Objective { attention, scale: 0.0, dropout: None, distill: None, preference, kept: None };
        let at_once = |range: Range<usize>| Piece::AtOnce(batch.part(range.clone()), batch.sequences[range.start].0);
        let expected = [Piece::StreamedPair(0..2), at_once(2..6), Piece::StreamedPair(6..8), at_once(8..10)];
        assert_eq!(pieces(&batch, &objective, Some(16)), expected);
    }
}
