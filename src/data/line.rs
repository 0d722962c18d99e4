//! One line of training data: parses its format and converts it to tokens and labels.
//!
//! Labels that count: for a prompt with a completion, the completion and EOS; for messages, the
//! assistant's answers with their end-of-turn tokens; for a text, all tokens; for token ids, the
//! given labels. [`super::dataset`] reads files.

use super::example::{Example, IGNORED};
use crate::error::{Context, Error, Result};
use crate::text::chat_template::{ChatTemplate, Message};
use crate::text::tokenizer::Tokenizer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// The accepted formats of a line, for error messages.
pub const SHAPES: &str = "{\"prompt\": \"…\", \"completion\": \"…\"}, {\"messages\": [{\"role\": \"…\", \"content\": \"…\"}, …]}, \
                          {\"text\": \"…\"} or {\"input_ids\": […], \"labels\": […]}";

/// Settings for converting lines to tokens.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// Needed by every format except `input_ids`.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Needed by `messages`.
    pub template: Option<&'a ChatTemplate>,
    /// Added after completions and texts, if set.
    pub eos: Option<u32>,
    /// Rows of the model's embedding. All ids must be smaller.
    pub vocab_size: usize,
    /// Longest sequence; longer ones are truncated at the end.
    pub max_length: Option<usize>,
}

/// Most bytes of text in one line. Encoding needs a few hundred bytes of memory per byte of text,
/// and longer texts have more tokens than a batch may have.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// A parsed line, by format.
pub(super) enum Line {
    Completion { prompt: String, completion: String },
    Messages(Vec<Message>),
    Text(String),
    Tokens { ids: Vec<u32>, labels: Vec<i32> },
}

/// The known fields of a line, as raw JSON, so that a long list of ids does not become a tree of
/// JSON values first.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    input_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    labels: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    completion: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

impl Line {
    /// Parses one line. Ignores unknown fields.
    pub fn parse(line: &[u8]) -> Result<Self> {
        let invalid = |e: serde_json::Error| Error::new(format!("not valid JSON ({e})"));
        let value: &RawValue = serde_json::from_slice(line).map_err(invalid)?;
        crate::ensure!(is_object(value), "found {}; expected an object: {SHAPES}", kind(value));
        let fields: Fields = serde_json::from_str(value.get()).map_err(|e| Error::new(e.to_string()))?;
        match fields {
            Fields { input_ids: Some(ids), labels, .. } => tokens(ids, labels),
            Fields { messages: Some(list), .. } => Ok(Self::Messages(messages(list)?)),
            Fields { prompt: Some(prompt), completion: Some(completion), .. } => {
                let (prompt, completion) = (string("prompt", prompt)?, string("completion", completion)?);
                Ok(Self::Completion { prompt, completion })
            }
            Fields { text: Some(text), .. } => Ok(Self::Text(string("text", text)?)),
            _ => {
                let Names(names) = serde_json::from_str(value.get()).map_err(invalid)?;
                crate::bail!("found an object with the fields [{}]; expected {SHAPES}", names.join(", "));
            }
        }
    }
}

