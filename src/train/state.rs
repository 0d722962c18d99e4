//! The state of a run on the host, from which another trainer of the same job continues bit for
//! bit.

use crate::formats::host_tensor::HostTensor;
use crate::optim::OptimizerState;

/// Trained values, the optimiser's slots, and counters. All values are f32, as they are on the
/// device, so tensors go into a safetensors file as they are and counters into JSON. Attention
/// draws and the learning rate follow from the job and the step.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// Trained tensors by name, [rows, cols].
    pub parameters: Vec<(String, HostTensor)>,
    /// Slots and step count.
    pub optimizer: OptimizerState,
    /// Batches run so far, by which dropout is drawn.
    pub micro_batches: u32,
    /// Epoch of the next step.
    pub epoch: u64,
    /// Examples of that epoch that were visited.
    pub position: usize,
}
