//! The files beside `tokenizer.json`: which special tokens there are, and what goes around a text.
//!
//! The rules are those of `AutoTokenizer.from_pretrained` in transformers 4.57:
//!
//! - The class is `tokenizer_class` in `tokenizer_config.json`, else in `config.json`, else the one
//!   of the `model_type`. A class has default tokens, and some classes replace the post-processor:
//!   BOS in front if `add_bos_token`, EOS after if `add_eos_token`. Other classes ignore both keys.
//! - `tokenizer_config.json` names the special tokens. If it has no `added_tokens_decoder`,
//!   `special_tokens_map.json` wins over it, and the tokens of `added_tokens.json` are added.
//! - Tokens of `added_tokens_decoder`, and special tokens, become added tokens where
//!   `tokenizer.json` does not list them, so that they are never split.
//!
//! Three things differ. A file that transformers 5 has written (it has the key `backend`) keeps the
//! post-processor of `tokenizer.json`, because that version reads it so. A default token of a class
//! counts only if the vocabulary has it, because a new one would lie outside the model. Where a
//! class asks for BOS and there is none, nothing is added, as in transformers 5; 4.57 fails.

use super::special_tokens::{ADDITIONAL, ROLES, SpecialTokens, around};
use crate::error::{Context, Result};
use crate::small_file;
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use tokenizers::Tokenizer as Inner;

/// What a class of transformers decides.
struct Class {
    /// Names without a final `Fast`.
    names: &'static [&'static str],
    /// Values of `model_type` whose tokenizers have this class if no file names one.
    model_types: &'static [&'static str],
    /// Default tokens by role.
    tokens: &'static [(&'static str, &'static str)],
    /// The default of `add_bos_token` if the class replaces the post-processor.
    add_bos: Option<bool>,
}

