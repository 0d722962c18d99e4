//! Saves the trained weights: a PEFT adapter, or a whole model in Hugging Face's layout.
//!
//! Files are written under temporary names and renamed, so a failed save keeps the previous one.

use std::path::Path;

use serde_json::{Value, json};

use super::probe::file_shape;
use crate::atomic_file::{write_file, write_folder};
use crate::attention::Attention;
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_file::write_adapter;
use crate::checkpoint::load::Loaded;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::record::{AttentionRecord, FILE as RECORD, Record};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::formats::gguf::Metadata;
use crate::formats::host_tensor::HostTensor;
use crate::formats::safetensors_write::write_safetensors;
use crate::gpu::Executor;
use crate::small_file;

/// Model files that training does not change.
const COPIED: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Writes the trained tensors to `dir` with their training attention, and the base of an adapter: an adapter if `adapter` is
/// given, else the model. Keeps other files in `dir`. Rejects non-finite values before writing
/// anything.
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
    let record = Record { attention: AttentionRecord::of(attention), base }.to_json()?;
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
    let config = of_float32(files.config().to_hf_json()?)?;
    let made = match (files.source.gguf_metadata(), files.source.dir(), files.tokenizer()) {
        (Some(metadata), ..) => described(files, metadata)?,
        (None, None, Ok(tokenizer)) => vec![("tokenizer.json", tokenizer.to_json()?)],
        _ => vec![],
    };
    write_folder(dir, |folder| {
        write_safetensors(&folder.join("model.safetensors"), tensors, &[])?;
        let text = |(name, text): (&str, &str)| write_file(&folder.join(name), text);
        text(("config.json", &config))?;
        text((RECORD, record))?;
        made.iter().try_for_each(|(name, content)| text((name, content)))?;
        let Some(source) = files.source.dir() else { return Ok(()) };
        for name in COPIED.iter().filter(|name| source.join(name).is_file()) {
            std::fs::copy(source.join(name), folder.join(name)).with_context(|| format!("copying {name}"))?;
        }
        Ok(())
    })
}

/// A `config.json` with the dtype of the saved weights: transformers 5 loads a model in the dtype
/// that the file names, which would round weights trained from a 16-bit model back to 16 bits.
fn of_float32(config: String) -> Result<String> {
    let mut value = small_file::parse_json(&config)?;
    let mut changed = false;
    for key in ["dtype", "torch_dtype"] {
        if let Some(named) = value.get_mut(key).filter(|named| *named != "float32") {
            *named = json!("float32");
            changed = true;
        }
    }
    Ok(if changed { serde_json::to_string_pretty(&value)? + "\n" } else { config })
}

/// The model-folder files that replace a GGUF file's metadata.
fn described(files: &ModelFiles, metadata: &Metadata) -> Result<Vec<(&'static str, String)>> {
    let pretty = |value: &Value| -> Result<String> { Ok(serde_json::to_string_pretty(value)? + "\n") };
    let stop = files.stop.ids();
    let generation = json!({ "bos_token_id": files.config().bos, "eos_token_id": stop });
    let mut out = vec![("generation_config.json", pretty(&generation)?)];
    if let Ok(tokenizer) = files.tokenizer() {
        // Without the names of the inputs, transformers' class also makes token_type_ids, which models
        // refuse.
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "bos_token": null,
            "eos_token": null,
        });
        for (role, token) in tokenizer.special_tokens().variables() {
            config[role] = token.clone();
        }
        if files.template.is_some() {
            config["chat_template"] = json!(metadata.str("tokenizer.chat_template")?);
        }
        out.push(("tokenizer.json", tokenizer.to_json()?));
        out.push(("tokenizer_config.json", pretty(&config)?));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_config_names_the_type_of_the_saved_weights() {
        let read = r#"{"hidden_size": 8, "torch_dtype": "bfloat16", "dtype": "float16"}"#;
        let saved: Value = serde_json::from_str(&of_float32(read.to_string()).unwrap()).unwrap();
        assert_eq!(saved, json!({"hidden_size": 8, "torch_dtype": "float32", "dtype": "float32"}));
        let without = "{\"hidden_size\":  8}".to_string();
        assert_eq!(of_float32(without.clone()).unwrap(), without, "nothing to change: word for word");
    }
}
