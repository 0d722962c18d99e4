//! The rows of a batch that have a part in the loss, and the sums of the losses of a step.

use super::distill::distilled_loss;
use crate::autograd::{Tape, Var};
use crate::error::Result;
use crate::gpu::{Executor, Recording, Span, upload_words};
use crate::kernels::distill::Scales;
use crate::kernels::elementwise::add_into;
use crate::kernels::gather::{NOT_CHOSEN, gather_rows};
use crate::kernels::head::Head;
use crate::kernels::loss::{self, Need, cross_entropy};
use crate::model::llama::Llama;
use crate::tensor::Tensor;

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

impl Sums {
    /// Adds the sums [1, 4] over some pairs, of which the first is their loss.
    pub(super) fn add_pairs(&self, rec: &mut Recording, sums: &Tensor) {
        add_into(rec, &Tensor::from_span(sums.span().prefix(1), 1, 1), &self.loss);
        add_into(rec, sums, &self.pairs);
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
        let need = Need { hidden: tape.needs(&chosen), head: tape.needs(&head) };

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
