//! The messages of a line, in the formats of OpenAI, TRL and ShareGPT.
//!
//! A message stays the object that it is in the file, because templates know more fields than this
//! program. Two kinds of fields are left out: `weight`, which is for the training, and fields that
//! are null, which exports write where other messages have values.

use super::raw::{any, is_list, is_string, kind, list, object, string};
use crate::error::{Context, Error, Result};
use crate::text::conversation::{Conversation, Message};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

/// Roles that are not the assistant's in any template, besides those of a template's own.
const OTHER_ROLES: [&str; 6] = ["system", "developer", "user", "tool", "function", "ipython"];

/// A conversation, and which of its answers are learnt.
#[derive(Clone, Debug)]
pub struct Chat {
    pub conversation: Conversation,
    /// One entry per message. Only those of the assistant count.
    pub is_learnt: Vec<bool>,
}

/// A list of messages with `role` and `content`.
pub fn messages(key: &str, value: &RawValue) -> Result<Chat> {
    let chat = chat(&elements(key, value, "{\"role\", \"content\"}")?, message)?;
    let roles = || chat.conversation.messages.iter().map(Message::role);
    if !roles().any(|role| role == "assistant")
        && let Some(role) = roles().find(|role| !OTHER_ROLES.contains(role))
    {
        crate::bail!(
            "no message has the role \"assistant\", whose messages are learnt, but one has the role {role:?}: rename it"
        );
    }
    Ok(chat)
}

/// A prompt and a completion, both lists of messages. Only the answers of the completion are
/// learnt.
pub fn continued(prompt: &RawValue, completion: &RawValue) -> Result<Chat> {
    Ok(prompted(prompt)?.followed_by(messages("completion", completion).context("\"completion\"")?))
}

/// A chosen and a rejected answer to one prompt. An answer is a list of messages, or the text of the
/// assistant's message. Only the answers are learnt.
///
/// Without a prompt, or beside one that is a text, the answers may be whole conversations: the prompt
/// then consists of the messages that both begin with. A text is the user's message otherwise.
pub fn pair(prompt: Option<&RawValue>, chosen: &RawValue, rejected: &RawValue) -> Result<[Chat; 2]> {
    let answer = |key: &str, value: &RawValue| match is_string(value) {
        true => Ok(Chat::of(Message::new("assistant", string(key, value)?))),
        false => messages(key, value).with_context(|| format!("\"{key}\"")),
    };
    let (mut chosen, mut rejected) = (answer("chosen", chosen)?, answer("rejected", rejected)?);
    let all = [&chosen, &rejected].map(|chat| &chat.conversation.messages);
    let n_shared = all[0].iter().zip(all[1]).take_while(|(a, b)| a == b).count();
    let asks = all[0][..n_shared].iter().any(|message| message.role() == "user");
    let prompt = match prompt {
        Some(prompt) if is_list(prompt) => {
            let prompt = prompted(prompt)?;
            // Answers that are whole conversations begin with the prompt.
            let n = prompt.conversation.messages.len();
            if n <= n_shared && chosen.conversation.messages[..n] == prompt.conversation.messages[..] {
                chosen.take(n);
                rejected.take(n);
            }
            prompt
        }
        Some(prompt) if !asks => Chat::of(Message::new("user", string("prompt", prompt)?)),
        None if n_shared == 0 => crate::bail!(
            "\"chosen\" and \"rejected\" begin with different messages, and there is no \"prompt\": give one"
        ),
        _ => {
            let shared = chosen.take(n_shared);
            rejected.take(n_shared);
            shared
        }
    };
    for (key, chat) in [("chosen", &chosen), ("rejected", &rejected)] {
        let is_empty = chat.conversation.messages.is_empty();
        crate::ensure!(!is_empty, "\"{key}\" has no message of its own after the messages that both answers share");
    }
    Ok([prompt.clone().followed_by(chosen), prompt.followed_by(rejected)])
}

