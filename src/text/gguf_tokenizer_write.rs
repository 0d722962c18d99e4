//! The `tokenizer.ggml.*` keys of a GGUF file from a tokenizer, as llama.cpp's converter writes
//! them.
//!
//! Two kinds can be written: byte-level BPE whose pre-tokenizer has a name in llama.cpp, and BPE
//! with byte fallback, which SentencePiece files hold as scores: a piece's score is the negative
//! place of its first merge, so that the best score is merged first in both.
//! [`super::gguf_tokenizer`] reads the keys back.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::gguf_tokenizer::{BYTE, CONTROL, ROLE_KEYS, SPACE, UNKNOWN, USER_DEFINED};
use super::pre_tokenizer;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::formats::gguf::Value;

/// The type of plain pieces, and of rows of the embedding without a token.
const NORMAL: i64 = 1;
const UNUSED: i64 = 5;
/// The score of pieces that are matched before all others.
const USER_DEFINED_SCORE: f64 = -1000.0;

/// The keys of a tokenizer for a model with `n_rows` rows in its embedding.
///
/// Fails for kinds of tokenizers that llama.cpp does not know, and for pre-tokenizers that have no
/// name there.
pub fn tokenizer_keys(tokenizer: &Tokenizer, n_rows: usize) -> Result<Vec<(String, Value)>> {
    let json: Json = serde_json::from_str(&tokenizer.to_json()?)?;
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(Error::new(format!(
            "a tokenizer of type {} cannot be written to GGUF; expected BPE: export the model to `to` hf instead",
            model["type"]
        )));
    }
    let merges = merges(model)?;
    let is_sentence_piece = model["byte_fallback"] == true;
    let mut vocabulary = Pieces::read(&json, n_rows, is_sentence_piece)?;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let mut keys = Vec::new();
    if is_sentence_piece {
        keys.push((key("model"), Value::String("llama".into())));
        keys.push((key("add_space_prefix"), Value::Bool(puts_space_first(&json))));
        keys.push((key("scores"), floats(&vocabulary.scores(&merges))));
        // llama.cpp matches these pieces in the text itself.
        vocabulary.names_of_user_defined(|name| name.replace(SPACE, " "));
    } else {
        keys.push((key("model"), Value::String("gpt2".into())));
        keys.push((key("pre"), Value::String(pre_tokenizer::name_of(&json)?.into())));
        let joined = merges.iter().map(|(a, b)| Value::String(format!("{a} {b}"))).collect();
        keys.push((key("merges"), Value::Array(joined)));
    }
    for (role, name, _) in ROLE_KEYS {
        let id = tokenizer.special_tokens().get(role).and_then(|token| tokenizer.token_to_id(token));
        if let Some(id) = id.filter(|id| (*id as usize) < n_rows) {
            keys.push((key(&format!("{name}_token_id")), Value::U64(u64::from(id))));
        }
    }
    let (plain, whole) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    keys.push((key("add_bos_token"), Value::Bool(whole.first() != plain.first())));
    keys.push((key("add_eos_token"), Value::Bool(whole.last() != plain.last())));
    keys.push((key("token_type"), Value::Array(vocabulary.types.iter().map(|t| Value::I64(*t)).collect())));
    keys.push((key("tokens"), Value::Array(vocabulary.names.into_iter().map(Value::String).collect())));
    Ok(keys)
}

fn floats(values: &[f64]) -> Value {
    Value::Array(values.iter().map(|v| Value::F64(*v)).collect())
}

