//! The forms in which model families write tool calls: their marks, and how to read what is between
//! them.

use serde_json::{Map, Value as Json, json};

use super::cursor::Cursor;
use super::python_calls;
use super::schema_walk::each_schema;
use crate::plain_json::Plain;

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// A JSON object as text.
    pub arguments: String,
}

impl From<(String, Json)> for Call {
    fn from((name, arguments): (String, Json)) -> Self {
        Self { name, arguments: arguments.to_string() }
    }
}

/// A form of tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen 2.5 and 3, SmolLM3, Granite 4.
    Hermes,
    /// `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`: Qwen3-Coder.
    Parameters,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}]`, or later `[TOOL_CALLS]NAME[ARGS]{…}`: Mistral.
    Mistral,
    /// `{"name": …, "parameters": …}` as the whole answer, or after `<|python_tag|>`: Llama 3.
    Llama,
    /// `<|tool_call|>[{"name": …, "arguments": …}]`: Granite 3, Phi 4.
    List,
    /// `<start_function_call>call:NAME{KEY:VALUE}<end_function_call>`: FunctionGemma.
    Gemma,
    /// `<function_calls>NAME(KEY=VALUE, …)</function_calls>`, as in Python: OLMo 3.
    Python,
}

impl Form {
    /// The form of the models with this chat template. `None` if it shows none that is known.
    pub fn of(template: &str) -> Option<Self> {
        let has = |mark: &str| template.contains(mark);
        let forms = [
            (has("<start_function_call>"), Self::Gemma),
            (has("[TOOL_CALLS]"), Self::Mistral),
            (has("<function_calls>"), Self::Python),
            (has("<function=") && has("<parameter="), Self::Parameters),
            (has("<tool_call>") && !has("<arg_key>"), Self::Hermes),
            (has("<|tool_call|>") || has("<|tool|>"), Self::List),
            (has("<|python_tag|>") || has("{\"name\": function name, \"parameters\""), Self::Llama),
        ];
        forms.into_iter().find_map(|(is_it, form)| is_it.then_some(form))
    }

    /// Whether an answer that is nothing but JSON, alone or in a block of Markdown, may be a call: Llama 3
    /// has no mark before it, and models of the form of Hermes forget theirs (Qwen2.5-Coder does).
    pub fn may_be_bare(self) -> bool {
        matches!(self, Self::Llama | Self::Hermes)
    }

    /// The schema of an answer that is nothing but a call of one of these tools. `None` if calls of
    /// this form need marks.
    pub fn schema(self, tools: &[Json]) -> Option<Json> {
        let arguments = if self == Self::Llama { "parameters" } else { "arguments" };
        let call = |(i, tool): (usize, &Json)| {
            let function = &tool["function"];
            let mut parameters = function["parameters"].as_object().cloned().unwrap_or_default();
            parameters.entry("type").or_insert_with(|| "object".into());
            let mut parameters = Json::Object(parameters);
            // References begin at the root, which is another one here, also for a part with an id of its own.
            each_schema(&mut parameters, &mut |part| {
                part.remove("$id");
                if let Some(Json::String(reference)) = part.get_mut("$ref")
                    && let Some(path) = reference.strip_prefix('#')
                    && (path.is_empty() || path.starts_with('/'))
                {
                    *reference = format!("#/anyOf/{i}/properties/{arguments}{path}");
                }
            });
            json!({
                "type": "object",
                "properties": {"name": {"const": function["name"]}, arguments: parameters},
                "required": ["name", arguments],
                "additionalProperties": false,
            })
        };
        self.may_be_bare().then(|| json!({"anyOf": tools.iter().enumerate().map(call).collect::<Vec<_>>()}))
    }

    /// The mark that begins a call.
    pub fn open(self) -> &'static str {
        match self {
            Self::Hermes | Self::Parameters => "<tool_call>",
            Self::Mistral => "[TOOL_CALLS]",
            Self::Llama => "<|python_tag|>",
            Self::List => "<|tool_call|>",
            Self::Gemma => "<start_function_call>",
            Self::Python => "<function_calls>",
        }
    }

    /// The mark that ends a call. Without one the next call or the answer's end does.
    pub fn close(self) -> Option<&'static str> {
        match self {
            Self::Hermes | Self::Parameters => Some("</tool_call>"),
            Self::List => Some("<|/tool_call|>"),
            Self::Gemma => Some("<end_function_call>"),
            Self::Python => Some("</function_calls>"),
            Self::Mistral | Self::Llama => None,
        }
    }

    /// Marks within a call.
    fn inner(self) -> &'static [&'static str] {
        match self {
            Self::Mistral => &["[ARGS]", "[CALL_ID]"],
            Self::Gemma => &["<escape>"],
            _ => &[],
        }
    }

    /// All marks. Where they are special tokens, their names must be part of an answer's text.
    pub fn marks(self) -> impl Iterator<Item = &'static str> {
        [self.open()].into_iter().chain(self.close()).chain(self.inner().iter().copied())
    }

    /// The calls in the text between two marks. `None` if it has another form, or names a function
    /// that is not one of the tools.
    pub fn read(self, body: &str, tools: &Tools) -> Option<Vec<Call>> {
        let calls = match self {
            Self::Hermes | Self::List => objects(body, tools)?,
            Self::Llama => objects(body, tools)?,
            Self::Mistral => objects(body, tools).or_else(|| Some(vec![mistral(body)?]))?,
            Self::Parameters => vec![parameters(body, tools)?],
            Self::Gemma => vec![gemma(body)?],
            Self::Python => python_calls::calls(body)?.into_iter().map(Call::from).collect(),
        };
        (!calls.is_empty() && calls.iter().all(|call| tools.has(&call.name))).then_some(calls)
    }
}

/// The tools of a request.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    /// The names of the functions with the schemas of their parameters.
    functions: Vec<(String, Json)>,
}

impl Tools {
    /// The functions of a checked list of tools.
    pub fn new(tools: &[Json]) -> Self {
        let function = |tool: &Json| {
            let function = &tool["function"];
            Some((function["name"].as_str()?.to_owned(), function["parameters"].clone()))
        };
        Self { functions: tools.iter().filter_map(function).collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.functions.iter().any(|(known, _)| known == name)
    }

    /// Whether a parameter is a text, as far as the schema says.
    fn is_text(&self, function: &str, parameter: &str) -> bool {
        let schema = self.functions.iter().find(|(name, _)| name == function).map(|(_, schema)| schema);
        let kind = schema.map_or(&Json::Null, |schema| &schema["properties"][parameter]["type"]);
        match kind {
            Json::String(kind) => kind == "string",
            Json::Array(kinds) => kinds.iter().any(|kind| kind == "string"),
            _ => true,
        }
    }
}

/// JSON objects that are calls: one, a list of them, or several with semicolons between them.
fn objects(body: &str, tools: &Tools) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Plain>();
        let Plain(value) = values.next()?.ok()?;
        let end = values.byte_offset();
        match &value {
            Json::Array(list) => calls.extend(list.iter().map(object).collect::<Option<Vec<_>>>()?),
            one => calls.push(object(one)?),
        }
        rest = rest[end..].trim_start().trim_start_matches(';').trim_start();
    }
    calls.iter().all(|call| tools.has(&call.name)).then_some(calls)
}

/// A call as a JSON object.
fn object(value: &Json) -> Option<Call> {
    let value = if value["function"].is_object() { &value["function"] } else { value };
    let name = value["name"].as_str()?.to_owned();
    let arguments = match value.get("arguments").or_else(|| value.get("parameters")) {
        None | Some(Json::Null) => "{}".to_owned(),
        Some(Json::String(text)) => is_object(text).then(|| text.clone())?,
        Some(given) => given.is_object().then(|| given.to_string())?,
    };
    Some(Call { name, arguments })
}

/// `NAME[ARGS]{…}` or `NAME[CALL_ID]ID[ARGS]{…}`.
fn mistral(body: &str) -> Option<Call> {
    let (head, arguments) = body.split_once("[ARGS]").or_else(|| body.find('{').map(|at| body.split_at(at)))?;
    let name = head.split("[CALL_ID]").next()?.trim().to_owned();
    is_object(arguments).then(|| Call { name, arguments: arguments.trim().to_owned() })
}

/// Whether a text is a JSON object.
fn is_object(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(Plain(Json::Object(_))))
}

/// `<function=NAME><parameter=KEY>VALUE</parameter>…</function>`.
fn parameters(body: &str, tools: &Tools) -> Option<Call> {
    let inner = body.trim().strip_prefix("<function=")?.strip_suffix("</function>")?;
    let (name, mut rest) = inner.split_once('>')?;
    let mut arguments = Map::new();
    while let Some(next) = rest.trim_start().strip_prefix("<parameter=") {
        let (key, after) = next.split_once('>')?;
        let (value, after) = after.split_once("</parameter>")?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        let text = || Json::from(value);
        let value = match tools.is_text(name, key) {
            true => text(),
            false => serde_json::from_str(value.trim()).map_or_else(|_| text(), |Plain(value)| value),
        };
        arguments.insert(key.to_owned(), value);
        rest = after;
    }
    rest.trim().is_empty().then(|| Call { name: name.to_owned(), arguments: Json::Object(arguments).to_string() })
}

/// `call:NAME{KEY:VALUE,…}`.
fn gemma(body: &str) -> Option<Call> {
    let rest = body.trim().strip_prefix("call:")?;
    let brace = rest.find('{')?;
    let mut at = Cursor::new(&rest[brace..]);
    let arguments = gemma_value(&mut at)?;
    at.rest.trim().is_empty().then(|| Call { name: rest[..brace].trim().to_owned(), arguments: arguments.to_string() })
}

/// What begins and ends a text of FunctionGemma.
const ESCAPE: &str = "<escape>";

/// A value of FunctionGemma: JSON with bare keys, and with texts between `<escape>` marks.
fn gemma_value(at: &mut Cursor<'_>) -> Option<Json> {
    at.skip_space();
    if at.take(ESCAPE) {
        let (text, after) = at.rest.split_once(ESCAPE)?;
        at.rest = after;
        return Some(text.into());
    }
    if at.rest.starts_with(['{', '[']) {
        return at.nested(gemma_nested);
    }
    let end = at.rest.find([',', '}', ']']).unwrap_or(at.rest.len());
    let (word, after) = at.rest.split_at(end);
    at.rest = after;
    serde_json::from_str(word.trim()).ok().map(|Plain(value)| value)
}

fn gemma_nested(at: &mut Cursor<'_>) -> Option<Json> {
    if at.take("[") {
        let mut list = Vec::new();
        at.items("]", |at| {
            list.push(gemma_value(at)?);
            Some(())
        })?;
        return Some(list.into());
    }
    at.take("{");
    let mut map = Map::new();
    at.items("}", |at| {
        let (key, after) = at.rest.split_once(':')?;
        at.rest = after;
        map.insert(key.trim().trim_matches('"').replace(ESCAPE, ""), gemma_value(at)?);
        Some(())
    })?;
    Some(map.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Tools {
        let properties = json!({"city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}});
        Tools::new(&[
            json!({"type": "function", "function": {"name": "weather", "parameters": {"properties": properties}}}),
        ])
    }

    fn arguments(form: Form, body: &str) -> Option<Vec<Json>> {
        let calls = form.read(body, &tools())?;
        assert!(calls.iter().all(|call| call.name == "weather"));
        Some(calls.iter().map(|call| serde_json::from_str(&call.arguments).unwrap()).collect())
    }

    #[test]
    fn every_form_reads_its_calls() {
        let paris = json!({"city": "Paris", "days": 3});
        let object = r#"{"name": "weather", "arguments": {"city": "Paris", "days": 3}}"#;
        let llama = object.replace("arguments", "parameters");
        for (form, body) in [
            (Form::Hermes, format!("\n{object}\n")),
            (Form::List, format!("[{object}]")),
            (Form::Llama, llama.clone()),
            (Form::Mistral, format!(" [{object}]")),
            (Form::Mistral, r#"weather[ARGS]{"city": "Paris", "days": 3}"#.into()),
            (Form::Mistral, r#"weather[CALL_ID]abcdefghi[ARGS]{"city": "Paris", "days": 3}"#.into()),
            (Form::Mistral, r#"weather{"city": "Paris", "days": 3}"#.into()),
            (
                Form::Parameters,
                "\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n"
                    .into(),
            ),
            (Form::Gemma, "call:weather{city:<escape>Paris<escape>,days:3}".into()),
            (Form::Python, "\nweather(city=\"Paris\", days=3)\n".into()),
        ] {
            assert_eq!(arguments(form, &body), Some(vec![paris.clone()]), "{form:?}: {body}");
        }
        let two = format!("{llama}; {llama}");
        assert_eq!(arguments(Form::Llama, &two).unwrap().len(), 2);
        assert_eq!(arguments(Form::Hermes, r#"{"name": "weather"}"#), Some(vec![json!({})]));
        let nested = "call:weather{tags:[<escape>a, b<escape>,{x:true,y:[]}],days:null}";
        assert_eq!(
            arguments(Form::Gemma, nested),
            Some(vec![json!({"tags": ["a, b", {"x": true, "y": []}], "days": null})])
        );
    }

    #[test]
    fn what_is_no_call_is_none() {
        for (form, body) in [
            (Form::Hermes, ""),
            (Form::Hermes, "weather"),
            (Form::Hermes, r#"{"name": "weather", "arguments": 3}"#),
            (Form::Hermes, r#"{"name": "weather", "arguments": {}} and more"#),
            (Form::Hermes, r#"{"name": "other", "arguments": {}}"#),
            (Form::Llama, r#"{"parameters": {}}"#),
            (Form::Mistral, "weather[ARGS]{"),
            (Form::Parameters, "<function=weather><parameter=city>Paris</function>"),
            (Form::Gemma, "call:weather{city:Paris"),
            (Form::Gemma, "weather{}"),
            (Form::Python, "weather(Paris)"),
        ] {
            assert_eq!(form.read(body, &tools()), None, "{form:?}: {body}");
        }
        let deep = format!("call:weather{{tags:{}", "[".repeat(100_000));
        assert_eq!(Form::Gemma.read(&deep, &tools()), None);
    }

    #[test]
    fn a_parameter_keeps_the_type_of_its_schema() {
        let body = "<function=weather><parameter=city>\n42\n</parameter><parameter=tags>\n[1]\n</parameter></function>";
        assert_eq!(arguments(Form::Parameters, body), Some(vec![json!({"city": "42", "tags": [1]})]));
    }

    #[test]
    fn the_form_follows_from_the_template() {
        for (template, form) in [
            ("… <tool_call>\n{\"name\": <function-name>} …", Some(Form::Hermes)),
            ("<tool_call>\n<function=f>\n<parameter=p>", Some(Form::Parameters)),
            ("[AVAILABLE_TOOLS] [TOOL_CALLS]", Some(Form::Mistral)),
            ("<|start_of_role|> <|tool_call|>", Some(Form::List)),
            ("'<|tool|>' + tools + '<|/tool|>'", Some(Form::List)),
            ("{\"name\": function name, \"parameters\": dictionary}", Some(Form::Llama)),
            ("<start_function_call>call:", Some(Form::Gemma)),
            ("<functions> <function_calls>", Some(Form::Python)),
            ("<tool_call>f <arg_key>a</arg_key>", None),
            ("<|im_start|>", None),
        ] {
            assert_eq!(Form::of(template), form, "{template}");
        }
    }
}
