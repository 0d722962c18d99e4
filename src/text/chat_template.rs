//! Chat templates: render messages to the prompt text of a model, and find the assistant's parts of
//! it.
//!
//! Templates are Jinja in the style of transformers, and `jinja/` renders them. The text already
//! contains BOS if the model needs it, so it must be encoded without special tokens. This file
//! knows no tokens.

use super::chat_answers::Shown;
use super::chat_fit::Abilities;
pub use super::conversation::{Conversation, Message};
use super::gguf_tokenizer;
use super::jinja::template::{Rendered, Template};
use super::special_tokens::SpecialTokens;
use super::tokenizer_config::TokenizerConfig;
use crate::error::{Context, Error, Result};
use crate::formats::gguf::{Metadata, Value as GgufValue};
use crate::small_file;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

/// Longest template in bytes. Real ones have a few kilobytes.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// The file of a model folder with the template for conversations with tools.
pub const TOOL_USE_FILE: &str = "additional_chat_templates/tool_use.jinja";

/// The keys of a GGUF file that hold a template, one for conversations with tools, and the names of
/// those beside the first.
const GGUF_TEMPLATE: &str = "tokenizer.chat_template";
const GGUF_TOOL_USE: &str = "tokenizer.chat_template.tool_use";
const GGUF_NAMES: &str = "tokenizer.chat_templates";

/// A model's chat template with its special tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Template,
    /// For conversations with tools, where the model has another one for them.
    tool_use: Option<Template>,
    special: SpecialTokens,
    abilities: Abilities,
    /// Of the template for tools.
    tool_abilities: Abilities,
}

