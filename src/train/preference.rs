//! Preference training by DPO and ORPO: the settings, and the loss of pairs of answers.
//!
//! A batch of n pairs has 2n sequences, each chosen one before its rejected one. The reference model
//! of DPO is the model as it was before the run: with its adapter off, or with the adapter that the
//! run continues as it was loaded. It attends as the model in training does: with another cache, the
//! ratio of the two probabilities would measure the cache, too.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::loss_rows::{LossRows, Sums};
use crate::autograd::{Tape, Var};
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::data::batch::Batch;
use crate::data::dataset::{Example, IGNORED};
use crate::error::{Error, Result};
use crate::gpu::{Executor, Span, upload_words};
use crate::kernels::head::Head;
use crate::kernels::loss::{Need, row_losses};
use crate::kernels::preference::{PairFactors, PairLoss, PairRows, preference};
use crate::model::llama::Llama;

/// What a run learns from, and the loss that it minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// Supervised fine-tuning: the cross-entropy of the labelled tokens
    #[default]
    Sft,
    /// Direct preference optimisation: preference pairs, against the model as it was before the run
    Dpo,
    /// Odds-ratio preference optimisation: preference pairs, without a reference model
    Orpo,
}

impl ObjectiveKind {
    /// Whether it learns from preference pairs.
    pub fn takes_pairs(self) -> bool {
        self != Self::Sft
    }

    /// The value of the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Dpo => "dpo",
            Self::Orpo => "orpo",
        }
    }

    /// Rejects examples that it cannot learn from.
    pub fn check(self, examples: &[Example]) -> Result<()> {
        let name = self.name();
        let n_pairs = examples.iter().filter(|e| e.rejected.is_some()).count();
        match self.takes_pairs() {
            true if n_pairs < examples.len() => Err(Error::usage(format!(
                "`objective` {name} learns from preference pairs, but the data has other examples: give lines with \
                 \"prompt\", \"chosen\" and \"rejected\", or use `objective` sft"
            ))),
            false if n_pairs > 0 => Err(Error::usage(
                "`objective` sft learns from one answer, but the data has preference pairs (\"chosen\" and \"rejected\"): \
                 use `objective` dpo or orpo, or give \"prompt\" and \"completion\"",
            )),
            _ => Ok(()),
        }
    }
}

/// The loss of preference pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preference {
    /// Whether a pair is judged against the reference model: DPO, or else ORPO.
    pub with_reference: bool,
    /// Strength of the preference.
    pub beta: f64,
}

impl Preference {
    /// Rejects a reference model that training changes: without an adapter, and if the adapter
    /// replaces whole modules.
    pub fn check(&self, adapter: Option<&AdapterConfig>) -> Result<()> {
        if !self.with_reference {
            return Ok(());
        }
        let Some(adapter) = adapter else {
            return Err(Error::usage(
                "the reference model of `objective` dpo is the model as it was, which `method` full changes: use `method` \
                 lora or `objective` orpo",
            ));
        };
        match adapter.targets.to_save.as_slice() {
            [] => Ok(()),
            modules => Err(Error::usage(format!(
                "the reference model of `objective` dpo is the model as it was, but `modules_to_save` replaces {}: leave them \
                 out, or use `objective` orpo",
                modules.join(", ")
            ))),
        }
    }
}

/// The counts that the loss of an optimiser step divides by, over all its batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Preference pairs.
    pub pairs: usize,
    /// Tokens of the chosen sequences that have a token before them.
    pub tokens: usize,
}

impl PairCounts {
    /// The counts of some batches of pairs.
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Self {
        let mut counts = Self::default();
        for batch in batches {
            counts.pairs += batch.sequences.len() / 2;
            counts.tokens += batch.sequences.iter().step_by(2).map(|&(_, n)| n - 1).sum::<usize>();
        }
        counts
    }
}

/// Means over the pairs of a step or of the validation data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairStats {
    /// Reward of the chosen answers: with DPO beta · (log p − log p of the reference), with ORPO
    /// beta · the mean of log p over the answer's tokens.
    pub rewards_chosen: f64,
    /// Reward of the rejected answers.
    pub rewards_rejected: f64,
    /// `rewards_chosen` - `rewards_rejected`.
    pub margin: f64,
    /// Share of the pairs whose chosen answer has the higher reward.
    pub accuracy: f64,
}

impl PairStats {
    /// The means of the sums that [`preference`] returns.
    pub(super) fn of(sums: &[f64], counts: PairCounts) -> Self {
        let mean = |i: usize| sums[i] / counts.pairs.max(1) as f64;
        let (rewards_chosen, rewards_rejected) = (mean(1), mean(2));
        let margin = rewards_chosen - rewards_rejected;
        Self { rewards_chosen, rewards_rejected, margin, accuracy: mean(3) }
    }
}

/// The rows of pairs that have a part in the loss: those of both answers and, for ORPO, those of the
/// chosen prompts.
#[derive(Debug)]
pub(super) struct PairTables {
    /// The label of each token of the batch, [`IGNORED`] outside these rows.
    pub(super) labels: Vec<i32>,
    /// 1 in the rows of an answer, 0 in those of a prompt.
    answers: Vec<u32>,
    /// Of each pair the first row of the chosen sequence, that of the rejected one, and the end of both.
    bounds: Vec<u32>,
}

