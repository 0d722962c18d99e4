//! The special tokens of a model by their roles: BOS, EOS, padding and the like.
//!
//! The roles are those of transformers (`bos_token`, `pad_token`, …), and a chat template sees them
//! under these names. [`super::tokenizer_config`] reads them from a folder, and
//! [`super::gguf_tokenizer`] from a GGUF file.

use crate::error::{Context, Result};
use serde_json::{Map, Value as Json, json};
use tokenizers::PostProcessorWrapper;

/// The roles of single tokens, in the order in which transformers adds them to a vocabulary.
pub const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The role of a list of further tokens.
pub const ADDITIONAL: &str = "additional_special_tokens";

/// Names of special tokens by role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// A role's token, or the list of additional tokens. Roles without a token are absent.
    roles: Map<String, Json>,
}

impl SpecialTokens {
    /// The token of a role.
    pub fn get(&self, role: &str) -> Option<&str> {
        self.roles.get(role)?.as_str()
    }

    /// The variables of a chat template: a string for each role that has a token, and a list for
    /// `additional_special_tokens`.
    pub fn variables(&self) -> &Map<String, Json> {
        &self.roles
    }

    /// Gives a role a token, in place of an earlier one.
    pub(super) fn set(&mut self, role: &str, token: &str) {
        self.roles.insert(role.to_owned(), json!(token));
    }

    /// Adds to the additional tokens.
    pub(super) fn add(&mut self, token: &str) {
        if let Json::Array(tokens) = self.roles.entry(ADDITIONAL).or_insert_with(|| json!([])) {
            tokens.push(json!(token));
        }
    }

    /// Leaves a role without a token.
    pub(super) fn remove(&mut self, role: &str) {
        self.roles.shift_remove(role);
    }

    /// All tokens.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let tokens = self.roles.values().flat_map(|value| match value {
            Json::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        });
        tokens.filter_map(Json::as_str)
    }
}

/// The post-processor that puts `bos` in front of a text and `eos` after it. `None` stands for no
/// token.
pub(super) fn around(bos: Option<(&str, u32)>, eos: Option<(&str, u32)>) -> Result<PostProcessorWrapper> {
    let special = |token: Option<(&str, u32)>, type_id: u32| {
        token.map(|(name, _)| json!({"SpecialToken": {"id": name, "type_id": type_id}}))
    };
    let one = |letter: &str, type_id: u32| -> Vec<Json> {
        let text = json!({"Sequence": {"id": letter, "type_id": type_id}});
        special(bos, type_id).into_iter().chain([text]).chain(special(eos, type_id)).collect()
    };
    let tokens: Map<String, Json> = bos
        .into_iter()
        .chain(eos)
        .map(|(name, id)| (name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]})))
        .collect();
    let pair: Vec<Json> = one("A", 0).into_iter().chain(one("B", 1)).collect();
    let template = json!({"type": "TemplateProcessing", "single": one("A", 0), "pair": pair, "special_tokens": tokens});
    serde_json::from_value(template).context("building the tokenizer")
}