/// The names of an object's first 20 fields in file order, for error messages.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
                    if names.len() < 20 {
                        names.push(name);
                    }
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl Line {
    /// Bytes of text to tokenise.
    fn text_bytes(&self) -> usize {
        match self {
            Self::Completion { prompt, completion } => prompt.len() + completion.len(),
            Self::Messages(list) => list.iter().filter_map(Message::text).map(str::len).sum(),
            Self::Text(text) => text.len(),
            Self::Tokens { .. } => 0,
        }
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

fn string(key: &str, value: &RawValue) -> Result<String> {
    let wrong = |_| Error::new(format!("\"{key}\" is {}; expected a string", kind(value)));
    serde_json::from_str(value.get()).map_err(wrong)
}

/// Parses a list of T. `None` if the value is not a list or has other elements.
fn list<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<Vec<T>> {
    serde_json::from_str(value.get()).ok()
}

fn messages(value: &RawValue) -> Result<Vec<Message>> {
    let Some(list) = list::<&RawValue>(value) else {
        crate::bail!("\"messages\" is {}; expected a list of {{\"role\", \"content\"}}", kind(value));
    };
    crate::ensure!(!list.is_empty(), "\"messages\" is empty");
    list.iter().enumerate().map(|(i, m)| message(m).with_context(|| format!("message {}", i + 1))).collect()
}

fn message(value: &RawValue) -> Result<Message> {
    crate::ensure!(is_object(value), "found {}; expected {{\"role\": \"…\", \"content\": \"…\"}}", kind(value));
    let object: BTreeMap<String, &RawValue> = serde_json::from_str(value.get()).context("reading a message")?;
    for (key, value) in &object {
        // Ignoring a tool call silently would train on a different conversation than the one in the
        // file.
        let known = matches!(key.as_str(), "role" | "content" | "name");
        crate::ensure!(
            known || value.get() == "null",
            "the field \"{key}\" is not supported; only role and content are"
        );
    }
    let field = |key: &str| match object.get(key) {
        Some(value) => string(key, value),
        None => Err(Error::new(format!("the field \"{key}\" is missing"))),
    };
    Ok(Message::new(field("role")?, field("content")?))
}

fn tokens(ids: &RawValue, labels: Option<&RawValue>) -> Result<Line> {
    let is_list = |key: &str, value: &RawValue| {
        let found = value.get().starts_with('[');
        if found {
            Ok(())
        } else {
            Err(Error::new(format!("\"{key}\" is {}; expected a list of integers", kind(value))))
        }
    };
    is_list("input_ids", ids)?;
    let ids = list::<u32>(ids)
        .filter(|ids| ids.iter().all(|&id| id <= i32::MAX as u32))
        .ok_or_else(|| Error::new("\"input_ids\" contains a value that is not a token id"))?;
    let Some(labels) = labels else {
        let labels = ids.iter().map(|&id| id as i32).collect();
        return Ok(Line::Tokens { ids, labels });
    };
    is_list("labels", labels)?;
    let labels = list::<i32>(labels)
        .filter(|labels| labels.iter().all(|&label| label >= 0 || label == IGNORED))
        .ok_or_else(|| Error::new("\"labels\" contains a value that is neither a token id nor -100"))?;
    let (n, m) = (ids.len(), labels.len());
    crate::ensure!(n == m, "\"input_ids\" has {n} entries and \"labels\" {m}: give one label per token");
    Ok(Line::Tokens { ids, labels })
}

/// Describes a JSON value for error messages.
fn kind(value: &RawValue) -> String {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => {
            let string: String = serde_json::from_str(text).unwrap_or_default();
            format!("the string {:?}", string.chars().take(40).collect::<String>())
        }
        Some(b'[') => format!("a list of {}", list::<IgnoredAny>(value).map_or(0, |list| list.len())),
        Some(b'{') => "an object".to_owned(),
        Some(b'-' | b'0'..=b'9') => format!("the number {}", text.chars().take(40).collect::<String>()),
        _ => text.to_owned(),
    }
}

/// Converts a line to tokens and labels.
pub(super) fn tokens_of(line: Line, reader: &Reader) -> Result<Example> {
    let tokenizer = || {
        reader.tokenizer.ok_or_else(|| {
            Error::new("the line contains text, but the model has no tokenizer; use {\"input_ids\": […]} lines instead")
        })
    };
    let n_bytes = line.text_bytes();
    crate::ensure!(
        n_bytes <= MAX_TEXT_BYTES,
        "the line has {n_bytes} bytes of text; at most {MAX_TEXT_BYTES} are supported: split it"
    );
    match line {
        Line::Tokens { ids, labels } => {
            check_labels(&labels, reader.vocab_size)?;
            Ok(Example { ids, labels })
        }
        Line::Completion { prompt, completion } => completed(tokenizer()?, &prompt, &completion, reader.eos),
        Line::Text(text) => {
            let mut ids = tokenizer()?.encode(&text, true)?;
            end_with(&mut ids, reader.eos);
            let labels = labels_of(&ids)?;
            Ok(Example { ids, labels })
        }
        Line::Messages(messages) => {
            let Some(template) = reader.template else {
                crate::bail!(
                    "the line contains messages, but the model has no chat template; put a chat_template.jinja next to its \
                    config.json, or use {{\"prompt\", \"completion\"}} lines"
                );
            };
            let (text, spans) = template.render_with_assistant_spans(&messages.into())?;
            let tokens = tokenizer()?.encode_with_offsets(&text, false)?;
            answered(&tokens, &spans)
        }
    }
}

fn check_labels(labels: &[i32], vocab_size: usize) -> Result<()> {
    for (i, &label) in labels.iter().enumerate().filter(|(_, label)| **label != IGNORED) {
        crate::ensure!((label as usize) < vocab_size, "label {i} is {label}, but the model has only {vocab_size} ids");
    }
    Ok(())
}

/// Tokens of prompt, completion and EOS. The labels of the prompt do not count. Prompt and
/// completion are encoded separately, because at inference the prompt is encoded alone.
fn completed(tokenizer: &Tokenizer, prompt: &str, completion: &str, eos: Option<u32>) -> Result<Example> {
    let mut ids = tokenizer.encode(prompt, true)?;
    let n_prompt = ids.len();
    ids.extend(match prompt.is_empty() {
        true => tokenizer.encode(completion, false)?,
        false => tokenizer.encode_continuation(completion)?,
    });
    end_with(&mut ids, eos);
    let mut labels = labels_of(&ids)?;
    labels[..n_prompt].fill(IGNORED);
    Ok(Example { ids, labels })
}

/// Tokens of a conversation. The labels count for tokens that lie entirely in the assistant's text.
fn answered(tokens: &[(u32, Range<usize>)], spans: &[Range<usize>]) -> Result<Example> {
    let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
    let mut labels = labels_of(&ids)?;
    for (label, (_, range)) in labels.iter_mut().zip(tokens) {
        if !spans.iter().any(|span| span.start <= range.start && range.end <= span.end) {
            *label = IGNORED;
        }
    }
    Ok(Example { ids, labels })
}

fn labels_of(ids: &[u32]) -> Result<Vec<i32>> {
    ids.iter().map(|&id| Ok(i32::try_from(id)?)).collect()
}

/// Appends EOS unless the last id already is EOS.
fn end_with(ids: &mut Vec<u32>, eos: Option<u32>) {
    if let Some(eos) = eos.filter(|eos| ids.last() != Some(eos)) {
        ids.push(eos);
    }
}
