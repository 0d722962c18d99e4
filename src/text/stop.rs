//! Stop tokens: the tokens that end a generation, collected from all files of a model.
//!
//! `generation_config.json`, `config.json`, `tokenizer_config.json` and the GGUF keys often
//! disagree: a chat model's end-of-turn token is often in only one of them. So the stop tokens are
//! their union. `generate` decides whether to ignore them.

use super::gguf_tokenizer::{END_OF_TURN_NAMES, token_id};
use super::tokenizer::Tokenizer;
use crate::error::{Context, Result};
use crate::formats::gguf::Metadata;
use crate::small_file;
use serde_json::Value as Json;
use std::path::Path;

/// The tokens that end a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopTokens {
    ids: Vec<u32>,
}

impl StopTokens {
    /// The stop tokens of a Hugging Face directory, and the tokenizer's EOS if there is one. All
    /// files are optional.
    pub fn from_dir(dir: &Path, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let mut found = Self::default();
        found.extend(tokenizer.and_then(Tokenizer::eos));
        for name in ["generation_config.json", "config.json"] {
            let path = dir.join(name);
            if path.exists() {
                let read = || eos_ids(&small_file::parse_json(&small_file::read_text(&path)?)?);
                found.extend(read().with_context(|| format!("reading {}", path.display()))?);
            }
        }
        Ok(found)
    }

    /// The stop tokens of the text of a `config.json`, and the tokenizer's EOS if there is one.
    pub fn of_config(config: &str, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let mut found = Self::default();
        found.extend(tokenizer.and_then(Tokenizer::eos));
        found.extend(eos_ids(&serde_json::from_str(config)?)?);
        Ok(found)
    }

    /// The stop tokens of a GGUF file: its EOS, end-of-turn and end-of-message keys, and tokens with
    /// well-known names if there is a tokenizer.
    pub fn from_gguf(metadata: &Metadata, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let mut found = Self::default();
        let n_tokens = tokenizer.map_or(usize::MAX, Tokenizer::vocab_size);
        for name in ["eos", "eot", "eom"] {
            found.extend(token_id(metadata, &format!("tokenizer.ggml.{name}_token_id"), n_tokens)?);
        }
        if let Some(tokenizer) = tokenizer {
            found.extend(END_OF_TURN_NAMES.iter().filter_map(|name| tokenizer.token_to_id(name)));
        }
        Ok(found)
    }

    /// Whether this token ends a generation.
    pub fn contains(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    /// All stop tokens, in the order found.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The token that ends a training text: the tokenizer's EOS, otherwise the first one in a
    /// configuration.
    pub fn first(&self) -> Option<u32> {
        self.ids.first().copied()
    }

    /// These tokens, or `default` if there are none.
    pub fn or(mut self, default: &[u32]) -> Self {
        if self.ids.is_empty() {
            self.extend(default.iter().copied());
        }
        self
    }

    fn extend(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            if !self.contains(id) {
                self.ids.push(id);
            }
        }
    }
}

/// `eos_token_id`: an id, a list of ids, or null.
fn eos_ids(config: &Json) -> Result<Vec<u32>> {
    let value = &config["eos_token_id"];
    let one = |v: &Json| v.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match value {
        Json::Null => Some(Vec::new()),
        Json::Array(list) => list.iter().map(one).collect(),
        other => one(other).map(|id| vec![id]),
    };
    let Some(ids) = ids else { crate::bail!("eos_token_id is {value}; expected a token id or a list of them") };
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::Value;
    use crate::text::test_tokenizers::{END, STORIES, byte_level};

    #[test]
    fn every_file_adds_its_tokens_once() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(StopTokens::from_dir(dir.path(), None).unwrap(), StopTokens::default());
        assert_eq!(StopTokens::default().or(&[3, 4]).ids(), [3, 4]);
        write("config.json", br#"{"eos_token_id": 7}"#);
        write("generation_config.json", br#"{"eos_token_id": [9, 7, 2]}"#);
        write("tokenizer.json", STORIES);
        write("tokenizer_config.json", br#"{"eos_token": "</s>"}"#);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let stop = StopTokens::from_dir(dir.path(), Some(&tokenizer)).unwrap();
        assert_eq!((stop.ids(), stop.first()), ([2, 9, 7].as_slice(), Some(2)));
        assert_eq!(stop.clone().or(&[3]), stop);
        assert_eq!(StopTokens::from_dir(dir.path(), None).unwrap().first(), Some(9));
        write("config.json", br#"{"eos_token_id": "</s>"}"#);
        let e = StopTokens::from_dir(dir.path(), None).unwrap_err().to_string();
        assert!(e.contains("config.json") && e.contains("</s>"), "{e}");
    }

    #[test]
    fn gguf_keys_and_names_count() {
        let mut m = Metadata::default();
        m.insert("tokenizer.ggml.eos_token_id", Value::U64(3));
        m.insert("tokenizer.ggml.eot_token_id", Value::U64(5));
        let stop = StopTokens::from_gguf(&m, Some(&byte_level())).unwrap();
        assert_eq!(stop.ids(), [3, 5, END]);
        m.insert("tokenizer.ggml.eot_token_id", Value::U64(100_000));
        assert_eq!(StopTokens::from_gguf(&m, Some(&byte_level())).unwrap().ids(), [3, END], "no such token");
        assert_eq!(StopTokens::from_gguf(&m, None).unwrap().ids(), [3, 100_000]);
    }
}
