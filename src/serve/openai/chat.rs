//! Chat requests: reads the fields of `POST /v1/chat/completions`.

use serde_json::{Map, Value as Json, json};

use super::asked::Asked;
use super::chat_shape::ChatShape;
use super::fields::Fields;
use super::messages::{messages, tools, variables};
use super::settings::{MAX_TOP_LOGPROBS, Settings};
use super::splitter::Splitter;
use super::thoughts::{self, Thoughts};
use super::tool_forms::{Form, Tools};
use super::tools::Scanner;
use crate::generate::Constraint;
use crate::serve::http::failure::ApiError;
use crate::serve::http::state::State;
use crate::text::chat_template::Conversation;

type Result<T> = std::result::Result<T, ApiError>;

/// Reads a chat request.
pub fn read(state: &State, map: &Map<String, Json>) -> Result<Asked> {
    let fields = Fields::of(map);
    const TEXT_ONLY: &str = "the model reads and writes only text";
    const TOOLS: &str = "use `tools` and `tool_choice`";
    const TEMPLATE: &str = "use `chat_template_kwargs` if the model's chat template has such a variable";
    fields.refuse(&[
        ("modalities", json!(["text"]), TEXT_ONLY),
        ("audio", Json::Null, TEXT_ONLY),
        ("prediction", Json::Null, "answers are never predicted"),
        ("functions", Json::Null, TOOLS),
        ("function_call", Json::Null, TOOLS),
        ("web_search_options", Json::Null, "the server does not search"),
        ("reasoning_effort", Json::Null, TEMPLATE),
        ("verbosity", Json::Null, TEMPLATE),
        ("store", json!(false), "the server stores nothing"),
        ("suffix", Json::Null, "a chat has none"),
    ])?;
    let settings = Settings::read(&fields, state)?;
    let most = |name: &str| fields.most(name, 1);
    let max_tokens = most("max_completion_tokens")?.or(most("max_tokens")?);
    let logprobs = logprobs(&fields)?;
    let offered = tools(&fields)?;
    let format = constraint(&fields, state)?;
    if offered.is_some() && format.is_some() {
        let message = "`response_format` cannot be used together with `tools`: an answer in a given form calls no tool";
        return Err(fields.wrong("response_format", message));
    }
    let conversation = Conversation {
        messages: messages(&fields)?,
        tools: offered.as_ref().map(|offered| offered.tools.clone().into()),
        documents: None,
        variables: variables(&fields)?,
    };
    let prompt = prompt(state, &conversation)?;
    let form = offered.is_some().then(|| form(state)).transpose()?;
    let call = form.zip(offered.as_ref()).map(|(form, offered)| required_call(state, form, &offered.required));
    let constraint = format.or(call.transpose()?.flatten());
    // An answer in a given form is all answer.
    let thoughts = if constraint.is_none() { thoughts(state, &prompt) } else { None };
    let marks = form.iter().flat_map(|form| form.marks()).chain(thoughts.iter().flat_map(|_| thoughts::MARKS));
    let shown = shown(state, marks);
    let files = &state.catalogue.files;
    let table = logprobs.is_some().then(|| state.table()).transpose()?;
    Ok(Asked {
        prompts: vec![prompt],
        param: "messages",
        max_tokens,
        logprobs,
        prompt_logprobs: false,
        constraint,
        splitter: Splitter {
            thoughts,
            calls: form
                .zip(offered)
                .map(|(form, offered)| Scanner::new(form, Tools::new(&offered.tools), offered.calls_one)),
        },
        shown,
        shape: Box::new(ChatShape::new(table, form, files.stop.ids(), settings.n)),
        settings,
    })
}

/// The number of most likely tokens to report, if probabilities are asked for.
fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>> {
    let is_asked = fields.flag("logprobs")?.unwrap_or(false);
    match (is_asked, fields.size("top_logprobs", 0..=MAX_TOP_LOGPROBS)?) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(fields.wrong("top_logprobs", "`top_logprobs` needs `logprobs` true")),
    }
}

