//! Answers in a given form: limits the tokens so that the text is JSON, or JSON of a schema.
//!
//! llguidance follows the grammar. This file gives it the bytes of our tokens and the stop tokens,
//! and keeps ids away that are no text.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value as Json, json};

use super::schema_walk::each_schema;
use super::token_table::TokenTable;
use crate::error::{Context, Error, Result};
use crate::generate::Constraint;

/// Space between the tokens of JSON: enough for a deep indentation, and an end to it.
const SPACE: &str = r"[ \n\r\t]{1,64}";

/// The formats of texts that the library follows.
const FORMATS: [&str; 11] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"];

/// Longest token in bytes. The library cannot hold tokens of more than 1024; no text needs them.
const LONGEST: usize = 512;

/// Makes constraints for one tokenizer.
pub struct Constraints {
    factory: ParserFactory,
    /// Number of ids that the model knows. The end of the form has the id after them if the model
    /// has no stop token.
    n_ids: usize,
    ends: Arc<[u32]>,
}

impl Constraints {
    /// Constraints over the tokens of a table. `is_special` says which of them are no text, and
    /// `stop` may come where the form is complete.
    pub fn new(table: &TokenTable, is_special: impl Fn(u32) -> bool, stop: &[u32]) -> Result<Self> {
        let n_ids = table.len();
        let is_end = |id: u32| id as usize == n_ids || stop.contains(&id);
        let bytes = |id: u32| match table.bytes(id) {
            long if long.len() > LONGEST => Vec::new(),
            name if is_special(id) || is_end(id) => [&[TokTrie::SPECIAL_TOKEN_MARKER], name].concat(),
            text => text.to_vec(),
        };
        let words: Vec<Vec<u8>> = (0..=n_ids as u32).map(bytes).collect();
        let mut ends: Vec<u32> = stop.iter().copied().filter(|&id| (id as usize) < n_ids).collect();
        if ends.is_empty() {
            ends.push(n_ids as u32);
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(foreign).context("reading the vocabulary")?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory, n_ids, ends: ends.into() })
    }

    /// Any JSON object.
    pub fn any_object(&self) -> Result<Box<dyn Constraint>> {
        self.schema(json!({"type": "object"}))
    }

    /// JSON that a schema describes. Fails if a keyword of the schema is not supported, or if nothing
    /// can match it.
    pub fn schema(&self, mut schema: Json) -> Result<Box<dyn Constraint>> {
        // A format is a remark, and one that the library does not know would be refused.
        let is_unknown = |format: &Json| format.as_str().is_some_and(|name| !FORMATS.contains(&name));
        each_schema(&mut schema, &mut |part| {
            if part.get("format").is_some_and(is_unknown) {
                part.remove("format");
            }
        });
        if let Json::Object(schema) = &mut schema {
            // `oneOf` as `anyOf`: that two branches of a union never match at once cannot be shown in general.
            let options = json!({"whitespace_flexible": true, "whitespace_pattern": SPACE, "coerce_one_of": true});
            schema.insert("x-guidance".into(), options);
        }
        let parser = self.factory.create_parser(TopLevelGrammar::from_json_schema(schema)).map_err(foreign)?;
        let matcher = Matcher::new(Ok(parser));
        Ok(Box::new(Grammar { matcher, n_ids: self.n_ids, ends: self.ends.clone() }))
    }
}

/// An answer in the making.
struct Grammar {
    matcher: Matcher,
    n_ids: usize,
    ends: Arc<[u32]>,
}

impl Constraint for Grammar {
    fn allowed(&mut self) -> Result<Vec<u32>> {
        let mask = self.matcher.compute_mask_or_eos().map_err(foreign)?;
        let mut words = mask.as_slice()[..self.n_ids.div_ceil(32)].to_vec();
        if let Some(last) = words.last_mut().filter(|_| !self.n_ids.is_multiple_of(32)) {
            *last &= (1 << (self.n_ids % 32)) - 1;
        }
        Ok(words)
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        if self.matcher.is_stopped() && self.ends.contains(&id) {
            return Ok(()); // a matcher whose form is complete takes no token, not even the end
        }
        self.matcher.consume_token(id).map_err(foreign)
    }

    fn copy(&self) -> Box<dyn Constraint> {
        Box::new(Self { matcher: self.matcher.deep_clone(), n_ids: self.n_ids, ends: self.ends.clone() })
    }
}

/// An error of the library.
fn foreign(error: impl std::fmt::Display) -> Error {
    Error::new(error.to_string())
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
