//! The state of a run on the host; a trainer of the same job resumes from it bit for bit.

use crate::formats::host_tensor::HostTensor;
use crate::optim::OptimizerState;

/// Trained values, the optimiser's slots, and counters. Tensors have the types of the device, f32
/// and words, so they can go into a safetensors file, and counters into JSON. The job and the step
/// determine the attention draws and the learning rate.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// Trained tensors by name, [rows, cols].
    pub parameters: Vec<(String, HostTensor)>,
    /// Slots and step count.
    pub optimizer: OptimizerState,
    /// Batches run so far; seeds dropout and noise.
    pub micro_batches: u32,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Examples of that epoch used so far.
    pub position: usize,
    /// The length of the chunks in which long sequences stream, `None` if none does.
    pub chunk: Option<usize>,
}
