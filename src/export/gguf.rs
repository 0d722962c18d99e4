//! GGUF files of merged models.

use std::path::Path;

use super::job::ExportObserver;
use super::weight_type::WeightType;
use crate::checkpoint::gguf_weights::in_gguf_order;
use crate::checkpoint::merged::Merged;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::record::{AttentionRecord, BaseRecord, GGUF_KEY, Record};
use crate::error::Result;
use crate::formats::gguf::Value;
use crate::formats::gguf_write::write_gguf;
use crate::formats::host_tensor::TensorSpec;
use crate::formats::quantise::quantise;
use crate::text::gguf_tokenizer_write::tokenizer_keys;

/// ggml's number of the layouts of quantised blocks.
const QUANTISATION_VERSION: u64 = 2;

/// Writes the file `path`. Weights that the adapter leaves alone and that have the wanted type
/// already keep their bytes.
pub(super) fn write(
    path: &Path,
    files: &ModelFiles,
    kind: WeightType,
    observer: &mut dyn ExportObserver,
) -> Result<()> {
    let merged = Merged::new(files);
    let described = merged.config.to_gguf()?;
    let mut metadata = described.metadata;
    metadata.insert("general.type", Value::String("model".into()));
    metadata.insert("general.file_type", Value::U64(kind.file_type()));
    metadata.insert("general.quantization_version", Value::U64(QUANTISATION_VERSION));
    for (key, value) in text_keys(files, merged.config.vocab)?.into_iter().chain(record_key(files, None)?) {
        metadata.insert(key, value);
    }
    if !metadata.contains("general.name") {
        metadata.insert("general.name", Value::String(name_of(files)));
    }
    let extra = described.tensors;
    let mut specs: Vec<TensorSpec> = Vec::new();
    for (name, tensor) in &extra {
        specs.push(TensorSpec { name: name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() });
    }
    for weight in &merged.weights {
        let dtype = kind.of_weight(weight, &merged.config);
        specs.push(TensorSpec { name: weight.gguf.clone(), dtype, shape: weight.shape.clone() });
    }
    write_gguf(path, &metadata, &specs, &mut |i| {
        observer.written(i, specs.len())?;
        let Some(at) = i.checked_sub(extra.len()) else { return Ok(extra[i].1.clone()) };
        let (weight, dtype) = (&merged.weights[at], specs[i].dtype);
        let mut tensor = merged.read(weight)?;
        if tensor.dtype != dtype {
            tensor = quantise(&tensor.to_f32()?, &tensor.shape, dtype)?;
        }
        Ok(in_gguf_order(tensor, weight.permuted_heads))
    })
}

/// The keys of tokenizer and chat template: those of the GGUF file that the model comes from, or new
/// ones. None for a model without a tokenizer.
fn text_keys(files: &ModelFiles, n_rows: usize) -> Result<Vec<(String, Value)>> {
    if let Some(metadata) = files.source.gguf_metadata() {
        let copied =
            |key: &str| key.starts_with("tokenizer.") || key == "general.name" || key.starts_with("general.license");
        return Ok(metadata.iter().filter(|(key, _)| copied(key)).map(|(k, v)| (k.to_string(), v.clone())).collect());
    }
    let Ok(tokenizer) = files.tokenizer() else { return Ok(vec![]) };
    let mut keys = tokenizer_keys(tokenizer, n_rows)?;
    // llama.cpp has a key each for the ends of a text, of a turn and of a message.
    let ends = files.stop.ids();
    let is_known = |keys: &[(String, Value)], key: &str| keys.iter().any(|(known, _)| known == key);
    for (name, id) in ["eos", "eot", "eom"].into_iter().zip(ends) {
        let key = format!("tokenizer.ggml.{name}_token_id");
        if !is_known(&keys, &key) {
            keys.push((key, Value::U64(u64::from(*id))));
        }
    }
    let bos = "tokenizer.ggml.bos_token_id";
    if let Some(id) = files.config().bos.filter(|_| !is_known(&keys, bos)) {
        keys.push((bos.into(), Value::U64(u64::from(id))));
    }
    if let Some(template) = &files.template {
        keys.extend(template.to_gguf());
    }
    Ok(keys)
}

/// The attention that the model was trained with, so that `generate` uses it again, and the base of
/// an adapter with its RoPE scaling. A merged model has its scaling in its own keys.
pub(super) fn record_key(files: &ModelFiles, base: Option<BaseRecord>) -> Result<Option<(String, Value)>> {
    let Some(attention) = files.recorded else { return Ok(None) };
    let rope_scaling = files.rope_scaling().filter(|_| base.is_some());
    let record = Record { attention: AttentionRecord::of(attention), base, rope_scaling };
    Ok(Some((GGUF_KEY.to_string(), Value::String(record.to_json()?))))
}

fn name_of(files: &ModelFiles) -> String {
    let folder = files.source.dir().and_then(|dir| dir.file_name()).map(|name| name.to_string_lossy().into_owned());
    folder.unwrap_or_else(|| files.config().architecture.model_type().to_string())
}
