//! The training loss of one flat batch: next-token cross-entropy over the labelled tokens, with a
//! teacher the divergence from it over all tokens, or the loss of preference pairs.

use std::collections::HashSet;
use std::rc::Rc;

use super::distill::{Teacher, distilled_loss};
use super::preference::{PairCounts, Preference, UploadedPairs};
use crate::attention::{Attention, TrainingLayouts};
use crate::autograd::{Tape, Var};
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::{Executor, Span, upload_words};
use crate::kernels::distill::Scales;
use crate::kernels::elementwise::add_into;
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
    /// The loss of preference pairs instead of cross-entropy, and the counts of the whole optimiser
    /// step.
    pub preference: Option<(Preference, PairCounts)>,
    /// Where to copy the selected indices, if wanted.
    pub kept: Option<KeptLog>,
}

impl Objective {
    /// Whether a batch has any part in the loss.
    pub(super) fn trains(&self, batch: &Batch) -> bool {
        batch.n_targets > 0 || (self.distill.is_some() && batch.ids.len() > batch.sequences.len())
    }
}

/// A batch on the device.
#[derive(Debug)]
pub struct UploadedBatch {
    ids: TokenIndex,
    context: TrainingContext,
    /// The teacher's forward, and the factor of the divergence from it.
    teacher: Option<(TrainingContext, f32)>,
    /// `None` if there are none.
    rows: Option<LossRows>,
    /// The pairs of preference training, which then has no other loss.
    pairs: Option<UploadedPairs>,
}

/// The rows of the loss among consecutive tokens, on the device: those with a label, and with a
/// teacher all that have a next token.
#[derive(Debug)]
pub struct LossRows {
    /// The rows, their inverse table and their labels.
    tables: [Span; 3],
    n_tokens: usize,
}

/// Where the losses of a step add up.
#[derive(Debug)]
pub(super) struct Sums {
    /// [1, 1], which holds 1: the gradient of a loss.
    pub(super) one: Tensor,
    pub(super) loss: Tensor,
    /// Σ cross-entropy and Σ divergence of distillation, without their factors.
    pub(super) parts: [Tensor; 2],
    /// [1, 4]: the sums over preference pairs.
    pub(super) pairs: Tensor,
}

impl UploadedBatch {
    /// Checks and uploads a batch.
    pub fn new(device: &mut dyn Executor, model: &mut Llama, batch: &Batch, objective: &Objective) -> Result<Self> {
        model.check_ids(&batch.ids)?;
        model.reserve_positions(device, batch.longest)?;
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
        let ends: HashSet<usize> = batch.sequences.iter().map(|&(start, n)| start + n - 1).collect();
        let rows = match objective.preference {
            Some(_) => None,
            None => LossRows::upload(device, &batch.labels_shifted, |row| teacher.is_some() && !ends.contains(&row))?,
        };
        let pairs = objective.preference.map(|preference| UploadedPairs::new(device, batch, preference)).transpose()?;
        Ok(Self { ids, context, teacher, rows, pairs })
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
        Ok(Some(self.rows()?.of(tape, &hidden)?.tensor))
    }

    /// Appends the forward pass of the reference model to an inference tape: its losses in the rows
    /// of preference pairs, or `None` where the loss has no reference.
    pub(super) fn reference_losses(&self, tape: &mut Tape, model: &Llama, max_elements: usize) -> Result<Option<Span>> {
        let Some(pairs) = self.pairs.as_ref().filter(|pairs| pairs.has_reference()) else { return Ok(None) };
        let context = TrainingContext { adapters: Adapters::Reference, kept: None, ..self.context.clone() };
        let hidden = model.forward(tape, &self.ids, &context)?;
        pairs.losses(tape, model, &hidden, max_elements).map(Some)
    }

    /// Appends the loss [1, 1] of preference pairs, and adds it and their statistics to the sums.
    /// `None` for other batches.
    pub(super) fn pair_loss(
        &self,
        tape: &mut Tape,
        model: &Llama,
        (hidden, reference): (&Var, Option<&Span>),
        sums: &Sums,
        max_elements: usize,
    ) -> Result<Option<Var>> {
        let loss = |pairs: &UploadedPairs| pairs.summed_loss(tape, model, (hidden, reference), sums, max_elements);
        self.pairs.as_ref().map(loss).transpose()
    }

