//! A gradient step: the loss, gradients and gradient norm of micro-batches, without an optimiser.
//!
//! The loss is the sum over all labelled tokens of the step divided by their count, so accumulation
//! weights every token equally. With a teacher, so is the divergence from it over all positions. The
//! loss of preference pairs is a mean over all pairs of the step.

use std::ops::Range;

use super::distill::{Counts, Distill};
use super::loss_rows::Sums;
use super::objective::{Objective, UploadedBatch};
use super::preference::{PairCounts, PairStats, Preference};
use super::streamed::{Backward, Piece, StreamedSequence, pieces};
use super::streamed_pairs::StreamedPair;
use crate::attention::Attention;
use crate::autograd::Tape;
use crate::checkpoint::load::Loaded;
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::{Activations, Executor, Recording, Span};
use crate::kernels::clip_grad::norm_and_factor;
use crate::kernels::elementwise::add_into;
use crate::model::llama::Llama;
use crate::nn::Dropout;
use crate::tensor::{Arena, Format, Tensor};

/// Computes losses and gradients; the gradients are in the model's arena.
pub struct GradientStep {
    /// Recomputes each block's activations in the backward pass.
    recompute: bool,
    /// Sequences of more than one chunk of this many tokens stream.
    chunk: Option<usize>,
    sums: Sums,
    /// [1, 2]: gradient norm before clipping, and the factor that clips it.
    clipping: Tensor,
}

/// Fails if the device rounds activations: the gradients are those of f32.
fn check_activations(device: &dyn Executor) -> Result<()> {
    match device.activations() {
        Activations::F32 => Ok(()),
        Activations::Q8 => Err(Error::usage("training needs f32 activations: rounded ones (q8) have no gradient")),
    }
}

impl GradientStep {
    /// Allocates the loss and the norm. `recompute` drops each block's activations and recomputes
    /// them in the backward pass: less memory, a third more time. With `chunk`, longer sequences
    /// stream through the device in chunks of about this many tokens.
    pub fn new(device: &mut dyn Executor, recompute: bool, chunk: Option<usize>) -> Result<Self> {
        check_activations(device)?;
        let row = |label: &str, n| Tensor::persistent(label, Format::F32, 1, n, &device.limits());
        let (one, loss, clipping) = (row("one", 1)?, row("loss", 1)?, row("gradient norm", 2)?);
        let parts = [row("summed cross-entropy", 1)?, row("summed divergence", 1)?];
        let pairs = row("sums of pairs", 4)?;
        one.write(device, &[1.0])?;
        Ok(Self { recompute, chunk, sums: Sums { one, loss, parts, pairs }, clipping })
    }

