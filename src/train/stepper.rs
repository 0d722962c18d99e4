//! One optimiser step: micro-batches forward and backward into the gradient arenas, then clip and AdamW, all on the device.
//!
//! The loss is the sum over the labelled tokens of the whole step divided by their count, so accumulation weighs every
//! token alike. It is computed before the update.

use std::collections::HashMap;
use std::time::Instant;

use super::objective::{Objective, UploadedBatch};
use crate::attention::Attention;
use crate::autograd::Tape;
use crate::checkpoint::load::Loaded;
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::{Command, Executor, Lifetime, Plan, Reading, Recording};
use crate::kernels::elementwise::add_into;
use crate::nn::Dropout;
use crate::optim::{AdamW, AdamWConfig};
use crate::tensor::{Format, Tensor, copy_tensor};

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// Mean loss over the labelled tokens, before the update.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens fed.
    pub n_tokens: usize,
    /// Tokens with a label.
    pub n_targets: usize,
    /// When the device was found done with it.
    pub done: Instant,
}

/// A step that was queued; the next may be queued before its report is waited for.
pub struct StartedStep {
    loss: Reading<f64>,
    grad_norm: Reading<f64>,
    n_tokens: usize,
    n_targets: usize,
    /// Of the optimiser, this one counted.
    step: u64,
}

impl StartedStep {
    /// Whether the report is there without waiting.
    pub fn is_ready(&self) -> bool {
        self.loss.is_ready() && self.grad_norm.is_ready()
    }

    /// The report. An error if the loss or the gradient is not finite.
    pub fn wait(self) -> Result<StepReport> {
        let Self { n_tokens, n_targets, step, .. } = self;
        let (loss, (grad_norm, done)) = (self.loss.wait()?[0], self.grad_norm.wait_timed()?);
        let grad_norm = grad_norm[0];
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(Error::new(format!(
                "training diverged at step {step}: loss {loss}, gradient norm {grad_norm}. Lower --lr, or set --clip 1"
            )));
        }
        Ok(StepReport { loss, grad_norm, n_tokens, n_targets, done })
    }
}

/// Runs optimiser steps and evaluations.
pub struct Stepper {
    optimizer: AdamW,
    /// Recompute each block's activations in the backward pass.
    recompute: bool,
    /// Seed of the adapters' dropout.
    seed: u32,
    n_micro: u32,
    one: Tensor,
    loss: Tensor,
}

impl Stepper {
    /// A stepper whose moments start at zero.
    pub fn new(device: &mut dyn Executor, config: AdamWConfig, recompute: bool, seed: u32) -> Result<Self> {
        let scalar = |label: &str| Tensor::persistent(label, Format::F32, 1, 1, &device.limits());
        let (one, loss) = (scalar("one")?, scalar("loss")?);
        one.write(device, &[1.0])?;
        Ok(Self { optimizer: AdamW::new(config)?, recompute, seed, n_micro: 0, one, loss })
    }

    /// Updates done so far.
    pub fn n_steps(&self) -> u64 {
        self.optimizer.step
    }

    /// One update from `batches`, which are accumulated.
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

    /// Queues one update from `batches`, which are accumulated.
    pub fn start(
        &mut self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batches: &[Batch],
        attention: Attention,
        lr: f64,
    ) -> Result<StartedStep> {
        let n_targets: usize = batches.iter().map(|b| b.n_targets).sum();
        if n_targets == 0 {
            return Err(Error::new("no token of this step has a label: there is nothing to learn from it"));
        }
        self.clear_grads(device, loaded)?;
        for batch in batches.iter().filter(|b| b.n_targets > 0) {
            let dropout = Some(Dropout { seed: self.seed, step: self.n_micro });
            let objective = Objective { attention, scale: (1.0 / n_targets as f64) as f32, dropout, kept: None };
            let recording = self.record(device, loaded, batch, &objective)?;
            device.run(&recording)?;
            self.n_micro += 1;
        }
        let Some(arena) = &loaded.arena else {
            return Err(Error::new("the model was loaded without anything to train"));
        };
        let mut rec = Recording::new();
        let state = self.optimizer.record(&mut rec, arena, lr);
        device.run(&rec)?;
        Ok(StartedStep {
            loss: device.start_read_f64(self.loss.span())?,
            grad_norm: device.start_read_f64(state.span())?,
            n_tokens: batches.iter().map(|b| b.ids.len()).sum(),
            n_targets,
            step: self.optimizer.step,
        })
    }

