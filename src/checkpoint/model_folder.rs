//! The files of a Hugging Face model folder beside its weights: configuration, tokenizer, templates.
//!
//! They are made from the files that a model comes from: copied from its folder, or written from the
//! metadata of a GGUF file.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::model_files::ModelFiles;
use crate::atomic_file::write_file;
use crate::error::{Context, Result};
use crate::formats::dtype::DType;
use crate::small_file;
use crate::text::chat_template::TOOL_USE_FILE;

/// Files of a model folder that do not depend on its weights.
const COPIED: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    TOOL_USE_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// The files beside the weights of one model.
pub struct BesideWeights {
    made: Vec<(&'static str, String)>,
    copied: Vec<(&'static str, PathBuf)>,
}

impl BesideWeights {
    /// Those of a model whose weights are written as `dtype`, with head and embedding tied or not.
    /// Fails if Hugging Face's format cannot express the model.
    pub fn of(files: &ModelFiles, dtype: DType, tied: bool) -> Result<Self> {
        let config = config_of(files.config().to_hf_json()?, dtype, tied)?;
        let mut made = vec![("config.json", config)];
        match (files.source.gguf_metadata(), files.source.dir(), files.tokenizer()) {
            (Some(_), ..) => made.extend(described(files)?),
            (None, None, Ok(tokenizer)) => made.push(("tokenizer.json", tokenizer.to_json()?)),
            _ => {}
        }
        let from = files.source.dir().into_iter().flat_map(|dir| COPIED.map(|name| (name, dir.join(name))));
        Ok(Self { made, copied: from.filter(|(_, path)| path.is_file()).collect() })
    }

    /// Writes them into an existing folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.made.iter().try_for_each(|(name, text)| write_file(&folder.join(name), text))?;
        for (name, path) in &self.copied {
            let to = folder.join(name);
            let copy = || {
                std::fs::create_dir_all(to.parent().unwrap_or(folder))?;
                std::fs::copy(path, &to)
            };
            copy().with_context(|| format!("copying {}", path.display()))?;
        }
        Ok(())
    }
}

/// PyTorch's name of a type of weights.
fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// A `config.json` with the dtype of the written weights: transformers 5 loads a model in the dtype
/// that the file names, which would round f32 weights to 16 bits. Word for word as it was if nothing
/// is to change.
fn config_of(config: String, dtype: DType, tied: bool) -> Result<String> {
    let mut value = small_file::parse_json(&config)?;
    let mut changed = false;
    for key in ["dtype", "torch_dtype"] {
        if let Some(named) = value.get_mut(key).filter(|named| *named != torch_name(dtype)) {
            *named = json!(torch_name(dtype));
            changed = true;
        }
    }
    const TIED: &str = "tie_word_embeddings";
    if !tied && value.get(TIED) != Some(&json!(false)) {
        value[TIED] = json!(false);
        changed = true;
    }
    Ok(if changed { serde_json::to_string_pretty(&value)? + "\n" } else { config })
}

/// The model-folder files that replace a GGUF file's metadata.
fn described(files: &ModelFiles) -> Result<Vec<(&'static str, String)>> {
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
        if let Some(template) = &files.template {
            config["chat_template"] = template.to_config();
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
    fn the_config_names_the_type_of_the_weights_and_whether_the_head_is_tied() {
        let read = r#"{"hidden_size": 8, "torch_dtype": "bfloat16", "dtype": "float16"}"#;
        let of =
            |dtype, tied| -> Value { serde_json::from_str(&config_of(read.into(), dtype, tied).unwrap()).unwrap() };
        let float32 =
            json!({"hidden_size": 8, "torch_dtype": "float32", "dtype": "float32", "tie_word_embeddings": false});
        assert_eq!(of(DType::F32, false), float32);
        assert_eq!(of(DType::BF16, true), json!({"hidden_size": 8, "torch_dtype": "bfloat16", "dtype": "bfloat16"}));
        let without = "{\"hidden_size\":  8}".to_string();
        assert_eq!(config_of(without.clone(), DType::F32, true).unwrap(), without, "nothing to change: word for word");
    }
}
