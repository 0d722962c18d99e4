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
    /// `None` if no token has a label.
    labelled: Option<Labelled>,
}

/// The labels of a run of tokens on the device.
#[derive(Debug)]
pub struct Labelled {
    /// Labelled rows, their inverse table and their labels.
    tables: [Span; 3],
    n_tokens: usize,
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
            dropout: objective.dropout,
            kept: objective.kept.clone(),
        };
        let labelled = Labelled::upload(device, &batch.labels_shifted)?;
        Ok(Self { ids, context, labelled })
    }

    /// Appends the forward pass of the model: final hidden states [tokens, hidden].
    pub fn hidden(&self, tape: &mut Tape, model: &Llama) -> Result<Var> {
        model.forward(tape, &self.ids, &self.context)
    }

    /// Appends the loss [1, 1] of hidden states: scale · Σ −log p(label). Fails if no token has a
    /// label.
    pub fn loss(&self, tape: &mut Tape, model: &Llama, hidden: &Var, scale: f32, max_elements: usize) -> Result<Var> {
        let Some(labelled) = &self.labelled else {
            return Err(Error::new("no token of the batch has a label, so there is nothing to train on"));
        };
        labelled.loss(tape, model, hidden, scale, max_elements)
    }
}

impl Labelled {
    /// Uploads the labels of consecutive tokens, each the token's successor; `None` if all are
    /// ignored.
    pub fn upload(device: &mut dyn Executor, labels_shifted: &[i32]) -> Result<Option<Self>> {
        let mut inverse = vec![NOT_CHOSEN; labels_shifted.len()];
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for (row, &label) in labels_shifted.iter().enumerate() {
            if let Ok(label) = u32::try_from(label) {
                inverse[row] = rows.len() as u32;
                rows.push(row as u32);
                labels.push(label);
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let tables = [
            upload_words(device, "labelled rows", &rows)?,
            upload_words(device, "inverse of labelled rows", &inverse)?,
            upload_words(device, "labels", &labels)?,
        ];
        Ok(Some(Self { tables, n_tokens: labels_shifted.len() }))
    }

    /// Appends the loss [1, 1] of the tokens' hidden states: scale · Σ −log p(label).
    pub fn loss(&self, tape: &mut Tape, model: &Llama, hidden: &Var, scale: f32, max_elements: usize) -> Result<Var> {
        let [rows, inverse, labels] = &self.tables;
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
