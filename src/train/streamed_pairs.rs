//! Gradients of a preference pair that is too long for one recording: both sequences stream.
//!
//! The slope of each row depends on the sums over both answers. So all forward passes come first, and
//! leave the losses of their rows: those of the reference model, then those of the model. A kernel
//! makes slopes of the losses. Then the backward passes of each sequence run as for other ones
//! (`streamed.rs`). The pairs of keys and values of both sequences stay on the device until then.

use super::loss_rows::Sums;
use super::objective::Objective;
use super::preference::{PairTables, PairsOnDevice};
use super::streamed::{Backward, StreamedSequence, chunks_to_look_at};
use crate::attention::Pass;
use crate::autograd::Tape;
use crate::data::batch::Batch;
use crate::data::dataset::IGNORED;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Executor, Kind, Recording, Span, upload_words};
use crate::kernels::loss::{Need, row_losses_into};
use crate::kernels::preference::{pair_slopes, row_gradients};
use crate::model::llama::Llama;
use crate::nn::Adapters;

/// A preference pair that streams through a device.
pub(super) struct StreamedPair<'a> {
    /// The pair alone, with a label for each row of its loss.
    batch: Batch,
    objective: &'a Objective,
    pair: PairsOnDevice,
    labels: Span,
    /// −log p(label) of the rows, by the model and by the reference model, and the slopes of the loss of
    /// the pair in the former.
    losses: Span,
    reference: Option<Span>,
    slopes: Span,
}

/// One of the two sequences.
struct Half<'a> {
    sequence: StreamedSequence<'a>,
    /// The first row of each chunk among the rows of the pair.
    first_rows: Vec<usize>,
    /// The last chunk with a row.
    last: usize,
}

/// Who computes the losses of the rows.
#[derive(Clone, Copy)]
enum By {
    Model,
    Reference,
}

impl<'a> StreamedPair<'a> {
    /// The pair of a batch that holds nothing else.
    pub(super) fn new(device: &mut dyn Executor, mut batch: Batch, objective: &'a Objective) -> Result<Self> {
        let preference = objective.preference.ok_or_else(|| Error::new("the objective learns from no pairs"))?;
        let tables = PairTables::of(&batch, preference.0)?;
        let pair = PairsOnDevice::upload(device, &tables, preference)?;
        let labels: Vec<u32> = tables.labels.iter().filter(|&&l| l != IGNORED).map(|&l| l as u32).collect();
        batch.labels_shifted = tables.labels;
        let rows = |label| Buffer::persistent(label, Kind::Real, labels.len()).span();
        Ok(Self {
            reference: pair.has_reference().then(|| rows("losses of the reference")),
            losses: rows("losses of a pair"),
            slopes: rows("slopes of a pair"),
            labels: upload_words(device, "labels of a pair", &labels)?,
            batch,
            objective,
            pair,
        })
    }