/// The messages of a prompt, none of which is learnt.
fn prompted(prompt: &RawValue) -> Result<Chat> {
    let chat = chat(&elements("prompt", prompt, "{\"role\", \"content\"}")?, message).context("\"prompt\"")?;
    Ok(Chat { is_learnt: vec![false; chat.is_learnt.len()], ..chat })
}

/// A list of turns with `from` and `value`, or of messages.
pub fn sharegpt(value: &RawValue) -> Result<Chat> {
    let turns = elements("conversations", value, "{\"from\", \"value\"}")?;
    let has_roles = turns.first().is_some_and(|turn| object("", turn).is_ok_and(|turn| turn.contains_key("role")));
    if has_roles { messages("conversations", value) } else { chat(&turns, turn) }
}

/// The tools beside the messages: a list of schemas, or the JSON text of one. `None` if it is
/// empty.
pub fn tools(value: &RawValue) -> Result<Option<Json>> {
    let tools = match is_string(value) {
        true => match string("tools", value)?.trim() {
            "" => return Ok(None),
            text => serde_json::from_str(text)
                .map_err(|e| Error::new(format!("the text in \"tools\" is not JSON ({e})")))?,
        },
        false => any("\"tools\"", value)?,
    };
    match tools.as_array() {
        Some(tools) if tools.is_empty() => Ok(None),
        Some(list) if list.iter().all(Json::is_object) => Ok(Some(tools)),
        _ => Err(Error::new(format!("\"tools\" is {}; expected a list of objects, one per function", kind(value)))),
    }
}

fn elements<'a>(key: &str, value: &'a RawValue, shape: &str) -> Result<Vec<&'a RawValue>> {
    let Some(list) = list::<&RawValue>(value) else {
        crate::bail!("\"{key}\" is {}; expected a list of {shape}", kind(value));
    };
    crate::ensure!(!list.is_empty(), "\"{key}\" is empty");
    Ok(list)
}

fn chat(list: &[&RawValue], read: impl Fn(Map<String, Json>) -> Result<Message>) -> Result<Chat> {
    let (mut messages, mut is_learnt) = (Vec::new(), Vec::new());
    for (i, value) in list.iter().enumerate() {
        let parts = object("the message", value)
            .and_then(|mut fields| Ok((weight(fields.shift_remove("weight"))?, read(fields)?)))
            .with_context(|| format!("message {}", i + 1))?;
        is_learnt.push(parts.0);
        messages.push(parts.1);
    }
    Ok(Chat { conversation: messages.into(), is_learnt })
}

/// Whether a message of this weight is learnt.
fn weight(weight: Option<Json>) -> Result<bool> {
    match weight {
        None | Some(Json::Null) => Ok(true),
        Some(Json::Bool(is_learnt)) => Ok(is_learnt),
        Some(Json::Number(n)) if n.as_f64() == Some(0.0) => Ok(false),
        Some(Json::Number(n)) if n.as_f64() == Some(1.0) => Ok(true),
        Some(other) => Err(Error::new(format!("\"weight\" is {other}; only 0 and 1 are supported"))),
    }
}

