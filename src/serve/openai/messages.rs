//! The messages and tools of a chat request: checks them, and makes what the chat template sees.

use serde_json::{Map, Value as Json};

use super::fields::{Fields, excerpt};
use crate::serve::http::failure::ApiError;
use crate::text::chat_template::{Conversation, Message};

type Result<T> = std::result::Result<T, ApiError>;

/// Most messages of a conversation, and most tools.
const MAX_MESSAGES: usize = 16_384;
const MAX_TOOLS: usize = 1024;
/// Fields that clients send back with an answer, and that say nothing to a template.
const EMPTY_FIELDS: [&str; 3] = ["refusal", "annotations", "audio"];

/// The messages of a request.
pub fn messages(fields: &Fields<'_>) -> Result<Vec<Message>> {
    fields.required("messages")?;
    let list = fields.list("messages")?.map_or(&[][..], Vec::as_slice);
    if list.is_empty() || list.len() > MAX_MESSAGES {
        let message = format!("`messages` has {} messages; expected 1 to {MAX_MESSAGES}", list.len());
        return Err(fields.wrong("messages", message));
    }
    list.iter().enumerate().map(|(i, value)| message(&format!("messages[{i}]"), value)).collect()
}

fn message(path: &str, value: &Json) -> Result<Message> {
    let Some(map) = value.as_object() else {
        return Err(ApiError::field(path, format!("`{path}` is {}; expected an object", excerpt(value))));
    };
    let fields = Fields::at(map, path);
    fields.required("role")?;
    let role = match fields.text("role")?.unwrap_or_default() {
        // What OpenAI's newer models call the system.
        "developer" => "system",
        known @ ("system" | "user" | "assistant" | "tool") => known,
        other => {
            let known = "system, developer, user, assistant or tool";
            return Err(fields.wrong("role", format!("`{path}.role` is {other:?}; expected {known}")));
        }
    };
    match fields.get("content") {
        Some(Json::String(_)) => {}
        Some(Json::Array(parts)) => text_parts(&fields, parts)?,
        Some(other) => {
            let message = format!("`{path}.content` is {}; expected a text or a list of parts", excerpt(other));
            return Err(fields.wrong("content", message));
        }
        None if role == "assistant" => {}
        None => return Err(fields.wrong("content", format!("`{path}.content` is missing"))),
    }
    tool_calls(&fields)?;
    if fields.has("function_call") {
        return Err(fields.wrong("function_call", format!("`{path}.function_call` is not supported: use tool_calls")));
    }
    let is_said = |name: &str, value: &Json| {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        name == "content" || !(is_empty || EMPTY_FIELDS.contains(&name))
    };
    let mut said: Map<String, Json> = map
        .iter()
        .filter(|(name, value)| is_said(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    said.insert("role".into(), role.into());
    said.entry("content").or_insert(Json::Null);
    Message::from_fields(said).map_err(|e| ApiError::field(path, e.to_string()))
}

/// Refuses parts of a content that are not text.
fn text_parts(fields: &Fields<'_>, parts: &[Json]) -> Result<()> {
    for (i, part) in parts.iter().enumerate() {
        let path = format!("{}[{i}]", fields.path("content"));
        let kind = part["type"].as_str().unwrap_or_default();
        if kind == "text" && part["text"].is_string() {
            continue;
        }
        let why = match kind {
            "text" => "has no text".to_owned(),
            "" => "has no type; expected {\"type\": \"text\", \"text\": …}".to_owned(),
            kind => format!("has the type {}; the model reads only text", excerpt(&kind.into())),
        };
        return Err(ApiError::field(&path, format!("`{path}` {why}")));
    }
    match parts.is_empty() {
        true => Err(fields.wrong("content", format!("`{}` is an empty list", fields.path("content")))),
        false => Ok(()),
    }
}

/// Checks the calls of an earlier answer.
fn tool_calls(fields: &Fields<'_>) -> Result<()> {
    for (i, call) in fields.list("tool_calls")?.into_iter().flatten().enumerate() {
        let path = format!("{}[{i}].function", fields.path("tool_calls"));
        let Some(function) = call["function"].as_object() else {
            return Err(ApiError::field(&path, format!("`{path}` is missing")));
        };
        let function = Fields::at(function, &path);
        function.required("name")?;
        function.text("name")?;
        match function.get("arguments") {
            None | Some(Json::String(_) | Json::Object(_)) => {}
            Some(_) => {
                let message = format!("`{path}.arguments` is neither a JSON text nor an object");
                return Err(function.wrong("arguments", message));
            }
        }
    }
    Ok(())
}

/// The tools of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// Those that the model may call.
    pub tools: Vec<Json>,
    /// Those one of which it must call. Empty if the model decides.
    pub required: Vec<Json>,
    /// Whether an answer has at most one call.
    pub calls_one: bool,
}

/// The tools that the model may or must call: none if there are none, or if `tool_choice` is "none".
pub fn tools(fields: &Fields<'_>) -> Result<Option<Offered>> {
    let list = fields.list("tools")?.map_or(&[][..], Vec::as_slice);
    if list.len() > MAX_TOOLS {
        return Err(fields.wrong("tools", format!("`tools` has {} tools; at most {MAX_TOOLS} are allowed", list.len())));
    }
    for (i, tool) in list.iter().enumerate() {
        let path = format!("tools[{i}]");
        if tool["type"] != "function" {
            let message = format!("`{path}.type` is {}; only \"function\" is supported", excerpt(&tool["type"]));
            return Err(ApiError::field(format!("{path}.type"), message));
        }
        let path = format!("{path}.function");
        let Some(function) = tool["function"].as_object() else {
            return Err(ApiError::field(&path, format!("`{path}` is missing")));
        };
        let function = Fields::at(function, &path);
        function.required("name")?;
        if function.text("name")?.is_some_and(str::is_empty) {
            return Err(function.wrong("name", format!("`{path}.name` is empty")));
        }
        function.object("parameters")?;
    }
    let required = match fields.get("tool_choice") {
        None => None,
        Some(Json::String(choice)) if choice == "auto" => None,
        Some(Json::String(choice)) if choice == "none" => return Ok(None),
        Some(Json::String(choice)) if choice == "required" => Some(list),
        Some(choice) => {
            let name = choice["function"]["name"].as_str().filter(|_| choice["type"] == "function");
            let named = list.iter().position(|tool| name.is_some_and(|name| tool["function"]["name"] == name));
            Some(named.map_or(&[][..], |i| std::slice::from_ref(&list[i])))
        }
    };
    if required.is_some_and(<[Json]>::is_empty) {
        let message = "`tool_choice` is none of \"auto\", \"none\", \"required\" (with `tools`) and \
                       {\"type\": \"function\", \"function\": {\"name\": …}} with the name of one of `tools`";
        return Err(fields.wrong("tool_choice", message));
    }
    let calls_one = fields.flag("parallel_tool_calls")? == Some(false);
    let offered = || Offered { tools: list.to_vec(), required: required.unwrap_or_default().to_vec(), calls_one };
    Ok((!list.is_empty()).then(offered))
}

/// Variables of the chat template.
pub fn variables(fields: &Fields<'_>) -> Result<Map<String, Json>> {
    const NAME: &str = "chat_template_kwargs";
    let variables = fields.object(NAME)?.cloned().unwrap_or_default();
    if let Some(name) = Conversation::RESERVED.iter().find(|name| variables.contains_key(**name)) {
        let message = format!("`{NAME}` has {name}, which has its own meaning in a chat template");
        return Err(fields.wrong(NAME, message));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(list: Json) -> Result<Vec<Message>> {
        let request = json!({"messages": list});
        messages(&Fields::of(request.as_object().unwrap()))
    }

    #[test]
    fn messages_become_what_a_template_knows() {
        let said = read(json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ann"},
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
             "refusal": null, "annotations": [], "audio": null, "function_call": null},
            {"role": "tool", "content": "3", "tool_call_id": "1"},
            {"role": "assistant", "content": null, "tool_calls": []},
        ]))
        .unwrap();
        assert_eq!(said[0], Message::new("system", "Be brief."));
        assert_eq!(said[1].fields()["name"], "Ann");
        let names: Vec<&String> = said[2].fields().keys().collect();
        assert_eq!(names, ["role", "tool_calls", "content"]);
        assert_eq!(said[4].fields().len(), 2);
    }

    #[test]
    fn what_no_template_knows_is_refused_by_its_path() {
        for (list, param) in [
            (json!([]), "messages"),
            (json!("hi"), "messages"),
            (json!([3]), "messages[0]"),
            (json!([{"content": "a"}]), "messages[0].role"),
            (json!([{"role": "robot", "content": "a"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": 3}]), "messages[0].content"),
            (json!([{"role": "user", "content": []}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]),
                "messages[0].content[1]",
            ),
            (json!([{"role": "user", "content": ["a"]}]), "messages[0].content[0]"),
            (json!([{"role": "assistant", "tool_calls": [{}]}]), "messages[0].tool_calls[0].function"),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": 3}}]}]),
                "messages[0].tool_calls[0].function.name",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 3}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (json!([{"role": "assistant", "function_call": {"name": "f"}}]), "messages[0].function_call"),
        ] {
            let e = read(list.clone()).unwrap_err();
            assert_eq!(e.param.as_deref(), Some(param), "{list}: {}", e.message);
        }
    }

    #[test]
    fn tools_are_checked_and_chosen() {
        let read = |request: Json| tools(&Fields::of(request.as_object().unwrap()));
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
        let other = json!({"type": "function", "function": {"name": "g"}});
        let named = json!({"type": "function", "function": {"name": "g"}});
        for (choice, required) in [
            (json!("auto"), vec![]),
            (json!("required"), vec![tool.clone(), other.clone()]),
            (named, vec![other.clone()]),
        ] {
            let offered = Offered { tools: vec![tool.clone(), other.clone()], required, calls_one: false };
            assert_eq!(read(json!({"tools": [tool, other], "tool_choice": choice})).unwrap(), Some(offered));
        }
        let one = read(json!({"tools": [tool], "parallel_tool_calls": false})).unwrap();
        assert!(one.is_some_and(|offered| offered.calls_one && offered.required.is_empty()));
        for none in [json!({}), json!({"tools": []}), json!({"tools": [tool], "tool_choice": "none"})] {
            assert_eq!(read(none).unwrap(), None);
        }
        for (request, param) in [
            (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (json!({"tools": [{"type": "function", "function": {}}]}), "tools[0].function.name"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": 3}}]}),
                "tools[0].function.parameters",
            ),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tools": [tool], "tool_choice": "any"}), "tool_choice"),
            (json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "g"}}}), "tool_choice"),
            (json!({"tools": [tool], "tool_choice": {"type": "function"}}), "tool_choice"),
        ] {
            assert_eq!(read(request.clone()).unwrap_err().param.as_deref(), Some(param), "{request}");
        }
    }
}
