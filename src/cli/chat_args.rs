//! Flags for what a chat template sees beside the prompt: a system message, tools and variables.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value as Json};

use super::output::{in_file, read_text_file};
use crate::error::{Error, Result};
use crate::text::chat_template::{Conversation, Message};

/// Flags of a conversation.
#[derive(Args, Clone, Debug, Default)]
pub struct ChatArgs {
    /// System message in front of the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Variable of the chat template, such as enable_thinking=false; repeatable. A value that is
    /// not JSON is a string
    #[arg(long, value_name = "NAME=JSON", value_parser = variable)]
    template_var: Vec<(String, Json)>,
    /// JSON file with the list of tools that the model may call
    #[arg(long, value_name = "FILE.json")]
    tools: Option<PathBuf>,
}

impl ChatArgs {
    /// Whether any of the flags is given.
    pub fn is_set(&self) -> bool {
        self.system.is_some() || !self.template_var.is_empty() || self.tools.is_some()
    }

    /// A conversation in which the user says this.
    pub fn conversation(&self, said: &str) -> Result<Conversation> {
        let system = self.system.as_ref().map(|text| Message::new("system", text.clone()));
        let messages: Vec<Message> = system.into_iter().chain([Message::new("user", said)]).collect();
        let variables = self.template_var.iter().cloned().collect::<Map<_, _>>();
        Ok(Conversation { tools: self.tools()?, variables, ..Conversation::from(messages) })
    }

    fn tools(&self) -> Result<Option<Json>> {
        let Some(path) = &self.tools else { return Ok(None) };
        let tools: Json = serde_json::from_str(&read_text_file(path)?)
            .map_err(|e| in_file(path, format!("not valid JSON: {e}; expected a list of tools")))?;
        match tools.as_array() {
            Some(list) if list.iter().all(Json::is_object) => Ok(Some(tools)),
            _ => Err(in_file(
                path,
                r#"expected a list of tools such as [{"type": "function", "function": {"name": …, "parameters": …}}]"#,
            )),
        }
    }
}

/// Parses `NAME=JSON`.
fn variable(text: &str) -> std::result::Result<(String, Json), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=JSON, such as enable_thinking=false")?;
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_name) {
        return Err(format!("'{name}' is not a template variable's name: use letters, digits and underscores"));
    }
    if Conversation::RESERVED.contains(&name) {
        return Err(format!("'{name}' cannot be set: Longreach gives it to every template"));
    }
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Json::from(value))))
}

/// The error for flags of a conversation where no chat template is applied.
pub fn without_template(why: &str) -> Error {
    Error::usage(format!("--system, --template-var and --tools are for the chat template, but {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_json_or_text() {
        for (text, name, value) in [
            ("enable_thinking=false", "enable_thinking", json!(false)),
            ("n=3", "n", json!(3)),
            ("a=[1, {\"b\": null}]", "a", json!([1, {"b": null}])),
            ("date=26 Jul 2024", "date", json!("26 Jul 2024")),
            ("q=\"3\"", "q", json!("3")),
            ("e==", "e", json!("=")),
            ("empty=", "empty", json!("")),
        ] {
            assert_eq!(variable(text).unwrap(), (name.to_owned(), value), "{text}");
        }
        for wrong in ["enable_thinking", "=1", "a b=1", "1a=1", "messages=[]", "tools=[]"] {
            assert!(variable(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_flags_make_a_conversation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tools.json");
        let mut args = ChatArgs { tools: Some(path.clone()), ..ChatArgs::default() };
        for wrong in ["{}", "[1]", "[", "\u{feff}"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(args.conversation("hi").unwrap_err().to_string().contains("list of tools"), "{wrong}");
        }
        std::fs::write(&path, "\u{feff}[{\"type\": \"function\"}]\n").unwrap();
        args.system = Some("be brief".into());
        args.template_var = vec![("a".into(), json!(1)), ("a".into(), json!(2))];
        let got = args.conversation("hi").unwrap();
        assert_eq!(got.messages, [Message::new("system", "be brief"), Message::new("user", "hi")]);
        assert_eq!((got.tools, got.variables["a"].clone()), (Some(json!([{"type": "function"}])), json!(2)));
        assert!(args.is_set() && !ChatArgs::default().is_set());
    }
}