impl PairTables {
    /// The rows of a batch. Fails if it does not consist of pairs, or if an answer has no label.
    pub(super) fn of(batch: &Batch, preference: Preference) -> Result<Self> {
        let is_paired = batch.sequences.len().is_multiple_of(2) && !batch.sequences.is_empty();
        crate::ensure!(is_paired, "preferences are learnt from pairs of sequences, but the batch has other ones");
        let mut labels = vec![IGNORED; batch.ids.len()];
        let (mut answers, mut bounds) = (Vec::new(), Vec::new());
        for (i, &(start, n)) in batch.sequences.iter().enumerate() {
            let is_chosen = i.is_multiple_of(2);
            let first = answers.len();
            let targets = batch.labels_shifted[start..start + n - 1].iter().zip(&batch.ids[start + 1..]);
            for (i, (&label, &next)) in targets.enumerate() {
                let is_answer = label != IGNORED;
                if is_answer || (is_chosen && !preference.with_reference) {
                    labels[start + i] = if is_answer { label } else { next as i32 };
                    answers.push(u32::from(is_answer));
                }
            }
            crate::ensure!(
                answers[first..].contains(&1),
                "no token of an answer of a preference pair has a label: there is nothing to compare"
            );
            bounds.push(first as u32);
            if !is_chosen {
                bounds.push(answers.len() as u32);
            }
        }
        Ok(Self { labels, answers, bounds })
    }
}

/// What the loss of some pairs needs of them, on the device.
#[derive(Debug)]
pub(super) struct PairsOnDevice {
    bounds: Span,
    answers: Span,
    preference: Preference,
    /// Of the whole step.
    counts: PairCounts,
}

impl PairsOnDevice {
    pub(super) fn upload(
        device: &mut dyn Executor,
        tables: &PairTables,
        (preference, counts): (Preference, PairCounts),
    ) -> Result<Self> {
        Ok(Self {
            bounds: upload_words(device, "bounds of pairs", &tables.bounds)?,
            answers: upload_words(device, "rows of answers", &tables.answers)?,
            preference,
            counts,
        })
    }

    /// Whether the loss needs the reference model.
    pub(super) fn has_reference(&self) -> bool {
        self.preference.with_reference
    }

    /// The rows with these labels, and the loss given the losses of the reference model.
    pub(super) fn terms<'a>(
        &'a self,
        labels: &'a Span,
        reference: Option<&'a Span>,
    ) -> (PairRows<'a>, PairLoss<'a>, PairFactors) {
        let loss = match reference {
            Some(reference) => PairLoss::Dpo { reference },
            None => PairLoss::Orpo { tokens: self.counts.tokens },
        };
        let factors = PairFactors { beta: self.preference.beta as f32, total: self.counts.pairs };
        (PairRows { labels, bounds: &self.bounds, answers: &self.answers }, loss, factors)
    }
}

/// The rows of a batch of pairs on the device.
#[derive(Debug)]
pub(super) struct UploadedPairs {
    rows: LossRows,
    pairs: PairsOnDevice,
}

impl UploadedPairs {
    /// Uploads the rows of the loss. Fails as [`PairTables::of`] does.
    pub(super) fn new(device: &mut dyn Executor, batch: &Batch, preference: (Preference, PairCounts)) -> Result<Self> {
        let tables = PairTables::of(batch, preference.0)?;
        let rows = LossRows::upload(device, &tables.labels, |_| false)?;
        let rows = rows.ok_or_else(|| Error::new("the batch has no pairs"))?;
        Ok(Self { rows, pairs: PairsOnDevice::upload(device, &tables, preference)? })
    }

    /// Whether the loss needs the reference model.
    pub(super) fn has_reference(&self) -> bool {
        self.pairs.has_reference()
    }

    /// Appends −log p(label) of each row, given hidden states of all tokens.
    pub(super) fn losses(&self, tape: &mut Tape, model: &Llama, hidden: &Var, max_elements: usize) -> Result<Span> {
        let chosen = self.rows.of(tape, hidden)?.tensor;
        row_losses(&mut tape.rec, &chosen, model.output(), self.rows.labels(), max_elements)
    }

    /// Appends the loss [1, 1] of the pairs, and adds it and their statistics to the sums. `reference`
    /// are the losses of the reference model.
    pub(super) fn summed_loss(
        &self,
        tape: &mut Tape,
        model: &Llama,
        (hidden, reference): (&Var, Option<&Span>),
        sums: &Sums,
        max_elements: usize,
    ) -> Result<Var> {
        let chosen = self.rows.of(tape, hidden)?;
        let head = tape.param(model.head());
        let need = Need { hidden: tape.needs(&chosen), head: tape.needs(&head) };
        let (rows, kind, factors) = self.pairs.terms(self.rows.labels(), reference);
        let mut stats = None;
        let loss = tape.apply1(&[&chosen, &head], |rec, t| {
            let head = Head { weight: &t[1], ..model.output() };
            let (applied, sums) = preference(rec, (&t[0], head), rows, kind, factors, need, max_elements)?;
            stats = Some(sums);
            Ok(applied)
        })?;
        sums.add_pairs(&mut tape.rec, &stats.expect("the op ran"));
        Ok(loss)
    }
}