    /// Sets all gradients and the loss to zero.
    pub fn clear_grads(&self, device: &mut dyn Executor, loaded: &Loaded) -> Result<()> {
        let mut rec = Recording::new();
        self.record_clear(&mut rec, loaded);
        device.run(&rec)
    }

    /// Appends what [`Stepper::clear_grads`] does.
    pub fn record_clear(&self, rec: &mut Recording, loaded: &Loaded) {
        if let Some(arena) = &loaded.arena {
            arena.clear_grads(rec);
        }
        rec.clear(self.loss.span());
    }

    /// Adds the gradients and the loss of one batch; returns the loss so far.
    pub fn accumulate(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        objective: &Objective,
    ) -> Result<f64> {
        let recording = self.record(device, loaded, batch, objective)?;
        device.run(&recording)?;
        Ok(device.read_f64(self.loss.span())?[0])
    }

    /// Uploads a batch and records its forward and backward, which add to the gradients of the arena and to the loss.
    pub fn record(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        objective: &Objective,
    ) -> Result<Recording> {
        let uploaded = UploadedBatch::new(device, &mut loaded.model, batch, objective)?;
        let max_elements = device.limits().max_elements();
        let mut tape = Tape::training(self.recompute);
        let hidden = uploaded.hidden(&mut tape, &loaded.model)?;
        let loss = uploaded.loss(&mut tape, &loaded.model, &hidden, objective.scale, max_elements)?;
        add_into(&mut tape.rec, &loss.tensor, &self.loss);
        tape.backward(&loss, &self.one)?;
        Ok(tape.rec)
    }

    /// Refuses a batch that the device is known to be unable to train on; nothing is computed.
    pub fn check(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<()> {
        if batch.n_targets == 0 {
            return Ok(()); // such a batch is left out of a step
        }
        let recording = self.record_to_look_at(device, loaded, batch, attention)?;
        device.check(&recording)
    }

    /// What a step on this batch would be, as far as its sizes go.
    fn record_to_look_at(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<Recording> {
        let dropout = Some(Dropout { seed: self.seed, step: 0 });
        self.record(device, loaded, batch, &Objective { attention, scale: 1.0, dropout, kept: None })
    }

    /// Bytes on the device at the peak of a step on this batch, with the weights, the gradients and the optimiser's moments. It is
    /// planned as a run plans it; nothing is computed.
    pub fn planned_bytes(
        &self,
        device: &mut dyn Executor,
        loaded: &mut Loaded,
        batch: &Batch,
        attention: Attention,
    ) -> Result<u64> {
        let step = self.record_to_look_at(device, loaded, batch, attention)?;
        let mut update = Recording::new();
        self.record_clear(&mut update, loaded);
        if let Some(arena) = &loaded.arena {
            self.optimizer.clone().record(&mut update, arena, 0.0);
        }
        let mut kept = HashMap::new();
        for (span, _) in step.commands().iter().chain(update.commands()).flat_map(Command::uses) {
            if span.buffer.lifetime() == Lifetime::Persistent {
                kept.insert(span.buffer.id(), span.buffer.n_bytes());
            }
        }
        let passing = Plan::new(&step).peak_bytes().max(Plan::new(&update).peak_bytes());
        Ok(kept.values().sum::<u64>() + passing)
    }

    /// Summed loss over the labelled tokens of a batch, and their count; nothing is trained.
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
        let objective = Objective { attention, scale: 1.0, dropout: None, kept: None };
        let uploaded = UploadedBatch::new(device, &mut loaded.model, batch, &objective)?;
        let max_elements = device.limits().max_elements();
        let mut tape = Tape::inference();
        let hidden = uploaded.hidden(&mut tape, &loaded.model)?;
        let loss = uploaded.loss(&mut tape, &loaded.model, &hidden, 1.0, max_elements)?;
        copy_tensor(&mut tape.rec, &loss.tensor, &self.loss);
        device.run(&tape.rec)?;
        Ok((device.read_f64(self.loss.span())?[0], batch.n_targets))
    }
}
