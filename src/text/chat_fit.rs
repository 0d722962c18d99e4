//! Fits messages to what a chat template can show: contents in parts or null, and arguments of tool
//! calls.
//!
//! Files give a content as a text, as a list of parts or, beside tool calls, as null, and arguments
//! as an object or as the text of one. A template may know only some of these forms, and would write
//! the others as a printed list, as the word None, or as JSON within JSON. So a template is asked
//! once, with a message made up for the purpose, and messages that it cannot show are rewritten:
//! text parts joined by line breaks, null as an empty text, and arguments read as JSON. What a
//! template can show stays as it is.

use super::conversation::{Conversation, Message};
use crate::error::{Context, Error, Result};
use crate::plain_json::Plain;
use serde_json::{Map, Value as Json, json};
use std::borrow::Cow;
use std::sync::OnceLock;

/// Roles whose contents may be lists of parts.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
const NEEDLE: &str = "haystack";

/// What a template can show, as far as it was asked.
#[derive(Debug, Default)]
pub struct Abilities {
    shows_parts: [OnceLock<bool>; ROLES.len()],
    shows_null: OnceLock<bool>,
    needs_objects: OnceLock<bool>,
}

/// Renders a conversation without a generation prompt.
pub type Render<'a> = &'a dyn Fn(&Conversation) -> Result<String>;

impl Abilities {
    /// The conversation with messages that the template can show. Fails on parts that are not text,
    /// and on arguments that are neither JSON nor shown as text.
    pub fn fitted<'a>(&self, conversation: &'a Conversation, render: Render<'_>) -> Result<Cow<'a, Conversation>> {
        let mut fitted = Cow::Borrowed(conversation);
        for (i, message) in conversation.messages.iter().enumerate() {
            let changed = self.fitted_message(message, render).with_context(|| format!("message {}", i + 1))?;
            if let Some(changed) = changed {
                fitted.to_mut().messages[i] = changed;
            }
        }
        Ok(fitted)
    }

    fn fitted_message(&self, message: &Message, render: Render<'_>) -> Result<Option<Message>> {
        let mut fields = message.fields().clone();
        let mut is_changed = false;
        if let Some(Json::Array(parts)) = fields.get("content") {
            let text = joined(parts)?;
            if !self.shows_parts(message.role(), render) {
                fields["content"] = Json::String(text);
                is_changed = true;
            }
        }
        if fields.get("content").is_some_and(Json::is_null) && !self.shows_null(render) {
            fields["content"] = Json::String(String::new());
            is_changed = true;
        }
        for function in functions(&mut fields) {
            if let Some(Json::String(text)) = function.get("arguments")
                && self.needs_objects(render)
            {
                function["arguments"] = match text.trim() {
                    "" => json!({}),
                    text => serde_json::from_str(text)
                        .map(|Plain(value)| value)
                        .map_err(|e| Error::new(format!("the arguments of a tool call are not JSON ({e})")))?,
                };
                is_changed = true;
            }
        }
        is_changed.then(|| Message::from_fields(fields)).transpose()
    }

    fn shows_parts(&self, role: &str, render: Render<'_>) -> bool {
        let Some(place) = ROLES.iter().position(|known| *known == role) else { return false };
        *self.shows_parts[place].get_or_init(|| {
            let parts = json!({"role": role, "content": [{"type": "text", "text": NEEDLE}]});
            let user = json!({"role": "user", "content": "a"});
            let asked = match role {
                "system" => vec![parts, user],
                "user" => vec![parts],
                "assistant" => vec![user, parts],
                _ => vec![user, calling(json!({})), parts],
            };
            shown(asked, render).is_some_and(|text| text.contains(NEEDLE) && !text.contains("type"))
        })
    }

    /// Whether the template shows an answer that only calls a function.
    fn shows_null(&self, render: Render<'_>) -> bool {
        *self.shows_null.get_or_init(|| {
            let mut null = calling(json!({}));
            null["content"] = Json::Null;
            let text = shown(vec![json!({"role": "user", "content": "a"}), null], render);
            text.is_some_and(|text| !text.to_lowercase().contains("none"))
        })
    }

    /// Whether the template shows arguments as it should only if they are objects.
    fn needs_objects(&self, render: Render<'_>) -> bool {
        *self.needs_objects.get_or_init(|| {
            let arguments = json!({ NEEDLE: 1 });
            let ask =
                |arguments: Json| shown(vec![json!({"role": "user", "content": "a"}), calling(arguments)], render);
            let quoted = format!("\"{NEEDLE}\"");
            let as_text = ask(Json::String(arguments.to_string()));
            let is_as_it_is = as_text.as_ref().is_some_and(|text| text.contains(&quoted));
            !is_as_it_is && ask(arguments).is_some_and(|text| text.contains(NEEDLE) && Some(text) != as_text)
        })
    }
}

/// The functions that a message calls.
fn functions(fields: &mut Map<String, Json>) -> impl Iterator<Item = &mut Json> {
    let calls = fields.get_mut("tool_calls").and_then(Json::as_array_mut).into_iter().flatten();
    calls.map(|call| if call.get("function").is_some() { &mut call["function"] } else { call })
}

fn calling(arguments: Json) -> Json {
    let call = json!({"id": "call00001", "type": "function", "function": {"name": "f", "arguments": arguments}});
    json!({"role": "assistant", "content": "", "tool_calls": [call]})
}

fn shown(messages: Vec<Json>, render: Render<'_>) -> Option<String> {
    let message = |json: Json| match json {
        Json::Object(fields) => Message::from_fields(fields).ok(),
        _ => None,
    };
    render(&messages.into_iter().filter_map(message).collect::<Vec<_>>().into()).ok()
}

/// The texts of a content's parts, joined by line breaks.
fn joined(parts: &[Json]) -> Result<String> {
    let text = |(i, part): (usize, &Json)| match (part, &part["type"], &part["text"]) {
        (Json::String(text), ..) => Ok(text.clone()),
        (_, Json::String(kind), Json::String(text)) if kind == "text" => Ok(text.clone()),
        (_, Json::String(kind), _) if kind != "text" => Err(Error::new(format!(
            "part {} of \"content\" has the type {kind:?}; only parts of the type \"text\" are supported",
            i + 1
        ))),
        _ => Err(Error::new(format!("part {} of \"content\" is not {{\"type\": \"text\", \"text\": \"…\"}}", i + 1))),
    };
    Ok(parts.iter().enumerate().map(text).collect::<Result<Vec<_>>>()?.join("\n"))
}
