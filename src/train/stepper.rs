//! One optimiser step on the device: gradients, clipping and the update.

use std::collections::HashMap;
use std::time::Instant;

use super::distill::{Counts, Distill};
use super::gradient_step::{GradientStep, trained};
use super::objective::Objective;
use super::planned::PlannedMemory;
use super::preference::{PairCounts, PairStats, Preference};
use crate::attention::Attention;
use crate::checkpoint::load::Loaded;
use crate::data::batch::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Command, Executor, Lifetime, Plan, Reading, Recording};
use crate::nn::Dropout;
use crate::optim::{Optimizer, OptimizerState, UpdateRule};

/// Report of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Mean loss over the labelled tokens, before the update; of a distilled run the weighted sum
    /// of its parts.
    pub loss: f64,
    /// The parts of the loss of a distilled run.
    pub parts: Option<LossParts>,
    /// The statistics of preference pairs.
    pub pairs: Option<PairStats>,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens processed.
    pub n_tokens: usize,
    /// Tokens with a label.
    pub n_targets: usize,
    /// When the host found the step finished.
    pub done: Instant,
}

/// The parts of the loss of distillation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossParts {
    /// Mean cross-entropy over the labelled tokens; `None` if there are none.
    pub ce: Option<f64>,
    /// Mean divergence from the teacher over the positions that have a next token.
    pub kl: f64,
}

impl LossParts {
    /// The means of the two sums.
    pub(super) fn of([ce, kl]: [f64; 2], counts: Counts) -> Self {
        let ce = (counts.targets > 0).then(|| ce / counts.targets as f64);
        Self { ce, kl: kl / counts.positions.max(1) as f64 }
    }
}

/// A queued step. The next one may be queued before this one is reported.
pub struct StartedStep {
    loss: Reading<f64>,
    /// The sums of the parts, of a distilled run.
    parts: Option<[Reading<f64>; 2]>,
    /// The sums over preference pairs, and their counts.
    pairs: Option<(Reading<f64>, PairCounts)>,
    grad_norm: Reading<f64>,
    n_tokens: usize,
    counts: Counts,
    /// Optimiser step number, counting this one.
    step: u64,
}

impl StartedStep {
    /// Whether the report is available without waiting.
    pub fn is_ready(&self) -> bool {
        let parts = self.parts.iter().flatten().all(Reading::is_ready);
        let pairs = self.pairs.as_ref().is_none_or(|(sums, _)| sums.is_ready());
        parts && pairs && self.loss.is_ready() && self.grad_norm.is_ready()
    }

    /// Waits for the report. Fails if the loss or the gradient is not finite; the update has then
    /// changed nothing if it is the gradient.
    pub fn wait(self) -> Result<StepReport> {
        let Self { n_tokens, counts, step, .. } = self;
        let parts = match self.parts {
            None => None,
            Some([ce, kl]) => Some(LossParts::of([ce.wait()?[0], kl.wait()?[0]], counts)),
        };
        let pairs = match self.pairs {
            None => None,
            Some((sums, counts)) => Some(PairStats::of(&sums.wait()?, counts)),
        };
        let (loss, (grad_norm, done)) = (self.loss.wait()?[0], self.grad_norm.wait_timed()?);
        let grad_norm = grad_norm[0];
        if !loss.is_finite() || !grad_norm.is_finite() {
            let text = format!(
                "training diverged at step {step}: loss {loss}, gradient norm {grad_norm}. Lower `lr`, or set `clip` 1"
            );
            return Err(Error::of_kind(ErrorKind::Diverged, text));
        }
        Ok(StepReport { loss, parts, pairs, grad_norm, n_tokens, n_targets: counts.targets, done })
    }
}

/// Settings of a step, apart from the update rule and learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepSettings {
    /// Maximum gradient norm, 0 for none.
    pub clip: f64,
    /// Recompute each block's activations in the backward pass.
    pub recompute: bool,
    /// Longer sequences stream through the device in chunks of about this many tokens; `None`
    /// takes each batch at once.
    pub chunk: Option<usize>,
    /// Seed of the adapters' dropout and of the embeddings' noise.
    pub seed: u32,
    /// NEFTune's alpha: the strength of the noise of the embeddings, 0 for none.
    pub neftune: f64,
    /// Factor of the learning rate of an adapter's B matrices (LoRA+), `None` for 1.
    pub lora_plus: Option<f64>,
    /// Distillation from the dense model.
    pub distill: Option<Distill>,
    /// The loss of preference pairs, instead of the others.
    pub preference: Option<Preference>,
}