    pub(super) fn set_recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
    }

    pub(super) fn set_chunk(&mut self, chunk: Option<usize>) {
        self.chunk = chunk;
    }

    /// Sets the arena's gradients to those of the mean loss over the labelled tokens of all
    /// batches, run one after another; returns what it divided by. `dropout` applies to the first
    /// batch; each further batch uses the next step number. Skips batches that train nothing:
    /// without a teacher, those without labelled tokens.
    pub fn run(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
        dropout: Option<Dropout>,
        distill: Option<Distill>,
    ) -> Result<Counts> {
        let counts = Counts::of(batches);
        if !counts.trains(distill) {
            return Err(Error::new("no token of this step has a label, so there is nothing to train on"));
        }
        let scales = counts.scales(distill);
        let distilled = distill.map(|d| (d.teacher, scales.kl));
        let objective =
            Objective { attention, scale: scales.ce, dropout, distill: distilled, preference: None, kept: None };
        let batches = batches.iter().filter(|&b| Counts::of([b]).trains(distill));
        self.run_all(device, loaded, batches, &objective)?;
        Ok(counts)
    }

    /// Sets the arena's gradients to those of the mean loss over the preference pairs of all batches,
    /// run one after another; returns what it divided by. `dropout` is that of [`GradientStep::run`].
    pub fn run_pairs(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
        dropout: Option<Dropout>,
        preference: Preference,
    ) -> Result<PairCounts> {
        let counts = PairCounts::of(batches);
        let preference = Some((preference, counts));
        let objective = Objective { attention, scale: 0.0, dropout, distill: None, preference, kept: None };
        self.run_all(device, loaded, batches.iter(), &objective)?;
        Ok(counts)
    }

    fn run_all<'a>(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: impl Iterator<Item = &'a Batch>,
        objective: &Objective,
    ) -> Result<()> {
        self.clear(device, loaded)?;
        for (i, batch) in batches.enumerate() {
            let dropout = objective.dropout.map(|d| Dropout { step: d.step.wrapping_add(i as u32), ..d });
            self.add_batch(device, loaded, batch, &Objective { dropout, ..objective.clone() })?;
        }
        Ok(())
    }

    /// The loss, valid after the run.
    pub fn loss(&self) -> &Span {
        self.sums.loss.span()
    }

    /// The summed cross-entropy and the summed divergence of distillation, valid after the run.
    pub fn parts(&self) -> [&Span; 2] {
        self.sums.parts.each_ref().map(Tensor::span)
    }

    /// The sums over the preference pairs, valid after the run.
    pub(super) fn pairs(&self) -> &Span {
        self.sums.pairs.span()
    }

    /// Appends the norm of the arena's gradients and the factor that clips it to `clip` (0: factor
    /// 1); returns [norm, factor], valid after the run.
    pub fn record_norm(&self, rec: &mut Recording, arena: &Arena, clip: f64) -> Span {
        norm_and_factor(rec, arena, clip as f32, self.clipping.span());
        self.clipping.span().clone()
    }

    /// The global gradient norm. Fails if the model was loaded without trainable parameters.
    pub fn norm(&self, device: &mut dyn Executor, loaded: &Loaded) -> Result<f64> {
        let mut rec = Recording::new();
        let clipping = self.record_norm(&mut rec, trained(loaded)?, 0.0);
        device.run(&rec)?;
        Ok(device.read_f64(&clipping)?[0])
    }

    /// Sets all gradients and the loss to zero.
    pub fn clear(&self, device: &mut dyn Executor, loaded: &Loaded) -> Result<()> {
        let mut rec = Recording::new();
        self.record_clear(&mut rec, loaded);
        device.run(&rec)
    }

    /// Appends the commands of [`GradientStep::clear`].
    pub fn record_clear(&self, rec: &mut Recording, loaded: &Loaded) {
        if let Some(arena) = &loaded.arena {
            arena.clear_grads(rec);
        }
        self.clear_sums(rec);
    }

    fn clear_sums(&self, rec: &mut Recording) {
        rec.clear(self.sums.loss.span());
        rec.clear(self.sums.pairs.span());
        self.sums.parts.iter().for_each(|part| rec.clear(part.span()));
    }

    /// Adds the gradients and the loss of one batch; returns the loss so far.
    pub fn accumulate(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        objective: &Objective,
    ) -> Result<f64> {
        self.add_batch(device, loaded, batch, objective)?;
        Ok(device.read_f64(self.sums.loss.span())?[0])
    }

    fn add_batch(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        objective: &Objective,
    ) -> Result<()> {
        check_activations(device)?;
        let from = |first_token| {
            let dropout = objective.dropout.map(|d| Dropout { first_token, ..d });
            Objective { dropout, ..objective.clone() }
        };
        for piece in pieces(batch, objective, self.chunk) {
            match piece {
                Piece::AtOnce(part, _) if !objective.trains(&part) => {}
                Piece::AtOnce(part, first_token) => {
                    let recording = self.record(device, loaded, &part, &from(first_token))?;
                    device.run(&recording)?;
                }
                Piece::StreamedPair(sequences) => {
                    let objective = from(batch.sequences[sequences.start].0);
                    let pair = StreamedPair::new(device, batch.part(sequences), &objective)?;
                    pair.accumulate(device, &mut loaded.model, self.chunk_length(), self.backward())?;
                }
                Piece::Streamed(tokens) => {
                    let model = &mut loaded.model;
                    let sequence = self.streamed(device, model, (batch, tokens), objective, true)?;
                    sequence.accumulate(device, model, self.backward())?;
                }
            }
        }
        Ok(())
    }

    fn backward(&self) -> Backward<'_> {
        Backward { sums: &self.sums, recompute: self.recompute }
    }

    /// The length of the chunks of what streams.
    fn chunk_length(&self) -> usize {
        self.chunk.expect("only a step with chunks streams")
    }

    fn streamed<'a>(
        &self,
        device: &mut dyn Executor,
        model: &mut Llama,
        tokens: (&'a Batch, Range<usize>),
        objective: &'a Objective,
        with_gradients: bool,
    ) -> Result<StreamedSequence<'a>> {
        StreamedSequence::new(device, model, tokens, objective, self.chunk_length(), with_gradients)
    }

    /// The recordings of a batch that take the most memory, for their sizes only. The lists run one
    /// after another, and each frees its memory before the next.
    pub fn record_largest(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        objective: &Objective,
    ) -> Result<Vec<Vec<Recording>>> {
        let mut recordings = Vec::new();
        for piece in pieces(batch, objective, self.chunk) {
            match piece {
                Piece::AtOnce(part, _) if !objective.trains(&part) => {}
                Piece::AtOnce(part, _) => recordings.push(vec![self.record(device, loaded, &part, objective)?]),
                Piece::StreamedPair(sequences) => {
                    let pair = StreamedPair::new(device, batch.part(sequences), objective)?;
                    let (model, chunk) = (&mut loaded.model, self.chunk_length());
                    recordings.push(pair.record_largest(device, model, chunk, self.backward())?);
                }
                Piece::Streamed(tokens) => {
                    let model = &mut loaded.model;
                    let sequence = self.streamed(device, model, (batch, tokens), objective, true)?;
                    recordings.extend(sequence.record_largest(device, model, self.backward())?);
                }
            }
        }
        Ok(recordings)
    }

    /// Uploads a batch and records its forward and backward, which add to the arena's gradients and
    /// to the loss.
    pub fn record(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        objective: &Objective,
    ) -> Result<Recording> {
        let uploaded = UploadedBatch::new(device, &mut loaded.model, batch, objective)?;
        let max_elements = device.limits().max_elements();
        let mut before = Tape::inference();
        let teacher = uploaded.teacher_hidden(&mut before, &loaded.model)?;
        let reference = uploaded.reference_losses(&mut before, &loaded.model, max_elements)?;
        let mut tape = Tape::training(self.recompute);
        tape.rec = before.rec;
        let hidden = uploaded.hidden(&mut tape, &loaded.model)?;
        let of_pairs = (&hidden, reference.as_ref());
        let loss = match uploaded.pair_loss(&mut tape, &loaded.model, of_pairs, &self.sums, max_elements)? {
            Some(loss) => loss,
            None => {
                let (states, scale) = ((&hidden, teacher.as_ref()), objective.scale);
                uploaded.summed_loss(&mut tape, &loaded.model, states, scale, &self.sums, max_elements)?
            }
        };
        tape.backward(&loss, &self.sums.one)?;
        Ok(tape.rec)
    }

    /// Summed loss over the labelled tokens of a batch, and their count, without training.
    pub fn evaluate(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<(f64, usize)> {
        if batch.n_targets == 0 {
            return Ok((0.0, 0));
        }
        let objective = Objective { attention, scale: 1.0, dropout: None, distill: None, preference: None, kept: None };
        let mut clear = Recording::new();
        clear.clear(self.sums.loss.span());
        device.run(&clear)?;
        for piece in pieces(batch, &objective, self.chunk) {
            match piece {
                Piece::StreamedPair(_) => unreachable!("this loss has no pairs"),
                Piece::AtOnce(part, _) if part.n_targets == 0 => {}
                Piece::AtOnce(part, _) => {
                    let uploaded = UploadedBatch::new(device, &mut loaded.model, &part, &objective)?;
                    let max_elements = device.limits().max_elements();
                    let mut tape = Tape::inference();
                    let hidden = uploaded.hidden(&mut tape, &loaded.model)?;
                    let loss = uploaded.loss(&mut tape, &loaded.model, &hidden, 1.0, max_elements)?;
                    add_into(&mut tape.rec, &loss.tensor, &self.sums.loss);
                    device.run(&tape.rec)?;
                }
                Piece::Streamed(tokens) => {
                    let model = &mut loaded.model;
                    let sequence = self.streamed(device, model, (batch, tokens), &objective, false)?;
                    sequence.evaluate(device, model, &self.sums.loss)?;
                }
            }
        }
        Ok((device.read_f64(self.sums.loss.span())?[0], batch.n_targets))
    }

    /// Mean loss of the preference pairs of all batches, and the means of their statistics, without
    /// training.
    pub fn evaluate_pairs(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
        preference: Preference,
    ) -> Result<(f64, PairStats)> {
        let counts = PairCounts::of(batches);
        let preference = Some((preference, counts));
        let objective = Objective { attention, scale: 0.0, dropout: None, distill: None, preference, kept: None };
        let mut clear = Recording::new();
        self.clear_sums(&mut clear);
        device.run(&clear)?;
        let max_elements = device.limits().max_elements();
        for batch in batches {
            for piece in pieces(batch, &objective, self.chunk) {
                let part = match piece {
                    Piece::AtOnce(part, _) => part,
                    Piece::StreamedPair(sequences) => {
                        let pair = StreamedPair::new(device, batch.part(sequences), &objective)?;
                        pair.evaluate(device, &mut loaded.model, self.chunk_length(), &self.sums)?;
                        continue;
                    }
                    Piece::Streamed(_) => unreachable!("both sequences of a pair stream together"),
                };
                let uploaded = UploadedBatch::new(device, &mut loaded.model, &part, &objective)?;
                let mut tape = Tape::inference();
                let reference = uploaded.reference_losses(&mut tape, &loaded.model, max_elements)?;
                let hidden = uploaded.hidden(&mut tape, &loaded.model)?;
                let of_pairs = (&hidden, reference.as_ref());
                uploaded.pair_loss(&mut tape, &loaded.model, of_pairs, &self.sums, max_elements)?;
                device.run(&tape.rec)?;
            }
        }
        let sums = device.read_f64(self.sums.pairs.span())?;
        Ok((sums[0], PairStats::of(&sums, counts)))
    }
}

