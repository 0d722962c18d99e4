//! Folders of merged models: Hugging Face's layout, and MLX's, which differs in one word.

use std::path::Path;

use super::job::{ExportFormat, ExportObserver};
use crate::atomic_file::write_file;
use crate::checkpoint::merged::Merged;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::model_folder::BesideWeights;
use crate::checkpoint::record::{AttentionRecord, FILE as RECORD, Record};
use crate::error::Result;
use crate::formats::dtype::DType;
use crate::formats::host_tensor::TensorSpec;
use crate::formats::quantise::quantise;
use crate::formats::safetensors_write::stream_safetensors;

/// Writes the folder `path` with all weights as `dtype`. MLX's loader takes the names and shapes of
/// Hugging Face, and a file whose metadata says `format: mlx` as it is.
pub(super) fn write(
    path: &Path,
    files: &ModelFiles,
    to: ExportFormat,
    dtype: DType,
    observer: &mut dyn ExportObserver,
) -> Result<()> {
    let merged = Merged::new(files);
    let beside = BesideWeights::of(files, dtype, merged.config.tied)?;
    let spec = |name: &str, shape: &[usize]| TensorSpec { name: name.into(), dtype, shape: shape.to_vec() };
    let specs: Vec<TensorSpec> = merged.weights.iter().map(|w| spec(&w.name, &w.shape)).collect();
    let format = if to == ExportFormat::Mlx { "mlx" } else { "pt" };
    std::fs::create_dir_all(path)?;
    let mut done = 0;
    stream_safetensors(&path.join("model.safetensors"), &specs, &[("format", format)], &mut |i| {
        observer.written(done, specs.len())?;
        done += 1;
        let stored = merged.read_as_stored(&merged.weights[i])?;
        if stored.dtype == dtype { Ok(stored) } else { quantise(&stored.to_f32()?, &stored.shape, dtype) }
    })?;
    beside.write(path)?;
    if let Some(attention) = files.recorded {
        let record = Record { attention: AttentionRecord::of(attention), base: None, rope_scaling: None };
        write_file(&path.join(RECORD), record.to_json()?)?;
    }
    Ok(())
}