/// Runs optimiser steps.
pub struct Stepper {
    gradients: GradientStep,
    optimizer: Optimizer,
    settings: StepSettings,
    /// Batches run so far; seeds dropout and noise.
    n_micro: u32,
}

impl Stepper {
    /// A stepper for a model's trainable parameters, at step 0. Fails if there are none and for
    /// invalid settings.
    pub fn new(
        device: &mut dyn Executor,
        loaded: &Loaded,
        rule: Box<dyn UpdateRule>,
        settings: StepSettings,
    ) -> Result<Self> {
        let optimizer = Optimizer::new(device, loaded.parameters()?, rule)?;
        let optimizer = optimizer.with_lora_plus(settings.lora_plus.unwrap_or(1.0));
        Ok(Self {
            gradients: GradientStep::new(device, settings.recompute, settings.chunk)?,
            optimizer,
            settings,
            n_micro: 0,
        })
    }

    /// Losses and gradients without an update.
    pub fn gradients(&self) -> &GradientStep {
        &self.gradients
    }

    /// Streams sequences of more than one chunk of this many tokens from now on.
    pub(super) fn set_chunk(&mut self, chunk: Option<usize>) {
        self.settings.chunk = chunk;
        self.gradients.set_chunk(chunk);
    }

    /// Recomputes activations from now on, or keeps them.
    pub(super) fn set_recompute(&mut self, recompute: bool) {
        self.settings.recompute = recompute;
        self.gradients.set_recompute(recompute);
    }

    /// The length of the chunks, if sequences stream.
    pub fn chunk(&self) -> Option<usize> {
        self.settings.chunk
    }

    /// Updates done so far.
    pub fn n_steps(&self) -> u64 {
        self.optimizer.n_steps()
    }

    /// Batches run so far; seeds dropout.
    pub fn n_micro(&self) -> u32 {
        self.n_micro
    }

    /// Reads the optimiser's state.
    pub fn optimizer_state(&self, device: &mut dyn Executor) -> Result<OptimizerState> {
        self.optimizer.state(device)
    }

    /// Continues from an optimiser state and a number of batches run. Fails, and changes nothing,
    /// if the state is for other parameters or another rule.
    pub fn load_state(&mut self, device: &mut dyn Executor, state: &OptimizerState, n_micro: u32) -> Result<()> {
        self.optimizer.load_state(device, state)?;
        self.n_micro = n_micro;
        Ok(())
    }

    /// One update with the accumulated gradients of `batches`.
    pub fn step(
        &mut self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
        lr: f64,
    ) -> Result<StepReport> {
        self.start(device, loaded, batches, attention, lr)?.wait()
    }

    /// Queues one update with the accumulated gradients of `batches`.
    pub fn start(
        &mut self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
        lr: f64,
    ) -> Result<StartedStep> {
        self.run_gradients_of_step(device, loaded, batches, attention)?;
        self.start_update(device, loaded, batches, lr)
    }

    /// Sets the gradients to those of the next step. Nothing that is trained changes.
    pub(super) fn run_gradients_of_step(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
    ) -> Result<()> {
        self.run_gradients(device, loaded, batches, attention, Some(self.dropout(self.n_micro)))
    }

    /// Queues the update with the gradients of `batches`, which were run.
    pub(super) fn start_update(
        &mut self,
        device: &mut dyn Executor,
        loaded: &Loaded,
        batches: &[Batch],
        lr: f64,
    ) -> Result<StartedStep> {
        let distill = self.settings.distill;
        self.n_micro += batches.iter().filter(|&b| Counts::of([b]).trains(distill)).count() as u32;
        let parameters = loaded.parameters()?;
        let mut rec = Recording::new();
        let clipping = self.gradients.record_norm(&mut rec, parameters.arena, self.settings.clip);
        self.optimizer.record(&mut rec, parameters, &clipping, lr);
        device.run(&rec)?;
        let parts = match distill {
            None => None,
            Some(_) => {
                let [ce, kl] = self.gradients.parts();
                Some([device.start_read_f64(ce)?, device.start_read_f64(kl)?])
            }
        };
        let pairs = match self.settings.preference {
            None => None,
            Some(_) => Some((device.start_read_f64(self.gradients.pairs())?, PairCounts::of(batches))),
        };
        Ok(StartedStep {
            parts,
            pairs,
            loss: device.start_read_f64(self.gradients.loss())?,
            grad_norm: device.start_read_f64(&clipping)?,
            n_tokens: batches.iter().map(|b| b.ids.len()).sum(),
            counts: Counts::of(batches),
            step: self.optimizer.n_steps(),
        })
    }

