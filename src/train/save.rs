//! Saves the trained weights: a PEFT adapter, or a whole model in Hugging Face's layout.
//!
//! Files are written under temporary names and renamed, so a failed save keeps the previous one.

use std::path::Path;

use super::probe::file_shape;
use crate::atomic_file::{write_file, write_folder};
use crate::attention::Attention;
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_file::write_adapter;
use crate::checkpoint::load::Loaded;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::model_folder::BesideWeights;
use crate::checkpoint::record::{AttentionRecord, FILE as RECORD, Record};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::formats::dtype::DType;
use crate::formats::host_tensor::HostTensor;
use crate::formats::safetensors_write::write_safetensors;
use crate::gpu::Executor;

/// Writes the trained tensors to `dir`: an adapter if `adapter` is given, else the model. Records the
/// training attention, and the base of an adapter with its RoPE scaling. Keeps other files in `dir`. Rejects non-finite
/// values before writing anything.
pub fn save(
    device: &mut dyn Executor,
    dir: &Path,
    files: &ModelFiles,
    loaded: &Loaded,
    adapter: Option<&AdapterConfig>,
    attention: Attention,
) -> Result<()> {
    let tensors = read_trained(device, files, loaded)?;
    let base = if adapter.is_some() { files.base_record()? } else { None };
    // A model has its scaling in its configuration.
    let rope_scaling = files.rope_scaling().filter(|_| adapter.is_some());
    let record = Record { attention: AttentionRecord::of(attention), base, rope_scaling }.to_json()?;
    match adapter {
        Some(config) => write_adapter(dir, config, tensors, &[(RECORD, &record)]),
        None => write_model(dir, files, &tensors, &record),
    }
}

/// The trained tensors in the shapes and with the values of Hugging Face's files.
fn read_trained(device: &mut dyn Executor, files: &ModelFiles, loaded: &Loaded) -> Result<Vec<(String, HostTensor)>> {
    let read = |t: &crate::tensor::Trainable| {
        let values = t.value.read(device).context("reading the trained weights back")?;
        if !values.iter().all(|v| v.is_finite()) {
            let text = format!(
                "the trained values of {} are not finite: training diverged; lower `lr` or set `clip` 1. What was saved before \
                 stays",
                t.name
            );
            return Err(Error::of_kind(ErrorKind::Diverged, text));
        }
        let shape = file_shape(&t.name, &t.value);
        let tensor = files.source.as_stored(&t.name, HostTensor::from_f32(&shape, &values))?;
        Ok((t.name.clone(), tensor))
    };
    loaded.trainables.iter().map(read).collect()
}

fn write_model(dir: &Path, files: &ModelFiles, tensors: &[(String, HostTensor)], record: &str) -> Result<()> {
    let beside = BesideWeights::of(files, DType::F32, files.config().tied)?;
    write_folder(dir, |folder| {
        write_safetensors(&folder.join("model.safetensors"), tensors, &[])?;
        beside.write(folder)?;
        write_file(&folder.join(RECORD), record)
    })
}
