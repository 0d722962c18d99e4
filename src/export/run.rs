//! Runs an export: writes it under a temporary name, compares it with the model in memory, and
//! renames it.

use std::path::Path;

use super::job::{ExportFormat, ExportJob, ExportObserver};
use super::verify::{Comparison, compare, ids_of_text, logits, lost_ends, same_text};
use super::weight_type::WeightType;
use super::{folder, gguf};
use crate::atomic_file::{files_within, sync_folder};
use crate::checkpoint::adapter_gguf::write_gguf_adapter;
use crate::checkpoint::config_gguf_write::ignored_by_llama_cpp;
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::formats::dtype::DType;
use crate::gpu::Executor;

/// The result of an export.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exported {
    /// The type of the weights.
    pub kind: WeightType,
    /// Size of the file, or of all files of the folder.
    pub bytes: u64,
    pub comparison: Comparison,
}

/// Exports a model.
///
/// The result appears under its name only if it reads back with the same tokens and chat template,
/// and if its logits diverge from those of the model in memory by no more than rounding explains.
pub fn export(job: &ExportJob, device: &mut dyn Executor, observer: &mut dyn ExportObserver) -> Result<Exported> {
    job.validate()?;
    let files = ModelFiles::open_scaled(&job.model, job.adapter.as_deref(), job.rope_scaling)?;
    files.notes().iter().for_each(|text| observer.note(text));
    let kind = job.quantise.unwrap_or_else(|| usual_type(job.to, &files));
    if job.to == ExportFormat::Gguf {
        for ignored in ignored_by_llama_cpp(files.config()) {
            observer.note(&format!("llama.cpp has no part in its computation for a setting of this model: {ignored}"));
        }
    }
    if let Some(scaling) = files.rope_scaling().filter(|_| job.to == ExportFormat::AdapterGguf) {
        observer.note(&format!(
            "the adapter was trained with `rope_scaling` {scaling}: Longreach reads that from the file, and llama.cpp must be \
             told the kind, the factor and the original length"
        ));
    }
    let ids = ids_of_text(&files, job.text.as_deref())?;
    let parent = job.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("creating the folder {}", parent.display()))?;
    let place = tempfile::Builder::new().prefix(".longreach-export-").tempdir_in(parent);
    let place = place.with_context(|| format!("in the folder {}", parent.display()))?;
    let path = place.path().join(job.out.file_name().ok_or_else(|| Error::usage("`out` names no file"))?);
    write(&path, job.to, kind, &files, observer)?;
    let comparison = verified(job, kind, &files, (&path, &ids), device, observer).context("verifying the export")?;
    let bytes = size_of(&path)?;
    job.check_free()?; // again: this took a while
    std::fs::rename(&path, &job.out).with_context(|| format!("writing {}", job.out.display()))?;
    sync_folder(parent);
    Ok(Exported { kind, bytes, comparison })
}

/// The type where none is asked for.
fn usual_type(to: ExportFormat, files: &ModelFiles) -> WeightType {
    match to {
        ExportFormat::Gguf => WeightType::F16,
        ExportFormat::AdapterGguf => WeightType::F32,
        ExportFormat::Hf | ExportFormat::Mlx => match files.source.dtype("model.embed_tokens.weight") {
            Some(DType::F32) => WeightType::F32,
            Some(DType::BF16) => WeightType::Bf16,
            _ => WeightType::F16,
        },
    }
}

fn write(
    path: &Path,
    to: ExportFormat,
    kind: WeightType,
    files: &ModelFiles,
    observer: &mut dyn ExportObserver,
) -> Result<()> {
    let plain =
        || kind.plain().ok_or_else(|| Error::usage(format!("`to` {} holds no `quantise` {}", to.name(), kind.name())));
    match to {
        ExportFormat::Gguf => gguf::write(path, files, kind, observer),
        ExportFormat::Hf | ExportFormat::Mlx => folder::write(path, files, to, plain()?, observer),
        ExportFormat::AdapterGguf => {
            let Some(adapter) = &files.adapter else { crate::bail!("`to` adapter-gguf needs an adapter") };
            let record = gguf::record_key(files, files.adapter_base()?)?;
            let more: Vec<_> = record.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            write_gguf_adapter(path, adapter, files.config(), plain()?, &more)
        }
    }
}

/// Reads the export back and compares it. Fails if it is further from the model than rounding to
/// its type explains.
fn verified(
    job: &ExportJob,
    kind: WeightType,
    files: &ModelFiles,
    (path, ids): (&Path, &[u32]),
    device: &mut dyn Executor,
    observer: &mut dyn ExportObserver,
) -> Result<Comparison> {
    let written = match job.to {
        ExportFormat::AdapterGguf => ModelFiles::open(&job.model, Some(path))?,
        _ => ModelFiles::open(&path.to_string_lossy(), None)?,
    };
    crate::ensure!(written.recorded == files.recorded, "the recorded attention reads back as another one");
    same_text(files, &written, ids, job.text.as_deref())?;
    let lost = lost_ends(files, &written);
    if !lost.is_empty() {
        observer.note(&format!("the export has no place for these tokens that end a text: {lost:?}"));
    }
    // In some families it depends on the type of the weights.
    let embed_scale = written.config().embed_scale;
    let before = logits(device, files, ids, embed_scale).context("the model in memory")?;
    let after = logits(device, &written, ids, embed_scale)?;
    let comparison = compare(&before, &after, files.config().vocab);
    let bound = kind.largest_divergence();
    let is_close = comparison.divergence <= bound; // NaN is not
    crate::ensure!(
        is_close,
        "the export diverges from the model in memory by {:.2e} nats a token, more than the {bound:.0e} that rounding to {} \
         explains (largest difference of logits {:.3e}): nothing is written; please report this",
        comparison.divergence,
        kind.name(),
        comparison.largest_difference
    );
    Ok(comparison)
}

/// Size of a file, or of the files in a folder.
fn size_of(path: &Path) -> Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    let mut sum = 0;
    for name in files_within(path)? {
        sum += path.join(name).metadata()?.len();
    }
    Ok(sum)
}