    /// The random parts of a batch, by its number.
    fn dropout(&self, step: u32) -> Dropout {
        let StepSettings { seed, neftune, .. } = self.settings;
        Dropout { seed, step, first_token: 0, neftune: neftune as f32 }
    }

    /// Sets the gradients to those of `batches`, with the loss that the settings name.
    pub(super) fn run_gradients(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
        dropout: Option<Dropout>,
    ) -> Result<()> {
        let StepSettings { distill, preference, .. } = self.settings;
        match preference {
            Some(preference) => {
                self.gradients.run_pairs(device, loaded, batches, attention, dropout, preference).map(|_| ())
            }
            None => self.gradients.run(device, loaded, batches, attention, dropout, distill).map(|_| ()),
        }
    }

    /// Appends an update at learning rate 0 without counting it, to plan its memory and to time it.
    pub fn record_update(&self, rec: &mut Recording, loaded: &Loaded) -> Result<()> {
        let parameters = loaded.parameters()?;
        let clipping = self.gradients.record_norm(rec, parameters.arena, self.settings.clip);
        self.optimizer.preview(rec, parameters, &clipping);
        Ok(())
    }

    /// Rejects a batch that is known not to fit on the device; computes nothing.
    pub fn check(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<()> {
        if !Counts::of([batch]).trains(self.settings.distill) {
            return Ok(()); // steps skip such batches
        }
        let recordings = self.record_to_look_at(device, loaded, batch, attention)?;
        recordings.iter().flatten().try_for_each(|recording| device.check(recording))
    }

    /// The recordings of a step on this batch that take the most memory, for their sizes only: see
    /// [`GradientStep::record_largest`].
    fn record_to_look_at(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<Vec<Vec<Recording>>> {
        let dropout = Some(self.dropout(0));
        let distill = self.settings.distill.map(|d| (d.teacher, 1.0));
        let preference = self.settings.preference.map(|preference| (preference, PairCounts::of([batch])));
        let objective = Objective { attention, scale: 1.0, dropout, distill, preference, kept: None };
        self.gradients.record_largest(device, loaded, batch, &objective)
    }

    /// Peak device bytes of a step on this batch, including weights, gradients and optimiser slots.
    /// Plans the step as a run does and computes nothing.
    pub fn planned_bytes(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<u64> {
        Ok(self.planned(device, loaded, batch, attention)?.peak())
    }

    /// [`Stepper::planned_bytes`] by purpose.
    pub fn planned(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<PlannedMemory> {
        let before = device.memory().persistent_bytes;
        let trained_bytes: u64 = trained(loaded)?.slices.iter().map(|slice| slice.grads.n_bytes()).sum();
        let optimizer = trained_bytes + self.optimizer.slot_bytes();
        let lists = self.record_to_look_at(device, loaded, batch, attention)?;
        let mut update = Recording::new();
        self.gradients.record_clear(&mut update, loaded);
        self.record_update(&mut update, loaded)?;
        let bytes = |recordings: &[Recording]| {
            let mut held = HashMap::new();
            let all = || recordings.iter().chain([&update]);
            for (span, _) in all().flat_map(Recording::commands).flat_map(Command::uses) {
                if span.buffer.lifetime() == Lifetime::Persistent {
                    held.insert(span.buffer.id(), span.buffer.n_bytes());
                }
            }
            let activations = all().map(|rec| Plan::new(rec).peak_bytes()).max().unwrap_or(0);
            let held = held.values().sum::<u64>();
            let streamed = held.saturating_sub(before);
            PlannedMemory { weights: held.saturating_sub(optimizer + streamed), optimizer, streamed, activations }
        };
        Ok(lists.iter().map(|list| bytes(list)).max_by_key(PlannedMemory::peak).unwrap_or_else(|| bytes(&[])))
    }
}
