//! The training loss of one flat batch: next-token cross-entropy over the labelled tokens.

use std::rc::Rc;

use crate::attention::{Attention, TrainingLayouts};
use crate::autograd::{Tape, Var};
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::{Executor, Span, upload_words};
use crate::kernels::embedding::TokenIndex;
use crate::kernels::gather::{NOT_CHOSEN, gather_rows};
use crate::kernels::head::Head;
use crate::kernels::loss::{Need, cross_entropy};
use crate::model::block::{KeptLog, TrainingContext};
use crate::model::llama::Llama;
use crate::nn::Dropout;

/// Settings that are the same for all batches.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Dense or LRSA, for the layers with full attention.
    pub attention: Attention,
    /// Factor of the summed loss: 1 / labelled tokens of the whole optimiser step.
    pub scale: f32,
    /// Dropout of the adapters, `None` in evaluation.
    pub dropout: Option<Dropout>,
    /// Where to copy the selected indices, if wanted.
    pub kept: Option<KeptLog>,
}

/// A batch on the device.
#[derive(Debug)]
pub struct UploadedBatch {
    ids: TokenIndex,
    context: TrainingContext,
    /// Labelled rows, their inverse table and their labels; `None` if no token has a label.
    labelled: Option<[Span; 3]>,
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
            dropout: objective.dropout,
            kept: objective.kept.clone(),
        };
        let mut inverse = vec![NOT_CHOSEN; batch.ids.len()];
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (row, &label) in batch.labels_shifted.iter().enumerate() {
            if let Ok(label) = u32::try_from(label) {
                inverse[row] = rows.len() as u32;
                rows.push(row as u32);
                labels.push(label);
            }
        }
        let labelled = if rows.is_empty() {
            None
        } else {
            Some([
                upload_words(device, "labelled rows", &rows)?,
                upload_words(device, "inverse of labelled rows", &inverse)?,
                upload_words(device, "labels", &labels)?,
            ])
        };
        Ok(Self { ids, context, labelled, n_tokens: batch.ids.len() })
    }

    /// Appends the forward pass of the model: final hidden states [tokens, hidden].
    pub fn hidden(&self, tape: &mut Tape, model: &Llama) -> Result<Var> {
        model.forward(tape, &self.ids, &self.context)
    }

    /// Appends the loss [1, 1] of hidden states: scale · Σ −log p(label). Fails if no token has a
    /// label.
    pub fn loss(&self, tape: &mut Tape, model: &Llama, hidden: &Var, scale: f32, max_elements: usize) -> Result<Var> {
        let Some([rows, inverse, labels]) = &self.labelled else {
            return Err(Error::new("no token of the batch has a label, so there is nothing to train on"));
        };
        let chosen = if rows.len == self.n_tokens {
            hidden.clone()
        } else {
            tape.apply1(&[hidden], |rec, t| gather_rows(rec, &t[0], rows, inverse))?
        };
        let head = tape.param(model.head());
        let need =
            Need { hidden: tape.is_training() && chosen.needs_grad(), head: tape.is_training() && head.needs_grad() };
        tape.apply1(&[&chosen, &head], |rec, t| {
            let head = Head { weight: &t[1], ..model.output() };
            cross_entropy(rec, &t[0], head, labels, scale, need, max_elements)
        })
    }
}