impl ChatTemplate {
    /// Parses a template. Fails if it is not valid.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        let mut special = SpecialTokens::default();
        special.set("bos_token", bos_token);
        special.set("eos_token", eos_token);
        Self::with_special(source, special)
    }

    /// Parses a template that sees these special tokens. Fails if it is not valid.
    pub fn with_special(source: &str, special: SpecialTokens) -> Result<Self> {
        Ok(Self {
            template: parse(source)?,
            tool_use: None,
            special,
            abilities: Abilities::default(),
            tool_abilities: Abilities::default(),
        })
    }

    /// The same, with another template for conversations with tools.
    fn with_tool_use(self, source: Option<&str>) -> Result<Self> {
        Ok(Self { tool_use: source.map(parse).transpose().context("tool_use")?, ..self })
    }

    /// The template of a Hugging Face directory: `chat_template.jinja`, otherwise `chat_template`
    /// in `tokenizer_config.json` (in a list of named templates, the one named `default`, and
    /// `tool_use` for conversations with tools). `None` if the model has none.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>> {
        let read = |name: &str| -> Result<Option<String>> {
            let path = dir.join(name);
            match path.exists() {
                true => small_file::read_text(&path).with_context(|| format!("reading {}", path.display())).map(Some),
                false => Ok(None),
            }
        };
        let config: Json = match read("tokenizer_config.json")? {
            Some(text) => small_file::parse_json(&text)
                .with_context(|| format!("reading {}", dir.join("tokenizer_config.json").display()))?,
            None => Json::Null,
        };
        let (source, tool_use) = match read("chat_template.jinja")? {
            Some(source) => (Some(source), read(TOOL_USE_FILE)?),
            None => (template_of(&config)?, named(&config, "tool_use").map(str::to_owned)),
        };
        let Some(source) = source else { return Ok(None) };
        let special = TokenizerConfig::read(dir)?.special_tokens();
        let template = Self::with_special(&source, special).and_then(|t| t.with_tool_use(tool_use.as_deref()));
        template.with_context(|| format!("the chat template of {}", dir.display())).map(Some)
    }

    /// The template of a GGUF file, if it has one.
    pub fn from_gguf(metadata: &Metadata) -> Result<Option<Self>> {
        if !metadata.contains(GGUF_TEMPLATE) {
            return Ok(None);
        }
        let special = gguf_tokenizer::special_tokens(metadata)?;
        let source = metadata.str(GGUF_TEMPLATE)?;
        let tool_use = if metadata.contains(GGUF_TOOL_USE) { Some(metadata.str(GGUF_TOOL_USE)?) } else { None };
        let template = Self::with_special(source, special).and_then(|t| t.with_tool_use(tool_use));
        template.context("the GGUF file's chat template").map(Some)
    }

    /// The keys of a GGUF file that hold the templates, as llama.cpp's converter writes them.
    pub fn to_gguf(&self) -> Vec<(String, GgufValue)> {
        let text = |text: &str| GgufValue::String(text.into());
        let mut keys = vec![(GGUF_TEMPLATE.to_string(), text(self.source()))];
        if let Some(tool_use) = self.tool_use_source() {
            keys.push((GGUF_TOOL_USE.into(), text(tool_use)));
            keys.push((GGUF_NAMES.into(), GgufValue::Array(vec![text("tool_use")])));
        }
        keys
    }

    /// The value of `chat_template` in `tokenizer_config.json`: the template, or a list of named ones.
    pub fn to_config(&self) -> Json {
        let named = |name: &str, source: &str| serde_json::json!({ "name": name, "template": source });
        match self.tool_use_source() {
            None => Json::String(self.source().into()),
            Some(tool_use) => Json::Array(vec![named("default", self.source()), named("tool_use", tool_use)]),
        }
    }

    /// The source of the template.
    pub fn source(&self) -> &str {
        self.template.source()
    }

    /// The source of the template for conversations with tools.
    pub fn tool_source(&self) -> &str {
        self.tool_use_source().unwrap_or(self.source())
    }

    /// The source of the template that is for conversations with tools alone, if the model has one.
    pub fn tool_use_source(&self) -> Option<&str> {
        self.tool_use.as_ref().map(Template::source)
    }

    /// Whether the model writes thoughts between `<think>` and `</think>` before its answer.
    pub fn shows_thoughts(&self) -> bool {
        self.template.source().contains("</think>")
    }

    /// The text of a conversation. With `add_generation_prompt`, it ends at the start of the
    /// assistant's next answer.
    ///
    /// Fails if the template rejects the messages (many require that user and assistant alternate),
    /// if a variable has a reserved name, if the template does not show the tools, or if it exceeds
    /// its limits.
    pub fn render(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String> {
        let text = self.render_marked(&*self.fitted(conversation)?, add_generation_prompt)?.text;
        conversation.check_tools_shown(&text)?;
        Ok(text)
    }

    /// The conversation as the template can show it.
    fn fitted<'a>(&self, conversation: &'a Conversation) -> Result<Cow<'a, Conversation>> {
        // The template for tools is another one, and it is asked with an empty list of them.
        let (abilities, tools) = match conversation.tools.as_ref().and(self.tool_use.as_ref()) {
            Some(_) => (&self.tool_abilities, Some(Json::Array(Vec::new()))),
            None => (&self.abilities, None),
        };
        let ask = |asked: &Conversation| {
            let asked = Conversation { tools: tools.clone(), ..asked.clone() };
            Ok(self.render_marked(&asked, false)?.text)
        };
        let mut fitted = abilities.fitted(conversation, &ask)?;
        if conversation.tools.is_some() && self.takes_tools_from_messages() && !self.shows_tools(&fitted) {
            fitted.to_mut().move_tools_to_system();
        }
        Ok(fitted)
    }

    /// Whether the template looks for tools in a message, as that of Phi-4-mini does.
    fn takes_tools_from_messages(&self) -> bool {
        ["message['tools']", "message[\"tools\"]", "message.tools"].iter().any(|read| self.tool_source().contains(read))
    }

    /// Whether the template shows the tools that stand beside the messages.
    fn shows_tools(&self, conversation: &Conversation) -> bool {
        let none = Conversation { tools: Some(Json::Array(Vec::new())), ..conversation.clone() };
        let [with, without] =
            [conversation, &none].map(|asked| self.render_marked(asked, false).map(|shown| shown.text));
        !matches!((with, without), (Ok(with), Ok(without)) if with == without)
    }

    /// The text of a conversation, and the byte ranges that the assistant must produce: its
    /// answers, each with its end mark.
    ///
    /// The ranges come from the `{% generation %}` blocks of the template if it has any, else from
    /// what the template writes for other answers (`chat_answers.rs` has the rule). Fails if the
    /// template refuses the conversation, or if an answer cannot be found.
    pub fn render_with_assistant_spans(&self, conversation: &Conversation) -> Result<(String, Vec<Range<usize>>)> {
        self.render_with_answers(conversation, |_| true)
    }

    /// [`ChatTemplate::render_with_assistant_spans`] for those answers whose number among the
    /// messages, from 0, passes the filter.
    pub fn render_with_answers(
        &self,
        conversation: &Conversation,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Result<(String, Vec<Range<usize>>)> {
        let n_given = conversation.messages.len();
        let conversation = &*self.fitted(conversation)?;
        let n_added = conversation.messages.len() - n_given; // in front
        let is_wanted = |i: usize| is_wanted(i - n_added);
        let Rendered { text, generated: mut blocks } = self.render_marked(conversation, false)?;
        let answers = conversation.messages.iter().enumerate().filter(|(_, m)| m.role() == "assistant");
        let (wanted, others): (Vec<usize>, Vec<usize>) = answers.map(|(i, _)| i).partition(|&i| is_wanted(i));
        let render = |changed: &Conversation, prompt: bool| Ok(self.render_marked(changed, prompt)?.text);
        let eos_token = self.special.get("eos_token").unwrap_or_default();
        let shown = Shown { conversation, text: &text, eos_token, render: &render };
        if blocks.is_empty() {
            let spans = shown.answers(&wanted)?;
            return Ok((text, spans));
        }
        let unwanted = shown.answers(&others)?;
        blocks.retain(|block| !unwanted.iter().any(|other| block.start < other.end && other.start < block.end));
        Ok((text, blocks))
    }

    fn render_marked(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<Rendered> {
        let Conversation { messages, tools, documents, variables } = conversation;
        if let Some(name) = Conversation::RESERVED.iter().find(|name| variables.contains_key(**name)) {
            return Err(Error::usage(format!(
                "a template variable cannot have the name {name}, which has its own meaning"
            )));
        }
        let messages = messages.iter().map(|message| Json::Object(message.fields().clone())).collect();
        let given = [
            ("messages", Json::Array(messages)),
            ("add_generation_prompt", Json::Bool(add_generation_prompt)),
            ("tools", tools.clone().unwrap_or(Json::Null)),
            ("documents", documents.clone().unwrap_or(Json::Null)),
        ];
        let mut values = self.special.variables().clone();
        values.extend(variables.clone());
        values.extend(given.map(|(name, value)| (name.to_owned(), value)));
        let template = self.tool_use.as_ref().filter(|_| tools.is_some()).unwrap_or(&self.template);
        template.render(&values).context("the chat template failed")
    }
}

fn parse(source: &str) -> Result<Template> {
    crate::ensure!(
        source.len() <= MAX_TEMPLATE_BYTES,
        "the chat template has {} bytes; at most {MAX_TEMPLATE_BYTES} are supported",
        source.len()
    );
    Template::parse(source).context("parsing the chat template")
}

/// A template of the list of named templates in `tokenizer_config.json`.
fn named<'a>(config: &'a Json, name: &str) -> Option<&'a str> {
    let list = config["chat_template"].as_array()?;
    list.iter().find(|t| t["name"] == name)?["template"].as_str()
}

/// The template in `tokenizer_config.json`: a string, or a list of named templates.
fn template_of(config: &Json) -> Result<Option<String>> {
    match &config["chat_template"] {
        Json::Null => Ok(None),
        Json::String(source) => Ok(Some(source.clone())),
        Json::Array(list) => {
            let default = named(config, "default");
            let names = || list.iter().filter_map(|t| t["name"].as_str()).collect::<Vec<_>>().join(", ");
            default.map(|source| Some(source.to_owned())).ok_or_else(|| {
                Error::new(format!("tokenizer_config.json has no chat template named 'default', only: {}", names()))
            })
        }
        _ => {
            Err(Error::new("chat_template in tokenizer_config.json is neither a string nor a list of named templates"))
        }
    }
}

#[cfg(test)]
#[path = "chat_template_tests.rs"]
mod tests;
