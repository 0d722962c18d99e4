//! One line of training data: what shape it has, and the tokens and labels it becomes.
//!
//! Which tokens are trained: of a completion all and the EOS after it, of messages the assistant's answers with their
//! end-of-turn marks, of a text everything, of tokens what their labels say. Reading files is [`super::dataset`].

use super::dataset::{Example, IGNORED, Reader, SHAPES};
use super::tokenizer::Tokenizer;
use crate::error::{Context, Error, Result};
use crate::model::chat_template::Message;
use serde_json::{Map, Value as Json};
use std::ops::Range;

/// A line by its shape.
pub(super) enum Line {
    Completion { prompt: String, completion: String },
    Messages(Vec<Message>),
    Text(String),
    Tokens { ids: Vec<u32>, labels: Vec<i32> },
}

impl Line {
    /// Parses one line. Fields that no shape has are let be.
    pub fn parse(line: &[u8]) -> Result<Self> {
        let json: Json = serde_json::from_slice(line).map_err(|e| Error::new(format!("not valid JSON ({e})")))?;
        let Json::Object(object) = &json else {
            crate::bail!("found {}; expected an object: {SHAPES}", kind(&json));
        };
        let has = |key: &str| object.get(key).is_some_and(|v| !v.is_null());
        if has("input_ids") {
            return tokens(object);
        }
        if has("messages") {
            return Ok(Self::Messages(messages(&object["messages"])?));
        }
        if has("prompt") && has("completion") {
            let (prompt, completion) = (string(object, "prompt")?, string(object, "completion")?);
            return Ok(Self::Completion { prompt, completion });
        }
        if has("text") {
            return Ok(Self::Text(string(object, "text")?));
        }
        let names: Vec<&str> = object.keys().map(String::as_str).take(20).collect();
        crate::bail!("found an object with the fields [{}]; expected {SHAPES}", names.join(", "));
    }
}

fn string(object: &Map<String, Json>, key: &str) -> Result<String> {
    match &object[key] {
        Json::String(s) => Ok(s.clone()),
        other => Err(Error::new(format!("\"{key}\" is {}; expected a string", kind(other)))),
    }
}

fn messages(value: &Json) -> Result<Vec<Message>> {
    let Json::Array(list) = value else {
        crate::bail!("\"messages\" is {}; expected a list of {{\"role\", \"content\"}}", kind(value));
    };
    crate::ensure!(!list.is_empty(), "\"messages\" is empty");
    list.iter().enumerate().map(|(i, m)| message(m).with_context(|| format!("message {}", i + 1))).collect()
}

fn message(value: &Json) -> Result<Message> {
    let Json::Object(object) = value else {
        crate::bail!("found {}; expected {{\"role\": \"…\", \"content\": \"…\"}}", kind(value));
    };
    for (key, value) in object {
        // To leave out a tool call silently would train on another conversation than the one in the file.
        let known = matches!(key.as_str(), "role" | "content" | "name");
        crate::ensure!(known || value.is_null(), "the field \"{key}\" is not supported, only role and content are");
    }
    for key in ["role", "content"] {
        crate::ensure!(object.contains_key(key), "the field \"{key}\" is missing");
    }
    Ok(Message::new(string(object, "role")?, string(object, "content")?))
}

fn tokens(object: &Map<String, Json>) -> Result<Line> {
    let list = |key: &str| match &object[key] {
        Json::Array(list) => Ok(list),
        other => Err(Error::new(format!("\"{key}\" is {}; expected a list of integers", kind(other)))),
    };
    let ids = list("input_ids")?
        .iter()
        .map(|v| v.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id <= i32::MAX as u32))
        .collect::<Option<Vec<u32>>>()
        .ok_or_else(|| Error::new("\"input_ids\" holds something that is not a token id"))?;
    if object.get("labels").is_none_or(Json::is_null) {
        let labels = ids.iter().map(|&id| id as i32).collect();
        return Ok(Line::Tokens { ids, labels });
    }
    let labels = list("labels")?
        .iter()
        .map(|v| v.as_i64().and_then(|id| i32::try_from(id).ok()).filter(|&id| id >= 0 || id == IGNORED))
        .collect::<Option<Vec<i32>>>()
        .ok_or_else(|| Error::new("\"labels\" holds something that is neither a token id nor -100"))?;
    let (n, m) = (ids.len(), labels.len());
    crate::ensure!(n == m, "\"input_ids\" has {n} entries and \"labels\" {m}: give one label per token");
    Ok(Line::Tokens { ids, labels })
}

/// What a JSON value is, for messages.
fn kind(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(b) => b.to_string(),
        Json::Number(n) => format!("the number {n}"),
        Json::String(s) => format!("the string {:?}", s.chars().take(40).collect::<String>()),
        Json::Array(list) => format!("a list of {}", list.len()),
        Json::Object(_) => "an object".to_owned(),
    }
}

/// Tokens and labels of a line.
pub(super) fn tokens_of(line: Line, reader: &Reader) -> Result<Example> {
    let tokenizer = || {
        reader.tokenizer.ok_or_else(|| {
            Error::new("the line holds text, but the model has no tokenizer; give {\"input_ids\": […]} lines instead")
        })
    };
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
                    "the line holds messages, but the model has no chat template; put a chat_template.jinja beside its \
                     config.json, or give {{\"prompt\", \"completion\"}} lines"
                );
            };
            let (text, spans) = template.render_with_assistant_spans(&messages)?;
            let tokens = tokenizer()?.encode_with_offsets(&text, false)?;
            answered(&tokens, &spans)
        }
    }
}

fn check_labels(labels: &[i32], vocab_size: usize) -> Result<()> {
    for (i, &label) in labels.iter().enumerate().filter(|(_, label)| **label != IGNORED) {
        crate::ensure!(
            (label as usize) < vocab_size,
            "label {i} is {label}, but the model knows only {vocab_size} ids"
        );
    }
    Ok(())
}

/// The prompt's tokens, untrained, and the completion's with EOS, trained. They are encoded apart, as the prompt is alone
/// when the model is used.
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

/// The tokens of a conversation; trained are those that stand for assistant's text only.
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

/// Adds EOS unless it is there.
fn end_with(ids: &mut Vec<u32>, eos: Option<u32>) {
    if let Some(eos) = eos.filter(|eos| ids.last() != Some(eos)) {
        ids.push(eos);
    }
}