const CLASSES: [Class; 6] = [
    Class {
        names: &["LlamaTokenizer", "CodeLlamaTokenizer"],
        model_types: &["llama", "mistral", "mistral3", "ministral", "mixtral", "phi3"],
        tokens: &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
        add_bos: Some(true),
    },
    Class {
        names: &["GemmaTokenizer"],
        model_types: &["gemma", "gemma2", "gemma3", "gemma3_text"],
        tokens: &[("bos_token", "<bos>"), ("eos_token", "<eos>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
        add_bos: Some(true),
    },
    Class {
        names: &["CohereTokenizer"],
        model_types: &["cohere", "cohere2"],
        tokens: &[("bos_token", "<BOS_TOKEN>"), ("eos_token", "<|END_OF_TURN_TOKEN|>"), ("unk_token", "<UNK>")],
        add_bos: Some(true),
    },
    Class {
        names: &["GPTNeoXTokenizer"],
        model_types: &["gpt_neox", "olmo", "olmo2", "stablelm"],
        tokens: &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
        add_bos: Some(false),
    },
    Class {
        names: &["GPT2Tokenizer"],
        model_types: &["gpt2", "granite", "olmo3", "starcoder2"],
        tokens: &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
        add_bos: None,
    },
    Class {
        names: &["Qwen2Tokenizer"],
        model_types: &["qwen2", "qwen3"],
        tokens: &[("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
        add_bos: None,
    },
];

/// What the files beside `tokenizer.json` say.
pub struct TokenizerConfig {
    special: SpecialTokens,
    /// Roles that have their token from the class.
    by_class: HashSet<&'static str>,
    /// Added tokens by the ids that the files give. `tokenizer.json` may lack them.
    added: BTreeMap<u64, Json>,
    /// The special tokens with their properties, in the order in which new ones get ids.
    listed: Vec<Json>,
    /// Whether a role makes the tokens special that `tokenizer.json` lists.
    roles_are_special: bool,
    /// Whether to add BOS and EOS, if the class replaces the post-processor.
    around: Option<(bool, bool)>,
    /// Whether a ByteLevel pre-tokenizer that stands alone adds a space in front of a text, if the
    /// files decide it.
    add_prefix_space: Option<bool>,
    /// Whether names of special tokens in a text are plain text.
    pub split_special_tokens: bool,
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json` and the files that count beside it. All are optional.
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<Option<Map<String, Json>>> {
            let path = dir.join(name);
            if !path.exists() {
                return Ok(None);
            }
            let object = || -> Result<Map<String, Json>> {
                Ok(serde_json::from_value(small_file::parse_json(&small_file::read_text(&path)?)?)?)
            };
            object().with_context(|| format!("reading {}", path.display())).map(Some)
        };
        let mut config = read("tokenizer_config.json")?.unwrap_or_default();
        let mut special_map = None;
        let mut added = BTreeMap::new();
        let decoder = config.remove("added_tokens_decoder");
        let roles_are_special = !matches!(decoder, Some(Json::Object(_)));
        match decoder {
            Some(Json::Object(tokens)) => {
                for (id, token) in tokens {
                    let Ok(number) = id.parse() else {
                        crate::bail!("added_tokens_decoder: {id:?} is not a token id");
                    };
                    added.insert(number, token);
                }
            }
            _ => {
                special_map = read("special_tokens_map.json")?;
                for (name, id) in read("added_tokens.json")?.unwrap_or_default() {
                    let Some(id) = id.as_u64() else {
                        crate::bail!("added_tokens.json: {name:?} has {id} in place of a token id");
                    };
                    added.insert(id, json!(name));
                }
            }
        }
        let model = match config.get("tokenizer_class") {
            Some(Json::String(_)) => None,
            _ => read("config.json")?,
        };
        Ok(Self { added, roles_are_special, ..Self::new(&config, special_map.as_ref(), model.as_ref()) })
    }

    fn new(
        config: &Map<String, Json>,
        special_map: Option<&Map<String, Json>>,
        model: Option<&Map<String, Json>>,
    ) -> Self {
        let class = class_of(config, model);
        let (mut special, mut by_class) = (SpecialTokens::default(), HashSet::new());
        for (role, token) in class.map_or(&[][..], |class| class.tokens) {
            special.set(role, token);
            by_class.insert(*role);
        }
        let mut listed: Vec<(String, Json)> = Vec::new();
        let mut additional = HashSet::new();
        for source in [Some(config), special_map].into_iter().flatten() {
            for role in ROLES.iter().filter(|role| source.contains_key(**role)) {
                by_class.remove(role);
                listed.retain(|(of, _)| of != role);
                match content(&source[*role]) {
                    Some(token) => {
                        special.set(role, token);
                        listed.push(((*role).to_owned(), source[*role].clone()));
                    }
                    None => special.remove(role),
                }
            }
            for key in [ADDITIONAL, "extra_special_tokens"] {
                match source.get(key) {
                    Some(Json::Array(tokens)) => {
                        for token in tokens {
                            if let Some(name) = content(token).filter(|name| additional.insert(*name)) {
                                special.add(name);
                                listed.push((ADDITIONAL.to_owned(), token.clone()));
                            }
                        }
                    }
                    Some(Json::Object(named)) => {
                        for (role, token) in named {
                            if let Some(name) = content(token) {
                                special.set(role, name);
                                listed.push((role.clone(), token.clone()));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        let place = |role: &str| ROLES.iter().position(|r| *r == role).unwrap_or(ROLES.len());
        listed.sort_by_key(|(role, _)| place(role));
        let flag = |key: &str| config.get(key).and_then(Json::as_bool);
        let by_file = config.contains_key("backend");
        let around = class.and_then(|class| class.add_bos).filter(|_| !by_file);
        // Llama's class hands the library no such value.
        let is_llama = class.is_some_and(|class| class.names.contains(&"LlamaTokenizer"));
        let has_prefix = !is_llama && (class.is_some() || !config.is_empty());
        Self {
            special,
            by_class,
            added: BTreeMap::new(),
            roles_are_special: false,
            listed: listed.into_iter().map(|(_, token)| token).collect(),
            around: around.map(|bos| (flag("add_bos_token").unwrap_or(bos), flag("add_eos_token").unwrap_or(false))),
            add_prefix_space: has_prefix.then(|| flag("add_prefix_space").unwrap_or(false)),
            split_special_tokens: flag("split_special_tokens").unwrap_or(false),
        }
    }

    /// The special tokens, those of the class included.
    pub fn special_tokens(self) -> SpecialTokens {
        self.special
    }

    /// Completes a parsed `tokenizer.json`: added tokens that it lacks, or that have other
    /// properties here, and the space in front of a text.
    pub fn complete(&mut self, file: &mut Json) {
        if !file.is_object() {
            return;
        }
        let known = |file: &Json, name: &str| {
            let in_list =
                |list: &Json| list.as_array().is_some_and(|l| l.iter().any(|t| t["content"] == name || t[0] == name));
            file["model"]["vocab"].get(name).is_some()
                || in_list(&file["added_tokens"])
                || in_list(&file["model"]["vocab"])
                || self.added.values().any(|token| content(token) == Some(name))
        };
        let absent = |role: &&&str| self.special.get(role).is_some_and(|name| !known(file, name));
        for role in self.by_class.iter().filter(absent).copied().collect::<Vec<_>>() {
            self.special.remove(role);
        }
        if let Some(adds) = self.add_prefix_space
            && file["pre_tokenizer"]["type"] == "ByteLevel"
        {
            file["pre_tokenizer"]["add_prefix_space"] = json!(adds);
        }
        let special: HashSet<&str> = self.special.all().collect();
        let mut tokens = match file["added_tokens"].take() {
            Json::Array(tokens) => tokens,
            Json::Null => Vec::new(),
            other => {
                file["added_tokens"] = other; // the check of the file explains it
                return;
            }
        };
        for token in tokens.iter_mut().filter(|_| self.roles_are_special) {
            if content(token).is_some_and(|name| special.contains(name)) && token.is_object() {
                token["special"] = json!(true);
            }
        }
        tokens.extend(self.added.values().filter_map(|token| added_token(token, &special)));
        let mut names: HashSet<String> = tokens.iter().filter_map(|t| content(t).map(str::to_owned)).collect();
        let by_class = self.by_class.iter().filter_map(|role| self.special.get(role)).map(|name| json!(name));
        for token in self.listed.iter().cloned().chain(by_class).filter_map(|token| added_token(&token, &special)) {
            if content(&token).is_some_and(|name| names.insert(name.to_owned())) {
                tokens.push(token);
            }
        }
        file["added_tokens"] = Json::Array(tokens);
    }

    /// Replaces the post-processor of a tokenizer if the class does.
    pub fn surround(&self, inner: &mut Inner) -> Result<()> {
        let Some((bos, eos)) = self.around else { return Ok(()) };
        let token = |wanted: bool, role: &str| {
            let name = self.special.get(role).filter(|_| wanted)?;
            inner.token_to_id(name).map(|id| (name, id))
        };
        let processor = around(token(bos, "bos_token"), token(eos, "eos_token"))?;
        inner.with_post_processor(Some(processor));
        Ok(())
    }
}

/// The class that the files name, if it decides anything.
fn class_of(config: &Map<String, Json>, model: Option<&Map<String, Json>>) -> Option<&'static Class> {
    let text = |object: Option<&Map<String, Json>>, key: &str| -> Option<String> {
        object?.get(key)?.as_str().map(str::to_owned)
    };
    match text(Some(config), "tokenizer_class").or_else(|| text(model, "tokenizer_class")) {
        Some(name) => {
            let name = name.strip_suffix("Fast").unwrap_or(&name);
            CLASSES.iter().find(|class| class.names.contains(&name))
        }
        None => {
            let model_type = text(model, "model_type")?;
            CLASSES.iter().find(|class| class.model_types.contains(&model_type.as_str()))
        }
    }
}

/// A token's name: a string, or an object with `content`.
fn content(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// A token as in the list `added_tokens` of `tokenizer.json`, with transformers' defaults. It is
/// special if it says so or has a role.
fn added_token(token: &Json, roles: &HashSet<&str>) -> Option<Json> {
    let name = content(token).filter(|name| !name.is_empty())?;
    let flag = |key: &str| token.get(key).and_then(Json::as_bool);
    let special = flag("special").unwrap_or(false) || roles.contains(name);
    Some(json!({
        "content": name,
        "single_word": flag("single_word").unwrap_or(false),
        "lstrip": flag("lstrip").unwrap_or(false),
        "rstrip": flag("rstrip").unwrap_or(false),
        "normalized": flag("normalized").unwrap_or(!special),
        "special": special,
    }))
}