fn message(mut fields: Map<String, Json>) -> Result<Message> {
    fields.retain(|key, value| key == "content" || !value.is_null());
    if let Some(key) = ["function_call", "audio"].iter().find(|key| fields.contains_key(**key)) {
        let instead = if *key == "audio" { "" } else { ": write \"tool_calls\"" };
        crate::bail!("the field \"{key}\" is not supported{instead}");
    }
    if fields.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(Vec::is_empty)) {
        fields.shift_remove("tool_calls");
    }
    let calls = fields.get("tool_calls");
    if let Some(calls) = calls {
        let is_call = |call: &Json| call["function"]["name"].is_string() || call["name"].is_string();
        crate::ensure!(
            calls.as_array().is_some_and(|calls| calls.iter().all(is_call)),
            "\"tool_calls\" is not a list of {{\"function\": {{\"name\": \"…\", \"arguments\": …}}}}"
        );
    }
    let is_shown = calls.is_some() || ["reasoning_content", "thinking"].iter().any(|key| fields.contains_key(*key));
    match fields.get("content") {
        Some(Json::String(_) | Json::Array(_)) => {}
        Some(Json::Null) if is_shown => {}
        Some(Json::Null) => crate::bail!("\"content\" is null, and there are no \"tool_calls\"; expected a string"),
        Some(other) => crate::bail!("\"content\" is {}; expected a string", other),
        None if is_shown => {
            fields.insert("content".to_owned(), Json::Null);
        }
        None => crate::bail!("the field \"content\" is missing"),
    }
    Message::from_fields(fields)
}

/// A turn of ShareGPT as a message.
fn turn(fields: Map<String, Json>) -> Result<Message> {
    let text = |key: &str| match fields.get(key) {
        Some(Json::String(text)) => Ok(text.as_str()),
        Some(Json::Null) => Err(Error::new(format!("\"{key}\" is null; expected a string"))),
        Some(other) => Err(Error::new(format!("\"{key}\" is {other}; expected a string"))),
        None => Err(Error::new(format!("the field \"{key}\" is missing"))),
    };
    let (from, value) = (text("from")?, text("value")?);
    let role = match from {
        "human" | "user" => "user",
        "gpt" | "assistant" | "chatgpt" | "model" | "bing" | "bard" => "assistant",
        "system" => "system",
        "tool" | "observation" | "function_response" => "tool",
        "function_call" => return calling(value),
        other => crate::bail!("\"from\" is {other:?}; expected human, gpt, system, tool, observation or function_call"),
    };
    Ok(Message::new(role, value))
}

/// A message of the assistant that calls functions: `value` is the JSON text of one call or of a
/// list of calls.
fn calling(value: &str) -> Result<Message> {
    let wrong =
        || Error::new("the value of a function_call is not {\"name\": \"…\", \"arguments\": …} or a list of these");
    let calls = match serde_json::from_str(value).map_err(|_| wrong())? {
        Json::Array(calls) => calls,
        call => vec![call],
    };
    crate::ensure!(!calls.is_empty() && calls.iter().all(|call| call["name"].is_string()), "{}", wrong());
    let calls: Vec<Json> = calls.into_iter().map(|call| json!({"type": "function", "function": call})).collect();
    let fields = json!({"role": "assistant", "content": null, "tool_calls": calls});
    message(fields.as_object().expect("an object was made").clone())
}

impl Chat {
    /// One message.
    fn of(message: Message) -> Self {
        Self { conversation: vec![message].into(), is_learnt: vec![true] }
    }

    /// Removes the first messages and returns them, none of which is learnt.
    fn take(&mut self, n: usize) -> Self {
        self.is_learnt.drain(..n);
        let messages: Vec<Message> = self.conversation.messages.drain(..n).collect();
        Self { conversation: messages.into(), is_learnt: vec![false; n] }
    }

    /// This conversation with more messages.
    fn followed_by(mut self, more: Self) -> Self {
        self.conversation.messages.extend(more.conversation.messages);
        self.is_learnt.extend(more.is_learnt);
        self
    }

    /// Puts a system prompt in front. Fails if there is already a different one.
    pub fn begin_with_system(&mut self, system: String) -> Result<()> {
        let Conversation { messages, .. } = &mut self.conversation;
        if let Some(first) = messages.first().filter(|first| first.role() == "system") {
            let is_same = first.text() == Some(&system) || system.is_empty();
            crate::ensure!(is_same, "the line has a \"system\" besides its own system message: delete one of them");
        } else if !system.is_empty() {
            messages.insert(0, Message::new("system", system));
            self.is_learnt.insert(0, false);
        }
        Ok(())
    }
}
