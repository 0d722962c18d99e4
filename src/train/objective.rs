//! The training loss of one flat batch: next-token cross-entropy over the labelled tokens, and with
//! a teacher the divergence from it over all tokens.

use std::rc::Rc;

use super::distill::{Teacher, distilled_loss};
use crate::attention::{Attention, TrainingLayouts};
use crate::autograd::{Tape, Var};
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::{Executor, Span, upload_words};
use crate::kernels::distill::{Parts, Scales};
use crate::kernels::embedding::TokenIndex;
use crate::kernels::gather::{NOT_CHOSEN, gather_rows};
use crate::kernels::head::Head;
use crate::kernels::loss::{self, Need, cross_entropy};
use crate::model::block::{KeptLog, TrainingContext};
use crate::model::llama::Llama;
use crate::nn::{Adapters, Dropout};
use crate::tensor::Tensor;

/// Settings that are the same for all batches.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Dense or LRSA, for the layers with full attention.
    pub attention: Attention,
    /// Factor of the summed cross-entropy: its weight / labelled tokens of the whole optimiser step.
    pub scale: f32,
    /// Dropout of the adapters, `None` in evaluation.
    pub dropout: Option<Dropout>,
    /// The teacher, and the factor of the summed divergence from it: its weight / positions of the
    /// whole optimiser step that have a next token.
    pub distill: Option<(Teacher, f32)>,
    /// Where to copy the selected indices, if wanted.
    pub kept: Option<KeptLog>,
}

/// A batch on the device.
#[derive(Debug)]
pub struct UploadedBatch {
    ids: TokenIndex,
    context: TrainingContext,
    /// The teacher's forward, and the factor of the divergence from it.
    teacher: Option<(TrainingContext, f32)>,
    /// Rows of the loss, their inverse table and their labels; `None` if there are none. They are
    /// the rows with a label, and with a teacher all that have a next token.
    chosen: Option<[Span; 3]>,
    n_tokens: usize,
}

impl UploadedBatch {
    /// Checks and uploads a batch.
    pub fn new(device: &mut dyn Executor, model: &mut Llama, batch: &Batch, objective: &Objective) -> Result<Self> {
        let longest = batch.sequences.iter().map(|s| s.1).max().unwrap_or(0);
        if let Some(id) = batch.ids.iter().find(|&&id| id as usize >= model.config.vocab) {
            return Err(Error::new(format!("token {id} is outside the model's vocabulary of {}", model.config.vocab)));
        }
        model.reserve_positions(device, longest)?;
        let ids = TokenIndex::upload(device, &batch.ids, model.trains_embedding())?;
        let layers = model.config.layer_attentions(objective.attention);
        let layouts = TrainingLayouts::upload(device, &layers, model.heads(), &batch.sequences)?;
        let positions: Vec<u32> = batch.sequences.iter().flat_map(|&(_, n)| 0..n as u32).collect();
        let context = TrainingContext {
            layouts: Rc::new(layouts),
            positions: upload_words(device, "positions", &positions)?,
            rotations: model.rotations(),
            adapters: Adapters::On(objective.dropout),
            kept: objective.kept.clone(),
        };
        let teacher = match objective.distill {
            None => None,
            Some((teacher, scale)) => {
                let layers = model.config.layer_attentions(Attention::Dense);
                let layouts = TrainingLayouts::upload(device, &layers, model.heads(), &batch.sequences)?;
                let (layouts, adapters) = (Rc::new(layouts), teacher.adapters());
                Some((TrainingContext { layouts, adapters, kept: None, ..context.clone() }, scale))
            }
        };
        let mut inverse = vec![NOT_CHOSEN; batch.ids.len()];
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for &(start, n) in &batch.sequences {
            for row in start..start + n {
                let label = u32::try_from(batch.labels_shifted[row]).ok();
                if label.is_some() || (teacher.is_some() && row + 1 < start + n) {
                    inverse[row] = rows.len() as u32;
                    rows.push(row as u32);
                    labels.push(label.unwrap_or(loss::IGNORED));
                }
            }
        }
        let chosen = if rows.is_empty() {
            None
        } else {
            Some([
                upload_words(device, "rows of the loss", &rows)?,
                upload_words(device, "inverse of the rows of the loss", &inverse)?,
                upload_words(device, "labels", &labels)?,
            ])
        };
        Ok(Self { ids, context, teacher, chosen, n_tokens: batch.ids.len() })
    }

    /// Appends the forward pass of the model: final hidden states [tokens, hidden].
    pub fn hidden(&self, tape: &mut Tape, model: &Llama) -> Result<Var> {
        model.forward(tape, &self.ids, &self.context)
    }

    /// Appends the forward pass of the teacher to an inference tape: its final hidden states in the
    /// rows of the loss, or `None` without a teacher.
    pub fn teacher_hidden(&self, tape: &mut Tape, model: &Llama) -> Result<Option<Tensor>> {
        let Some((context, _)) = &self.teacher else { return Ok(None) };
        let hidden = model.forward(tape, &self.ids, context)?;
        let (chosen, _) = self.rows_of_the_loss(tape, &hidden)?;
        Ok(Some(chosen.tensor))
    }

    /// Appends the loss [1, 1] of hidden states: scale · Σ −log p(label). Fails if no token has a
    /// label.
    pub fn loss(&self, tape: &mut Tape, model: &Llama, hidden: &Var, scale: f32, max_elements: usize) -> Result<Var> {
        let (chosen, labels) = self.rows_of_the_loss(tape, hidden)?;
        let head = tape.param(model.head());
        let need =
            Need { hidden: tape.is_training() && chosen.needs_grad(), head: tape.is_training() && head.needs_grad() };
        tape.apply1(&[&chosen, &head], |rec, t| {
            let head = Head { weight: &t[1], ..model.output() };
            cross_entropy(rec, &t[0], head, labels, scale, need, max_elements)
        })
    }

    /// Appends the loss [1, 1] of hidden states that learn from those of
    /// [`UploadedBatch::teacher_hidden`]: scale · Σ −log p(label), and the factor of the objective
    /// times the summed divergence. Also returns the two sums.
    pub fn distilled_loss(
        &self,
        tape: &mut Tape,
        model: &Llama,
        hidden: &Var,
        teacher: &Tensor,
        scale: f32,
        max_elements: usize,
    ) -> Result<(Var, Parts)> {
        let (chosen, labels) = self.rows_of_the_loss(tape, hidden)?;
        let scales = Scales { ce: scale, kl: self.teacher.as_ref().map_or(0.0, |t| t.1) };
        distilled_loss(tape, model, &chosen, teacher, labels, scales, max_elements)
    }

    /// The rows of the loss, and their labels.
    fn rows_of_the_loss(&self, tape: &mut Tape, hidden: &Var) -> Result<(Var, &Span)> {
        let Some([rows, inverse, labels]) = &self.chosen else {
            return Err(Error::new("no token of the batch has a label, so there is nothing to train on"));
        };
        if rows.len == self.n_tokens {
            return Ok((hidden.clone(), labels));
        }
        Ok((tape.apply1(&[hidden], |rec, t| gather_rows(rec, &t[0], rows, inverse))?, labels))
    }
}
