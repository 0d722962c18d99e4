//! One line of training data: an object in one of the accepted forms.
//!
//! `fields.rs` has its fields, `turns.rs` reads the messages of a line, `token_line.rs` its token ids,
//! and `tokens.rs` converts a line to tokens and labels.

use super::example::Example;
use super::fields::{self, Fields};
use super::raw::{is_list, is_object, is_string, kind, list, object, string};
use super::token_line;
use super::turns::{self, Chat};
use crate::error::{Error, Result};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;

/// The accepted forms of a line, for error messages.
pub const SHAPES: &str = "{\"prompt\": \"…\", \"completion\": \"…\"}, {\"messages\": [{\"role\": \"…\", \"content\": \"…\"}, …]}, \
                          {\"conversations\": [{\"from\": \"…\", \"value\": \"…\"}, …]}, \
                          {\"instruction\": \"…\", \"input\": \"…\", \"output\": \"…\"}, {\"text\": \"…\"}, \
                          {\"input_ids\": […], \"labels\": […]} or \
                          {\"prompt\": \"…\", \"chosen\": \"…\", \"rejected\": \"…\"}";

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    Messages,
    ShareGpt,
    PromptAndCompletion,
    Alpaca,
    Text,
    Tokens,
    /// A prompt with a chosen and a rejected answer.
    Preference,
    /// A whole text file.
    Document,
}

impl Form {
    /// The name for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::ShareGpt => "conversations (ShareGPT)",
            Self::PromptAndCompletion => "prompt and completion",
            Self::Alpaca => "instruction and output (Alpaca)",
            Self::Text => "text",
            Self::Tokens => "input_ids",
            Self::Preference => "chosen and rejected",
            Self::Document => "document",
        }
    }
}

/// What a line holds.
#[derive(Debug)]
pub enum Line {
    Completion {
        prompt: String,
        completion: String,
    },
    /// An instruction with its input, and the answer.
    Instruction {
        system: Option<String>,
        instruction: String,
        output: String,
    },
    Chat(Chat),
    Text(String),
    /// Documents of token ids: one, or those of a packed line.
    Tokens(Vec<Example>),
    /// Two answers to one prompt, each as a completion or a chat.
    Preference {
        chosen: Box<Line>,
        rejected: Box<Line>,
    },
}

impl Line {
    /// Parses one line. Ignores unknown fields. `pairs` says which form counts in a line that holds
    /// a preference pair and another form: the pair, or the other one.
    pub fn parse(line: &[u8], pairs: bool) -> Result<(Form, Self)> {
        let invalid = |e: serde_json::Error| Error::new(format!("not valid JSON ({e})"));
        let value: &RawValue = serde_json::from_slice(line).map_err(invalid)?;
        crate::ensure!(is_object(value), "found {}; expected an object: {SHAPES}", kind(value));
        let fields: Fields = serde_json::from_str(value.get()).map_err(|e| Error::new(e.to_string()))?;
        match fields {
            Fields { chosen: Some(chosen), rejected: Some(rejected), .. } if pairs => {
                Ok((Form::Preference, pair(&fields, chosen, rejected)?))
            }
            Fields { input_ids: Some(ids), .. } => {
                Ok((Form::Tokens, Self::Tokens(token_line::documents(ids, &fields)?)))
            }
            Fields { messages: Some(messages), .. } => {
                Ok((Form::Messages, Self::Chat(turns::messages("messages", messages)?.with(&fields)?)))
            }
            Fields { conversations: Some(turns), .. } => {
                Ok((Form::ShareGpt, Self::Chat(turns::sharegpt(turns)?.with(&fields)?)))
            }
            Fields { prompt: Some(prompt), completion: Some(completion), .. } => {
                let line = match (is_list(prompt), is_list(completion)) {
                    (false, false) => {
                        let beside =
                            [("system", fields.system), ("tools", fields.tools), ("documents", fields.documents)];
                        nothing_beside("a prompt that is a string", &beside)?;
                        Self::Completion {
                            prompt: string("prompt", prompt)?,
                            completion: string("completion", completion)?,
                        }
                    }
                    (true, true) => Self::Chat(turns::continued(prompt, completion)?.with(&fields)?),
                    _ => crate::bail!(
                        "\"prompt\" is {} and \"completion\" {}; expected two strings or two lists of messages",
                        kind(prompt),
                        kind(completion)
                    ),
                };
                Ok((Form::PromptAndCompletion, line))
            }
            Fields { instruction: Some(instruction), output: Some(output), .. } => {
                let more = fields.history.filter(|history| list::<&RawValue>(history).is_none_or(|l| !l.is_empty()));
                crate::ensure!(more.is_none(), "\"history\" is not supported: write the turns as \"messages\"");
                nothing_beside("an instruction", &[("tools", fields.tools), ("documents", fields.documents)])?;
                let mut instruction = string("instruction", instruction)?;
                let input = fields.input.map(|input| string("input", input)).transpose()?.unwrap_or_default();
                if !instruction.is_empty() && !input.is_empty() {
                    instruction.push('\n');
                }
                instruction.push_str(&input);
                let system = fields.system.map(|system| string("system", system)).transpose()?;
                let system = system.filter(|system| !system.is_empty());
                Ok((Form::Alpaca, Self::Instruction { system, instruction, output: string("output", output)? }))
            }
            Fields { text: Some(text), .. } => Ok((Form::Text, Self::Text(string("text", text)?))),
            Fields { chosen: Some(chosen), rejected: Some(rejected), .. } => {
                Ok((Form::Preference, pair(&fields, chosen, rejected)?))
            }
            _ => Err(unknown(value)),
        }
    }