/// The arena of the trainable parameters.
pub fn trained(loaded: &Loaded) -> Result<&Arena> {
    loaded.parameters().map(|parameters| parameters.arena)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::load::{Decay, Train, load};
    use crate::checkpoint::weights::WeightSource;
    use crate::data::dataset::Example;
    use crate::gpu::CpuExecutor;

    #[test]
    fn loss_gradients_and_norm_need_no_optimiser() {
        let device = &mut CpuExecutor::<f64>::new();
        let source = WeightSource::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k")).unwrap();
        let mut loaded = load(device, &source, None, Train::All(Decay::All)).unwrap();
        let example = |n: usize| {
            let ids: Vec<u32> = (0..n).map(|i| (i * 7 % 500 + 3) as u32).collect();
            Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }
        };
        let batches = [9, 30].map(|n| Batch::new(&[example(n)]));
        let step = GradientStep::new(device, false, None).unwrap();
        let n = step.run(device, &mut loaded, &batches, Attention::Dense, None, None).unwrap();
        let loss = device.read_f64(step.loss()).unwrap()[0];
        let mut squares = 0.0;
        for t in &loaded.trainables {
            let values = t.grad.pieces().iter().flat_map(|p| device.read_f64(&p.span).unwrap());
            squares += values.map(|g| g * g).sum::<f64>();
        }
        let norm = step.norm(device, &loaded).unwrap();
        assert!(norm > 0.1 && (norm - squares.sqrt()).abs() < 1e-9 * norm, "{norm} and {}", squares.sqrt());
        let sums = batches.each_ref().map(|b| step.evaluate(device, &mut loaded, b, Attention::Dense).unwrap());
        assert_eq!((n.targets, sums.map(|s| s.1)), (8 + 29, [8, 29]));
        let want = (sums[0].0 + sums[1].0) / 37.0;
        assert!((loss - want).abs() < 1e-6 * want, "{loss} and {want}");
        assert!(step.run(device, &mut loaded, &[Batch::default()], Attention::Dense, None, None).is_err());
    }

    #[test]
    fn a_model_that_is_not_trained_has_a_loss_and_no_norm() {
        let device = &mut CpuExecutor::<f32>::new();
        let source = WeightSource::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k")).unwrap();
        let mut loaded = load(device, &source, None, Train::Nothing).unwrap();
        let step = GradientStep::new(device, false, None).unwrap();
        let batch = Batch::new(&[Example { ids: vec![1, 2, 3], labels: vec![1, 2, 3], rejected: None }]);
        assert!(step.evaluate(device, &mut loaded, &batch, Attention::Dense).unwrap().0 > 0.0);
        assert!(step.norm(device, &loaded).is_err());
    }
}
