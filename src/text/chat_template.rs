//! Chat templates: from messages to the text a model was trained on, and which part of it the assistant wrote.
//!
//! Templates are Jinja, as transformers writes them, run by minijinja under the conventions in `chat_environment.rs`.
//! The text already holds BOS where the model wants it, so it is encoded without special tokens. This knows no tokens.

use super::chat_environment::{self, Markers};
use crate::error::{Context, Error, Result};
use crate::formats::gguf::Metadata;
use crate::small_file;
use minijinja::context;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Longest template that is read; real ones have a few kilobytes.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`, or what else the template knows.
    pub role: String,
    pub content: String,
}

impl Message {
    /// A turn of the given role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A model's chat template with the special tokens that it names.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// A template from its text. Fails when it is not a valid template.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        crate::ensure!(
            source.len() <= MAX_TEMPLATE_BYTES,
            "the chat template has {} bytes; more than {MAX_TEMPLATE_BYTES} is not a template",
            source.len()
        );
        chat_environment::check_tags(source).context("parsing the chat template")?;
        let source = chat_environment::mark_generation(source);
        guarded(|| chat_environment::environment().template_from_str(&source).map(drop))
            .context("parsing the chat template")?;
        Ok(Self { source, bos_token: bos_token.to_owned(), eos_token: eos_token.to_owned() })
    }

    /// The template of a Hugging Face directory: `chat_template.jinja`, else `chat_template` in `tokenizer_config.json`
    /// (of several named ones, the one named `default`). None when the model has none.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>> {
        let read = |name: &str| -> Result<Option<String>> {
            let path = dir.join(name);
            match path.exists() {
                true => small_file::read_text(&path).with_context(|| format!("reading {}", path.display())).map(Some),
                false => Ok(None),
            }
        };
        let config: Json = match read("tokenizer_config.json")? {
            Some(text) => serde_json::from_str(&text)
                .with_context(|| format!("reading {}", dir.join("tokenizer_config.json").display()))?,
            None => Json::Null,
        };
        let source = match read("chat_template.jinja")? {
            Some(source) => Some(source),
            None => template_of(&config)?,
        };
        let token = |key: &str| {
            let token = &config[key];
            token.as_str().or_else(|| token["content"].as_str()).unwrap_or_default().to_owned()
        };
        source
            .map(|source| Self::new(&source, &token("bos_token"), &token("eos_token")))
            .transpose()
            .with_context(|| format!("the chat template of {}", dir.display()))
    }

    /// The template of a GGUF file, if it has one.
    pub fn from_gguf(metadata: &Metadata) -> Result<Option<Self>> {
        if !metadata.contains("tokenizer.chat_template") {
            return Ok(None);
        }
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        let token = |key: &str| -> Result<&str> {
            let id = if metadata.contains(key) { metadata.u64(key)? as usize } else { usize::MAX };
            Ok(tokens.get(id).copied().unwrap_or_default())
        };
        let (bos, eos) = (token("tokenizer.ggml.bos_token_id")?, token("tokenizer.ggml.eos_token_id")?);
        Self::new(metadata.str("tokenizer.chat_template")?, bos, eos).context("the GGUF file's chat template").map(Some)
    }

    /// The text of a conversation. `add_generation_prompt` ends it where the assistant is to begin.
    ///
    /// Fails when the template refuses the messages (many want user and assistant to alternate), or runs away.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        Ok(self.render_marked(messages, add_generation_prompt)?.0)
    }

    /// The text of a conversation, and the byte ranges of it that the assistant must produce: its answers, each with its
    /// end-of-turn mark.
    ///
    /// They are what the template marks with `{% generation %}`. A template without such marks is asked for the text before
    /// and after each answer; it fails when these do not continue each other.
    pub fn render_with_assistant_spans(&self, messages: &[Message]) -> Result<(String, Vec<Range<usize>>)> {
        let (text, spans) = self.render_marked(messages, false)?;
        if !spans.is_empty() {
            return Ok((text, spans));
        }
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (i, message) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let before = self.render(&messages[..i], true)?;
            let through = self.render(&messages[..=i], false)?;
            let span = answer_span(&before, &through, &text, message).ok_or_else(|| not_continuing(i))?;
            crate::ensure!(spans.last().is_none_or(|last| last.end <= span.start), "{}", not_continuing(i));
            spans.push(span);
        }
        Ok((text, spans))
    }

    fn render_marked(&self, messages: &[Message], add_generation_prompt: bool) -> Result<(String, Vec<Range<usize>>)> {
        let markers = Markers::absent_from(messages.iter().map(|m| m.content.as_str()).chain([self.source.as_str()]));
        let environment = chat_environment::environment();
        let template = environment.template_from_str(&self.source)?;
        let mut out = chat_environment::Bounded::default();
        let values = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos_token,
            eos_token => self.eos_token,
            tools => (),
            documents => (),
            ..markers.values()
        };
        guarded(|| template.render_captured_to(values, &mut out).map(drop).map_err(refused))?;
        markers.take_out(&out.text()?)
    }
}

/// The template in `tokenizer_config.json`: a string, or a list of named ones.
fn template_of(config: &Json) -> Result<Option<String>> {
    match &config["chat_template"] {
        Json::Null => Ok(None),
        Json::String(source) => Ok(Some(source.clone())),
        Json::Array(named) => {
            let default = named.iter().find(|t| t["name"] == "default").and_then(|t| t["template"].as_str());
            let names = || named.iter().filter_map(|t| t["name"].as_str()).collect::<Vec<_>>().join(", ");
            default.map(|source| Some(source.to_owned())).ok_or_else(|| {
                Error::new(format!("tokenizer_config.json has no chat template named 'default', only: {}", names()))
            })
        }
        _ => {
            Err(Error::new("chat_template in tokenizer_config.json is neither a string nor a list of named templates"))
        }
    }
}

/// Where in `full` the answer stands that turns `before` into `through`, without white space after its end-of-turn mark
/// (the model stops at the mark and never writes it).
fn answer_span(before: &str, through: &str, full: &str, message: &Message) -> Option<Range<usize>> {
    let content = message.content.trim();
    let answer = through.strip_prefix(before)?;
    let rest = full.strip_prefix(before)?;
    // Where a template shows old answers in another way than the last one (Qwen3 leaves out the reasoning), the old way
    // counts: from the content on it is the same, and only white space may stand between it and the prompt.
    let starts: Vec<usize> = match full.starts_with(through) {
        true => vec![0],
        false => answer.match_indices(content).map(|(at, _)| at).collect(),
    };
    let white = rest.len() - rest.trim_start().len();
    starts.into_iter().find_map(|at| {
        let answer = &answer[at..];
        let gap = (0..=white).filter(|gap| rest.is_char_boundary(*gap)).find(|gap| rest[*gap..].starts_with(answer))?;
        let after_content = answer.find(content)? + content.len();
        let has_mark = !answer[after_content..].trim().is_empty();
        let kept = if has_mark { answer.trim_end() } else { answer };
        Some(before.len()..before.len() + gap + kept.len())
    })
}

fn not_continuing(i: usize) -> Error {
    Error::new(format!(
        "the chat template does not show which text is the answer in message {}: what it writes before the answer is not \
         the beginning of what it writes with it, and it has no {{% generation %}} marks; give \
         {{\"prompt\", \"completion\"}} lines instead",
        i + 1
    ))
}

/// Runs minijinja, which panics on a few things that a template can say, such as `x[:9:-1]` of a shorter list.
fn guarded<E: Into<Error>>(run: impl FnOnce() -> std::result::Result<(), E>) -> Result<()> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(E::into),
        Err(_) => Err(Error::new("the chat template says something that its interpreter cannot do")),
    }
}

/// minijinja's error with its detail, which for `raise_exception` is the template's own sentence.
fn refused(e: minijinja::Error) -> Error {
    if e.kind() == minijinja::ErrorKind::OutOfFuel {
        return Error::new("the chat template did not come to an end within its allowance of steps");
    }
    Error::from(e).context("the chat template failed")
}

#[cfg(test)]
#[path = "chat_template_tests.rs"]
mod tests;
