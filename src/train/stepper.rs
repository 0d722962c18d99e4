//! One optimiser step: micro-batches forward and backward into the gradient arenas, then clip and AdamW, all on the device.
//!
//! The loss is the sum over the labelled tokens of the whole step divided by their count, so accumulation weighs every
//! token alike. It is computed before the update.

use super::objective::{Objective, UploadedBatch};
use crate::attention::Attention;
use crate::autograd::Tape;
use crate::data::batch::Batch;
use crate::error::{Error, Result};
use crate::gpu::{Executor, Recording};
use crate::model::load::Loaded;
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
        let n_targets: usize = batches.iter().map(|b| b.n_targets).sum();
        if n_targets == 0 {
            return Err(Error::new("no token of this step has a label: there is nothing to learn from it"));
        }
        let mut loss = 0.0;
        self.clear_grads(device, loaded)?;
        for batch in batches.iter().filter(|b| b.n_targets > 0) {
            let dropout = Some(Dropout { seed: self.seed, step: self.n_micro });
            let objective = Objective { attention, scale: (1.0 / n_targets as f64) as f32, dropout, kept: None };
            loss += self.accumulate(device, loaded, batch, &objective)?;
            self.n_micro += 1;
        }
        let Some(arena) = &loaded.arena else {
            return Err(Error::new("the model was loaded without anything to train"));
        };
        let mut rec = Recording::new();
        let state = self.optimizer.record(&mut rec, arena, lr);
        device.run(&rec)?;
        let grad_norm = device.read_f64(state.span())?[0];
        let n_tokens = batches.iter().map(|b| b.ids.len()).sum();
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(Error::new(format!(
                "training diverged at step {}: loss {loss}, gradient norm {grad_norm}. Lower --lr, or set --clip 1",
                self.optimizer.step
            )));
        }
        Ok(StepReport { loss, grad_norm, n_tokens, n_targets })
    }

    /// Sets all gradients to zero.
    pub fn clear_grads(&self, device: &mut dyn Executor, loaded: &Loaded) -> Result<()> {
        let mut rec = Recording::new();
        if let Some(arena) = &loaded.arena {
            arena.clear_grads(&mut rec);
        }
        device.run(&rec)
    }

    /// Adds the gradients of one batch; returns its share of the loss.
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

    /// Uploads a batch and records its forward and backward, which add to the gradients of the arena.
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
        copy_tensor(&mut tape.rec, &loss.tensor, &self.loss);
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
        let dropout = Some(Dropout { seed: self.seed, step: 0 });
        let objective = Objective { attention, scale: 1.0, dropout, kept: None };
        let recording = self.record(device, loaded, batch, &objective)?;
        device.check(&recording)
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