    fn halves(
        &self,
        device: &mut dyn Executor,
        model: &mut Llama,
        chunk: usize,
        with_gradients: bool,
    ) -> Result<Vec<Half<'_>>> {
        let mut row = 0;
        let mut halves = Vec::new();
        for &(start, n) in &self.batch.sequences {
            let tokens = (&self.batch, start..start + n);
            let sequence = StreamedSequence::new(device, model, tokens, self.objective, chunk, with_gradients)?;
            let first_rows = (0..sequence.n_chunks()).map(|chunk| {
                row += sequence.n_loss_rows(chunk);
                row - sequence.n_loss_rows(chunk)
            });
            let first_rows = first_rows.collect();
            let last = sequence.last_trained().ok_or_else(|| Error::new("a sequence of a pair has no label"))?;
            halves.push(Half { sequence, first_rows, last });
        }
        Ok(halves)
    }

    /// Records the first pass over a chunk, which leaves the losses of its rows.
    fn record_losses(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        half: &Half<'_>,
        (chunk, by): (usize, By),
    ) -> Result<Recording> {
        let mut tape = Tape::inference();
        let Half { sequence, first_rows, .. } = half;
        let at = (chunk, Pass::First);
        let (losses, (hidden, _)) = match (by, &self.reference) {
            (By::Reference, Some(reference)) => {
                let plain = (Adapters::Reference, None);
                (reference, sequence.forward_through(device, model, &mut tape, sequence.stream(), at, plain)?)
            }
            _ => (&self.losses, sequence.forward(device, model, &mut tape, chunk, Pass::First)?),
        };
        if let Some(rows) = sequence.loss_rows(device, chunk)? {
            let chosen = rows.of(&mut tape, &hidden)?.tensor;
            let to = (&self.labels, losses, first_rows[chunk]);
            row_losses_into(&mut tape.rec, &chosen, model.output(), to, sequence.max_elements())?;
        }
        Ok(tape.rec)
    }

    /// Records the loss of the pair, which is added to the sums, and the slopes of its rows.
    fn record_slopes(&self, sums: &Sums) -> Recording {
        let mut rec = Recording::new();
        let (rows, loss, factors) = self.pair.terms(&self.labels, self.reference.as_ref());
        let of_pair = pair_slopes(&mut rec, &self.losses, rows, loss, factors, &self.slopes);
        sums.add_pairs(&mut rec, &of_pair);
        rec
    }

    /// Records forward and backward of a chunk, given the slopes of its rows.
    fn record_gradient(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        half: &Half<'_>,
        chunk: usize,
        backward: Backward<'_>,
    ) -> Result<Recording> {
        let Half { sequence, first_rows, last } = half;
        let at = (chunk, *last, Pass::Again);
        sequence.record_backward(device, model, at, backward, |tape, hidden, rows| {
            let (chosen, head) = (rows.of(tape, hidden)?, tape.param(model.head()));
            let need = Need { hidden: tape.needs(&chosen), head: tape.needs(&head) };
            let of = (&self.labels, &self.slopes, first_rows[chunk]);
            let states = (&chosen.tensor, model.output());
            let gradients = row_gradients(&mut tape.rec, states, of, need, sequence.max_elements())?;
            Ok([chosen, head].into_iter().zip(gradients).filter_map(|(var, grad)| Some((var, grad?))).collect())
        })
    }

    /// Runs all forward passes, and adds the loss to the sums.
    fn run_forward(&self, device: &mut dyn Executor, model: &Llama, halves: &[Half<'_>], sums: &Sums) -> Result<()> {
        let reference = self.reference.as_ref().map(|_| By::Reference);
        for half in halves {
            // The reference's pairs of keys and values go where the model's go afterwards.
            for by in reference.into_iter().chain([By::Model]) {
                for chunk in 0..=half.last {
                    let recording = self.record_losses(device, model, half, (chunk, by))?;
                    device.run(&recording)?;
                }
            }
        }
        device.run(&self.record_slopes(sums))
    }

    /// Adds the gradients and the loss of the pair, which streams in chunks of about `chunk` tokens.
    pub(super) fn accumulate(
        &self,
        device: &mut dyn Executor,
        model: &mut Llama,
        chunk: usize,
        backward: Backward<'_>,
    ) -> Result<()> {
        let halves = self.halves(device, model, chunk, true)?;
        self.run_forward(device, model, &halves, backward.sums)?;
        for half in &halves {
            for chunk in (0..=half.last).rev() {
                let recording = self.record_gradient(device, model, half, chunk, backward)?;
                device.run(&recording)?;
            }
        }
        Ok(())
    }

    /// Adds the loss of the pair to the sums, without gradients.
    pub(super) fn evaluate(
        &self,
        device: &mut dyn Executor,
        model: &mut Llama,
        chunk: usize,
        sums: &Sums,
    ) -> Result<()> {
        let halves = self.halves(device, model, chunk, false)?;
        self.run_forward(device, model, &halves, sums)
    }

    /// Records the passes that take the most memory, for their sizes only.
    pub(super) fn record_largest(
        &self,
        device: &mut dyn Executor,
        model: &mut Llama,
        chunk: usize,
        backward: Backward<'_>,
    ) -> Result<Vec<Recording>> {
        let halves = self.halves(device, model, chunk, true)?;
        let mut recordings = vec![self.record_slopes(backward.sums)];
        for half in &halves {
            let before = half.last.saturating_sub(1);
            for by in self.reference.as_ref().map(|_| By::Reference).into_iter().chain([By::Model]) {
                recordings.push(self.record_losses(device, model, half, (before, by))?);
            }
            let n_loss_rows = (0..=half.last).map(|chunk| half.sequence.n_loss_rows(chunk));
            for chunk in chunks_to_look_at(n_loss_rows) {
                recordings.push(self.record_gradient(device, model, half, chunk, backward)?);
            }
        }
        // Both sequences' pairs of keys and values are there all the time.
        for recording in &mut recordings {
            halves.iter().flat_map(|half| half.sequence.stream().spans()).for_each(|span| recording.clear(&span));
        }
        Ok(recordings)
    }
}
