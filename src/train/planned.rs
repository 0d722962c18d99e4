//! The device memory of a step by purpose, and the forecast of a run.

use serde::Serialize;

use crate::data::token_statistics::TokenStatistics;

/// Device memory of the largest step, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedMemory {
    /// Weights of the model and the adapter, and the tables of a model.
    pub weights: u64,
    /// Gradients of the trained values, and the optimiser's slots.
    pub optimizer: u64,
    /// Pairs that a streamed sequence keeps for its later chunks, and the tables of a batch.
    pub streamed: u64,
    /// The peak of what lives within a pass: activations and their gradients.
    pub activations: u64,
}

impl PlannedMemory {
    /// The peak of all together.
    pub fn peak(&self) -> u64 {
        self.weights + self.optimizer + self.streamed + self.activations
    }
}

/// Memory and time that a run will take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Memory of the largest step.
    pub memory: PlannedMemory,
    /// Bytes that the host has for it, with the weights that are loaded already. `None` on a GPU:
    /// no portable call tells.
    pub available_bytes: Option<u64>,
    /// The length of the chunks in which long sequences stream.
    pub chunk: Option<usize>,
    /// The training examples and their batches.
    pub data: TokenStatistics,
    /// Optimiser steps.
    pub steps: u64,
    /// Mean tokens of a step.
    pub tokens_per_step: f64,
    /// Seconds of a step of that length, from the measured one. `None` if none was measured.
    pub seconds_per_step: Option<f64>,
}

impl Forecast {
    /// Seconds of all steps.
    pub fn seconds(&self) -> Option<f64> {
        Some(self.seconds_per_step? * self.steps as f64)
    }
}