    /// Bytes of text to tokenise.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Completion { prompt, completion } => prompt.len() + completion.len(),
            Self::Instruction { system, instruction, output } => {
                system.as_ref().map_or(0, String::len) + instruction.len() + output.len()
            }
            Self::Chat(chat) => chat.conversation.n_bytes(),
            Self::Text(text) => text.len(),
            Self::Tokens(_) => 0,
            Self::Preference { chosen, rejected } => chosen.text_bytes() + rejected.text_bytes(),
        }
    }
}

impl Chat {
    /// Adds what stands beside the messages: tools, documents, template variables and a system
    /// prompt.
    fn with(mut self, fields: &Fields) -> Result<Self> {
        if let Some(functions) = fields.functions {
            crate::bail!("\"functions\" is {}, an older form of \"tools\", which is not supported", kind(functions));
        }
        let conversation = &mut self.conversation;
        conversation.tools = fields.tools.map(turns::tools).transpose()?.flatten();
        conversation.documents = fields.documents.map(|d| super::raw::any("\"documents\"", d)).transpose()?;
        if let Some(variables) = fields.chat_template_kwargs {
            let text = if is_string(variables) { Some(string("chat_template_kwargs", variables)?) } else { None };
            let parsed = text.as_deref().map(serde_json::from_str::<Box<RawValue>>).transpose()?;
            conversation.variables = object("\"chat_template_kwargs\"", parsed.as_deref().unwrap_or(variables))?;
        }
        if let Some(system) = fields.system {
            self.begin_with_system(string("system", system)?)?;
        }
        Ok(self)
    }
}

/// A preference pair, of texts or of messages.
fn pair(fields: &Fields, chosen: &RawValue, rejected: &RawValue) -> Result<Line> {
    crate::ensure!(
        is_list(chosen) == is_list(rejected),
        "\"chosen\" is {} and \"rejected\" {}; expected two strings or two lists of messages",
        kind(chosen),
        kind(rejected)
    );
    let boxed = |chosen, rejected| Line::Preference { chosen: Box::new(chosen), rejected: Box::new(rejected) };
    if is_list(chosen) || fields.prompt.is_some_and(is_list) {
        let [chosen, rejected] = turns::pair(fields.prompt, chosen, rejected)?;
        return Ok(boxed(Line::Chat(chosen.with(fields)?), Line::Chat(rejected.with(fields)?)));
    }
    let beside = [("system", fields.system), ("tools", fields.tools), ("documents", fields.documents)];
    nothing_beside("answers that are strings", &beside)?;
    let (chosen, rejected) = (string("chosen", chosen)?, string("rejected", rejected)?);
    let n_prompt = if fields.prompt.is_some() { 0 } else { shared_words(&chosen, &rejected) };
    let prompt = fields.prompt.map(|prompt| string("prompt", prompt)).transpose()?;
    let prompt = prompt.unwrap_or_else(|| chosen[..n_prompt].to_owned());
    let answer = |text: &str| Line::Completion { prompt: prompt.clone(), completion: text[n_prompt..].to_owned() };
    Ok(boxed(answer(&chosen), answer(&rejected)))
}

/// Bytes of the whole words that two texts share at the start. The white space after them belongs to
/// what follows.
fn shared_words(a: &str, b: &str) -> usize {
    let n: usize = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let ends_word = |rest: &str| rest.starts_with(char::is_whitespace);
    match ends_word(&a[n..]) && ends_word(&b[n..]) {
        true => n,
        false => a[..n].rfind(char::is_whitespace).unwrap_or(0),
    }
}

/// Fails if a field holds something that a line of this form cannot show.
fn nothing_beside(form: &str, fields: &[(&str, Option<&RawValue>)]) -> Result<()> {
    for (name, value) in fields {
        let is_empty = |value: &RawValue| matches!(value.get(), "\"\"" | "[]" | "{}");
        let given = value.filter(|value| !is_empty(value));
        crate::ensure!(given.is_none(), "\"{name}\" beside {form} is not supported: write the turns as \"messages\"");
    }
    Ok(())
}

/// The error for an object in none of the forms.
fn unknown(value: &RawValue) -> Error {
    let Names(names) = match serde_json::from_str(value.get()) {
        Ok(names) => names,
        Err(e) => return Error::new(format!("not valid JSON ({e})")),
    };
    if let Some((name, _)) = names.iter().find(|(name, is_null)| *is_null && fields::column(name).is_some()) {
        return Error::new(format!("the field \"{name}\" is null; expected {SHAPES}"));
    }
    let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
    Error::new(format!("found an object with the fields [{}]; expected {SHAPES}", names.join(", ")))
}

/// The names of an object's first 20 fields in file order, each with whether it is null, for error
/// messages.
struct Names(Vec<(String, bool)>);

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
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if names.len() < 20 {
                        names.push((name, value.get() == "null"));
                    }
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
