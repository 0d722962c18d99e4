//! The state of a run on disk: `state.safetensors` and `state.json` in the folder of a checkpoint.
//!
//! The tensors have the types of the device: trained values under `parameter.NAME`, the optimiser's
//! slots under `slot.NAME`. The other file holds counters.

use std::ffi::OsStr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::state::TrainerState;
use crate::atomic_file::write_file;
use crate::error::{Context, Result};
use crate::formats::host_tensor::HostTensor;
use crate::formats::safetensors_file::Checkpoint;
use crate::formats::safetensors_write::write_safetensors;
use crate::optim::OptimizerState;
use crate::small_file;

const TENSORS: &str = "state.safetensors";
const COUNTERS: &str = "state.json";
const PARAMETER: &str = "parameter.";
const SLOT: &str = "slot.";

/// Content of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counters {
    /// Optimiser steps done.
    step: u64,
    optimizer: String,
    micro_batches: u32,
    epoch: u64,
    position: usize,
    chunk: Option<usize>,
    /// Checksum of the training examples.
    data: String,
}

/// Whether a file of a checkpoint's folder is a part of the state, and not of the result.
pub(super) fn is_state_file(name: &OsStr) -> bool {
    name == TENSORS || name == COUNTERS
}

/// Writes a state into an existing folder, with the checksum of the training data.
pub(super) fn write_state(dir: &Path, state: TrainerState, data: &str) -> Result<()> {
    let named = |prefix: &'static str, tensors: Vec<(String, HostTensor)>| {
        tensors.into_iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
    };
    let tensors: Vec<_> = named(PARAMETER, state.parameters).chain(named(SLOT, state.optimizer.slots)).collect();
    write_safetensors(&dir.join(TENSORS), &tensors, &[])?;
    let counters = Counters {
        step: state.optimizer.step,
        optimizer: state.optimizer.optimizer,
        micro_batches: state.micro_batches,
        epoch: state.epoch,
        position: state.position,
        chunk: state.chunk,
        data: data.to_string(),
    };
    write_file(&dir.join(COUNTERS), serde_json::to_string_pretty(&counters)? + "\n")
}

/// Reads the state in a folder and the checksum of the data that the run began with.
pub(super) fn read_state(dir: &Path) -> Result<(TrainerState, String)> {
    let read = || -> Result<(TrainerState, String)> {
        let counters: Counters =
            serde_json::from_str(&small_file::read_text(&dir.join(COUNTERS))?).context(COUNTERS)?;
        let file = Checkpoint::open(&dir.join(TENSORS))?;
        let (mut parameters, mut slots) = (Vec::new(), Vec::new());
        let names: Vec<String> = file.names().map(str::to_string).collect();
        for name in names {
            let tensor = file.read(&name)?;
            match (name.strip_prefix(PARAMETER), name.strip_prefix(SLOT)) {
                (Some(parameter), _) => parameters.push((parameter.to_string(), tensor)),
                (None, Some(slot)) => slots.push((slot.to_string(), tensor)),
                (None, None) => crate::bail!("{TENSORS} holds {name}, which is no part of a state"),
            }
        }
        let state = TrainerState {
            parameters,
            optimizer: OptimizerState { optimizer: counters.optimizer, step: counters.step, slots },
            micro_batches: counters.micro_batches,
            epoch: counters.epoch,
            position: counters.position,
            chunk: counters.chunk,
        };
        Ok((state, counters.data))
    };
    read().with_context(|| {
        format!("the checkpoint {} cannot be read; remove it to resume from the one before it", dir.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let tensor = |name: &str, value: f32| (name.to_string(), HostTensor::from_f32(&[1, 2], &[value, -0.0]));
        let state = TrainerState {
            parameters: vec![tensor("a.weight", 1.0), tensor("b.weight", f32::MIN_POSITIVE / 2.0)],
            optimizer: OptimizerState {
                optimizer: "adamw".into(),
                step: 7,
                slots: vec![tensor("a.weight.exp_avg", 2.0), tensor("b.weight.exp_avg", 3.0)],
            },
            micro_batches: 9,
            epoch: 2,
            position: 3,
            chunk: Some(256),
        };
        write_state(dir.path(), state.clone(), "1234").unwrap();
        assert_eq!(read_state(dir.path()).unwrap(), (state, "1234".to_string()));
        std::fs::write(dir.path().join(TENSORS), "cut").unwrap();
        let e = read_state(dir.path()).unwrap_err().to_string();
        assert!(e.contains("remove it to resume"), "{e}");
    }
}