    fn rows(&self) -> Result<&LossRows> {
        self.rows
            .as_ref()
            .ok_or_else(|| Error::new("no token of the batch has a label, so there is nothing to train on"))
    }

    /// Appends the loss [1, 1] of hidden states: scale · Σ −log p(label). Fails if no token has a
    /// label.
    pub fn loss(&self, tape: &mut Tape, model: &Llama, hidden: &Var, scale: f32, max_elements: usize) -> Result<Var> {
        self.rows()?.loss(tape, model, hidden, scale, max_elements)
    }

    /// Appends the loss [1, 1] of hidden states, and adds it to the sums. `teacher` are the hidden
    /// states of [`UploadedBatch::teacher_hidden`].
    pub(super) fn summed_loss(
        &self,
        tape: &mut Tape,
        model: &Llama,
        (hidden, teacher): (&Var, Option<&Tensor>),
        scale: f32,
        sums: &Sums,
        max_elements: usize,
    ) -> Result<Var> {
        let scales = Scales { ce: scale, kl: self.teacher.as_ref().map_or(0.0, |t| t.1) };
        self.rows()?.summed_loss(tape, model, (hidden, teacher), scales, sums, max_elements)
    }
}

impl LossRows {
    /// Uploads the rows of the loss among tokens with these labels; `None` if there are none.
    /// `counts` says which rows count even without a label.
    pub fn upload(
        device: &mut dyn Executor,
        labels_shifted: &[i32],
        counts: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>> {
        let mut inverse = vec![NOT_CHOSEN; labels_shifted.len()];
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (row, &label) in labels_shifted.iter().enumerate() {
            let label = u32::try_from(label).ok();
            if label.is_some() || counts(row) {
                inverse[row] = rows.len() as u32;
                rows.push(row as u32);
                labels.push(label.unwrap_or(loss::IGNORED));
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let tables = [
            upload_words(device, "rows of the loss", &rows)?,
            upload_words(device, "inverse of the rows of the loss", &inverse)?,
            upload_words(device, "labels", &labels)?,
        ];
        Ok(Some(Self { tables, n_tokens: labels_shifted.len() }))
    }

    /// The label of each row.
    pub(super) fn labels(&self) -> &Span {
        &self.tables[2]
    }

    /// The rows of the loss among the hidden states of all tokens.
    pub fn of(&self, tape: &mut Tape, hidden: &Var) -> Result<Var> {
        let [rows, inverse, _] = &self.tables;
        if rows.len == self.n_tokens {
            return Ok(hidden.clone());
        }
        tape.apply1(&[hidden], |rec, t| gather_rows(rec, &t[0], rows, inverse))
    }

    /// Appends the loss [1, 1] of the tokens' hidden states: scale · Σ −log p(label).
    pub fn loss(&self, tape: &mut Tape, model: &Llama, hidden: &Var, scale: f32, max_elements: usize) -> Result<Var> {
        let chosen = self.of(tape, hidden)?;
        let head = tape.param(model.head());
        let need =
            Need { hidden: tape.is_training() && chosen.needs_grad(), head: tape.is_training() && head.needs_grad() };
        tape.apply1(&[&chosen, &head], |rec, t| {
            let head = Head { weight: &t[1], ..model.output() };
            cross_entropy(rec, &t[0], head, &self.tables[2], scale, need, max_elements)
        })
    }

    /// Appends the loss [1, 1] of the tokens' hidden states, and adds it to the sums. `teacher` has
    /// hidden states of the rows of the loss.
    pub(super) fn summed_loss(
        &self,
        tape: &mut Tape,
        model: &Llama,
        (hidden, teacher): (&Var, Option<&Tensor>),
        scales: Scales,
        sums: &Sums,
        max_elements: usize,
    ) -> Result<Var> {
        let loss = match teacher {
            None => self.loss(tape, model, hidden, scales.ce, max_elements)?,
            Some(teacher) => {
                let chosen = self.of(tape, hidden)?;
                let labels = &self.tables[2];
                let (loss, parts) = distilled_loss(tape, model, &chosen, teacher, labels, scales, max_elements)?;
                add_into(&mut tape.rec, &parts.ce, &sums.parts[0]);
                add_into(&mut tape.rec, &parts.kl, &sums.parts[1]);
                loss
            }
        };
        add_into(&mut tape.rec, &loss.tensor, &sums.loss);
        Ok(loss)
    }
}