/// The merges of a model, best first: each a pair, or a text with a space between the two.
fn merges(model: &Json) -> Result<Vec<(String, String)>> {
    let pair = |merge: &Json| match merge {
        Json::String(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        Json::Array(two) => Some((two.first()?.as_str()?.to_owned(), two.get(1)?.as_str()?.to_owned())),
        _ => None,
    };
    let all = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().map(|m| pair(m).ok_or_else(|| Error::new(format!("the merge {m} is not a pair of pieces")))).collect()
}

/// Whether a text gets a space in front.
fn puts_space_first(json: &Json) -> bool {
    let prepends = |part: &Json| part["type"] == "Prepend";
    let normalizer = &json["normalizer"];
    let listed = normalizer["normalizers"].as_array().is_some_and(|all| all.iter().any(prepends));
    let pre = &json["pre_tokenizer"];
    let metaspace = pre["type"] == "Metaspace"
        && (pre["add_prefix_space"] == true || matches!(pre["prepend_scheme"].as_str(), Some("always" | "first")));
    prepends(normalizer) || listed || metaspace
}

/// The vocabulary by id.
struct Pieces {
    names: Vec<String>,
    types: Vec<i64>,
}

impl Pieces {
    fn read(json: &Json, n_rows: usize, is_sentence_piece: bool) -> Result<Self> {
        let vocab = json["model"]["vocab"].as_object().ok_or_else(|| Error::new("the tokenizer has no vocabulary"))?;
        let mut pieces = Self { names: vec![String::new(); n_rows], types: vec![UNUSED; n_rows] };
        for (name, id) in vocab {
            let is_byte = is_sentence_piece && name.len() == 6 && name.starts_with("<0x") && name.ends_with('>');
            pieces.put(id, name, if is_byte { BYTE } else { NORMAL })?;
        }
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            let name = token["content"].as_str().unwrap_or_default();
            let is_unknown = is_sentence_piece && json["model"]["unk_token"] == name;
            let kind = match token["special"] == true {
                _ if is_unknown => UNKNOWN,
                true => CONTROL,
                false => USER_DEFINED,
            };
            // Tokens beyond the embedding cannot be used; llama.cpp's converter leaves them out too.
            if token["id"].as_u64().is_some_and(|id| (id as usize) < n_rows) {
                pieces.put(&token["id"], name, kind)?;
            }
        }
        for (id, name) in pieces.names.iter_mut().enumerate().filter(|(_, name)| name.is_empty()) {
            *name = format!("[PAD{id}]");
        }
        Ok(pieces)
    }

    fn put(&mut self, id: &Json, name: &str, kind: i64) -> Result<()> {
        let n = self.names.len();
        let at = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < n);
        let Some(at) = at else {
            crate::bail!("token {name:?} has the id {id}, and the model's embedding has {n} rows")
        };
        (self.names[at], self.types[at]) = (name.to_owned(), kind);
        Ok(())
    }

    /// The score of each piece.
    fn scores(&self, merges: &[(String, String)]) -> Vec<f64> {
        let mut places = HashMap::with_capacity(merges.len());
        for (place, (a, b)) in merges.iter().enumerate() {
            places.entry(format!("{a}{b}")).or_insert(place);
        }
        let last = merges.len() as f64;
        let score = |(name, kind): (&String, &i64)| match *kind {
            USER_DEFINED => USER_DEFINED_SCORE,
            NORMAL => -places.get(name).map_or(last, |place| *place as f64),
            _ => 0.0,
        };
        self.names.iter().zip(&self.types).map(score).collect()
    }

    fn names_of_user_defined(&mut self, rename: impl Fn(&str) -> String) {
        for (name, _) in self.names.iter_mut().zip(&self.types).filter(|(_, kind)| **kind == USER_DEFINED) {
            *name = rename(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::formats::gguf::Metadata;
    use crate::text::test_tokenizers::stories;

    const TEXTS: [&str; 5] = [
        "Once upon a time, in 1984, there was a bear.",
        "  two  spaces\n\n\tand a tab ",
        "it's naïve — 日本語, émigré 😀",
        "def f(x):\n    return x**2  # 3.14159",
        "",
    ];

    /// The bundled tokenizer and those of `tests/tokenizers`.
    fn tokenizers() -> Vec<(String, Tokenizer)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut all = vec![("stories".to_string(), stories())];
        for entry in std::fs::read_dir(root.join("tests/tokenizers")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let answers: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            if answers["tokenizer"].is_object() && answers["config"].is_object() {
                let dir = tempfile::tempdir().unwrap();
                for (file, part) in [("tokenizer.json", "tokenizer"), ("tokenizer_config.json", "config")] {
                    std::fs::write(dir.path().join(file), answers[part].to_string()).unwrap();
                }
                all.push((path.display().to_string(), Tokenizer::from_dir(dir.path()).unwrap()));
            }
        }
        all
    }

    fn largest_id(tokenizer: &Tokenizer) -> usize {
        let json: Json = serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap();
        let added = json["added_tokens"].as_array().unwrap().iter().map(|token| &token["id"]);
        let ids = json["model"]["vocab"].as_object().unwrap().values().chain(added);
        ids.filter_map(Json::as_u64).max().unwrap() as usize
    }

    #[test]
    fn keys_give_the_same_tokens() {
        let mut kinds = std::collections::BTreeSet::new();
        for (name, tokenizer) in tokenizers() {
            let mut metadata = Metadata::default();
            metadata.insert("general.architecture", Value::String("llama".into()));
            let keys = tokenizer_keys(&tokenizer, largest_id(&tokenizer) + 3).unwrap_or_else(|e| panic!("{name}: {e}"));
            keys.into_iter().for_each(|(key, value)| assert!(metadata.insert(key, value)));
            let back = Tokenizer::from_gguf(&metadata).unwrap_or_else(|e| panic!("{name}: {e}"));
            kinds.insert(metadata.str("tokenizer.ggml.model").unwrap().to_owned());
            for text in TEXTS {
                for special in [false, true] {
                    let ids = tokenizer.encode(text, special).unwrap();
                    assert_eq!(back.encode(text, special).unwrap(), ids, "{name}: {text:?}");
                }
            }
            if tokenizer.bos().is_some() {
                assert_eq!(back.bos(), tokenizer.bos(), "{name}");
            }
        }
        assert_eq!(kinds.len(), 2, "{kinds:?}");
    }

    #[test]
    fn other_kinds_are_refused() {
        let json = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;
        let tokenizer = Tokenizer::from_json_bytes(json.as_bytes()).unwrap();
        assert!(tokenizer_keys(&tokenizer, 1).unwrap_err().to_string().contains("WordLevel"));
    }
}
