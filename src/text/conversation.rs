//! Conversations as transformers passes them to chat templates: messages, tools and variables.

use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value as Json};

/// One message: a JSON object with a `role`, and with the fields of its file in their order.
///
/// Templates know `content` (a text, null or a list of parts), `tool_calls`, `tool_call_id`,
/// `name`, `reasoning_content` and others of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Message(Map<String, Json>);

impl Message {
    /// A message with a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let fields = [("role", role.into()), ("content", content.into())];
        Self(fields.map(|(name, text)| (name.to_owned(), Json::String(text))).into_iter().collect())
    }

    /// A message with these fields. Fails if no field `role` holds a string.
    pub fn from_fields(fields: Map<String, Json>) -> Result<Self> {
        match fields.get("role") {
            Some(Json::String(_)) => Ok(Self(fields)),
            Some(_) => Err(Error::new("the field \"role\" of a message is not a string")),
            None => Err(Error::new("the field \"role\" of a message is missing")),
        }
    }

    /// `system`, `user`, `assistant`, `tool`, or another role that the template knows.
    pub fn role(&self) -> &str {
        self.0["role"].as_str().expect("a message has a role")
    }

    /// The field `content`, if it is a text.
    pub fn text(&self) -> Option<&str> {
        self.0.get("content").and_then(Json::as_str)
    }

    /// All fields, in their order.
    pub fn fields(&self) -> &Map<String, Json> {
        &self.0
    }
}

/// Everything that a chat template sees besides special tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// The tools that the model may call: a list of JSON schemas of functions.
    pub tools: Option<Json>,
    /// Documents to answer from, for templates that know them.
    pub documents: Option<Json>,
    /// Variables of the template, such as `enable_thinking`. They replace special tokens of the
    /// same name.
    pub variables: Map<String, Json>,
}

impl Conversation {
    /// Names that [`Conversation::variables`] may not have: a conversation has fields for them.
    pub const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

    /// Bytes of all texts and names.
    pub fn n_bytes(&self) -> usize {
        let fields =
            |map: &Map<String, Json>| map.iter().map(|(name, value)| name.len() + n_bytes(value)).sum::<usize>();
        let messages: usize = self.messages.iter().map(|message| fields(&message.0)).sum();
        messages
            + fields(&self.variables)
            + [&self.tools, &self.documents].into_iter().flatten().map(n_bytes).sum::<usize>()
    }

    /// Puts the tools into the system message, as a JSON text of their functions in its field `tools`. Adds
    /// an empty system message in front if there is none.
    pub(super) fn move_tools_to_system(&mut self) {
        let Some(Json::Array(tools)) = &self.tools else { return };
        let text = Json::Array(tools.iter().map(function_of).cloned().collect()).to_string();
        if self.messages.first().is_none_or(|first| first.role() != "system") {
            self.messages.insert(0, Message::new("system", ""));
        }
        self.messages[0].0.insert("tools".into(), Json::String(text));
    }

    /// Rejects a rendered text without the tools of the conversation: a template that does not know
    /// tools leaves them out.
    pub fn check_tools_shown(&self, text: &str) -> Result<()> {
        let tools = self.tools.as_ref().and_then(Json::as_array).into_iter().flatten();
        if let Some(name) = tools.filter_map(function_name).find(|name| !text.contains(name)) {
            crate::bail!("the model's chat template does not show \"tools\": the function {name:?} is not in its text");
        }
        Ok(())
    }

    /// Rejects a rendered text without the tool calls of a message, for the same reason.
    pub fn check_calls_shown(&self, text: &str) -> Result<()> {
        for (i, message) in self.messages.iter().enumerate() {
            let calls = message.fields().get("tool_calls").and_then(Json::as_array).into_iter().flatten();
            if let Some(name) = calls.filter_map(function_name).find(|name| !text.contains(name)) {
                crate::bail!(
                    "message {}: the model's chat template does not show \"tool_calls\": {name:?} is not in its text",
                    i + 1
                );
            }
        }
        Ok(())
    }
}

/// The function of a tool or of a call, which may be given without a wrapper.
fn function_of(tool: &Json) -> &Json {
    if tool["function"].is_object() { &tool["function"] } else { tool }
}

/// The name of a tool or of the function of a call.
fn function_name(tool: &Json) -> Option<&str> {
    function_of(tool)["name"].as_str()
}

fn n_bytes(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len(),
        Json::Array(list) => list.iter().map(n_bytes).sum(),
        Json::Object(map) => map.iter().map(|(name, value)| name.len() + n_bytes(value)).sum(),
        _ => 0,
    }
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_fields_in_order_and_needs_a_role() {
        let text = r#"{"name":"bot","role":"assistant","content":null,"tool_calls":[]}"#;
        let message = Message::from_fields(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        assert_eq!((message.role(), message.text()), ("assistant", None));
        assert_eq!(Message::new("user", "a").text(), Some("a"));
        for text in [r#"{"content": "a"}"#, r#"{"role": 1}"#] {
            assert!(
                Message::from_fields(serde_json::from_str(text).unwrap()).unwrap_err().to_string().contains("role")
            );
        }
    }
}