/// The ids of a conversation, up to the start of the answer.
fn prompt(state: &State, conversation: &Conversation) -> Result<Vec<u32>> {
    let files = &state.catalogue.files;
    if files.template.is_none() {
        let message = "the model has no chat template, so it can only continue plain text: use /v1/completions";
        return Err(ApiError::field("messages", message));
    }
    files.chat_ids(conversation).map_err(|e| {
        // The tools are to blame if the same messages can be shown without them.
        let without = Conversation { tools: None, ..conversation.clone() };
        let is_tools = conversation.tools.is_some() && files.chat_ids(&without).is_ok();
        ApiError::field(if is_tools { "tools" } else { "messages" }, e.to_string())
    })
}

/// How the model writes tool calls.
fn form(state: &State) -> Result<Form> {
    state.form.ok_or_else(|| {
        let message = "the chat template does not tell in a known form how the model calls `tools`";
        ApiError::field("tools", message)
    })
}

/// What makes the answer a call of one of these tools; nothing if there are none.
fn required_call(state: &State, form: Form, tools: &[Json]) -> Result<Option<Box<dyn Constraint>>> {
    const NAME: &str = "tool_choice";
    if tools.is_empty() {
        return Ok(None);
    }
    let schema = form.schema(tools).ok_or_else(|| {
        let message = "`tool_choice` must be \"auto\" or \"none\" with this model: its calls have marks of their own";
        ApiError::field(NAME, message)
    })?;
    let wrong = |e: crate::Error| {
        let message = format!("the parameters of `tools` cannot be followed, which `tool_choice` asks for: {e}");
        ApiError::field(NAME, message)
    };
    state.constraints()?.schema(schema).map(Some).map_err(wrong)
}

/// What finds the thoughts of the answer, if the model has any: the template shows their marks.
fn thoughts(state: &State, prompt: &[u32]) -> Option<Thoughts> {
    /// Tokens that are enough for the mark, letter by letter.
    const TAIL: usize = 32;
    let files = &state.catalogue.files;
    files.template.as_ref().filter(|template| template.shows_thoughts())?;
    let tail = &prompt[prompt.len().saturating_sub(TAIL)..];
    let tail = files.tokenizer().and_then(|tokenizer| tokenizer.decode(tail, false)).unwrap_or_default();
    Some(Thoughts::new(thoughts::is_open(&tail)))
}

/// The marks that are special tokens: their names are part of the text.
fn shown<'m>(state: &State, marks: impl Iterator<Item = &'m str>) -> Vec<u32> {
    let Ok(tokenizer) = state.catalogue.files.tokenizer() else { return Vec::new() };
    marks.filter_map(|mark| tokenizer.token_to_id(mark)).filter(|&id| tokenizer.is_special(id)).collect()
}

/// What `response_format` allows.
fn constraint(fields: &Fields<'_>, state: &State) -> Result<Option<Box<dyn Constraint>>> {
    const NAME: &str = "response_format";
    let Some(map) = fields.object(NAME)? else { return Ok(None) };
    let format = Fields::at(map, NAME);
    format.required("type")?;
    let made = match format.text("type")?.unwrap_or_default() {
        "text" => return Ok(None),
        // llama.cpp's server takes the schema beside the type, of either kind.
        "json_object" | "json_schema" if format.has("schema") => {
            let mut schema = format.object("schema")?.cloned().unwrap_or_default();
            if format.text("type")? == Some("json_object") && schema.is_empty() {
                schema.insert("type".into(), "object".into());
            }
            state.constraints()?.schema(Json::Object(schema))
        }
        "json_object" => state.constraints()?.any_object(),
        "json_schema" => {
            const SCHEMA: &str = "response_format.json_schema";
            format.required("json_schema")?;
            let given = format.object("json_schema")?.map(|map| Fields::at(map, SCHEMA));
            let schema = given.as_ref().map(|given| given.required("schema")).transpose()?;
            state.constraints()?.schema(schema.cloned().unwrap_or_default())
        }
        other => {
            let message = format!("`response_format.type` is {other:?}; expected text, json_object or json_schema");
            return Err(format.wrong("type", message));
        }
    };
    let wrong = |e: crate::Error| {
        let message = format!("the schema of `response_format` cannot be followed: {e}");
        let path = if format.has("schema") { "response_format.schema" } else { "response_format.json_schema.schema" };
        ApiError::field(path, message)
    };
    made.map(Some).map_err(wrong)
}
