//! Reads calls that are written as in Python: `NAME(KEY=VALUE, …)`, one after another.

use serde_json::{Map, Value as Json, json};

use super::cursor::Cursor;

/// The calls of a text: each a name and an object of the arguments, whose values are literals of Python
/// or JSON. `None` if the text is anything else.
pub fn calls(text: &str) -> Option<Vec<(String, Json)>> {
    let mut at = Cursor::new(text);
    let mut calls = Vec::new();
    loop {
        at.skip_space();
        if at.rest.is_empty() {
            return Some(calls);
        }
        calls.push(call(&mut at)?);
        at.take(","); // a list of calls
    }
}

fn call(at: &mut Cursor<'_>) -> Option<(String, Json)> {
    let name = name(at)?;
    if !at.take("(") {
        return None;
    }
    let mut arguments = Map::new();
    at.items(")", |at| {
        let key = self::name(at)?;
        if !at.take("=") {
            return None;
        }
        arguments.insert(key, value(at)?);
        Some(())
    })?;
    Some((name, arguments.into()))
}

/// Takes the characters that may be in a name.
fn name(at: &mut Cursor<'_>) -> Option<String> {
    at.skip_space();
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    let end = at.rest.find(|c| !is_part(c)).unwrap_or(at.rest.len());
    let (name, after) = at.rest.split_at(end);
    at.rest = after;
    (!name.is_empty()).then(|| name.to_owned())
}

fn value(at: &mut Cursor<'_>) -> Option<Json> {
    at.skip_space();
    match at.rest.chars().next()? {
        '"' | '\'' => text(at).map(Json::from),
        '[' => at.nested(|at| list(at, "[", "]")),
        '(' => at.nested(|at| list(at, "(", ")")),
        '{' => at.nested(object),
        _ => word(at),
    }
}

fn list(at: &mut Cursor<'_>, open: &str, close: &str) -> Option<Json> {
    at.take(open);
    let mut list = Vec::new();
    at.items(close, |at| {
        list.push(value(at)?);
        Some(())
    })?;
    Some(list.into())
}

fn object(at: &mut Cursor<'_>) -> Option<Json> {
    at.take("{");
    let mut map = Map::new();
    at.items("}", |at| {
        at.skip_space();
        let key = text(at)?;
        if !at.take(":") {
            return None;
        }
        map.insert(key, value(at)?);
        Some(())
    })?;
    Some(map.into())
}

/// A number, or the name of a constant.
fn word(at: &mut Cursor<'_>) -> Option<Json> {
    let end = at.rest.find(|c: char| c.is_whitespace() || ",)]}".contains(c)).unwrap_or(at.rest.len());
    let (word, after) = at.rest.split_at(end);
    at.rest = after;
    match word {
        "True" | "true" => Some(json!(true)),
        "False" | "false" => Some(json!(false)),
        "None" | "null" => Some(Json::Null),
        number => serde_json::from_str::<serde_json::Number>(&number.replace('_', "")).ok().map(Json::Number),
    }
}

/// A text between single or double quotes.
fn text(at: &mut Cursor<'_>) -> Option<String> {
    let mut chars = at.rest.char_indices();
    let (_, quote) = chars.next().filter(|&(_, c)| c == '"' || c == '\'')?;
    let mut text = String::new();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => text.push_str(&escape(&mut chars)?),
            _ if c == quote => {
                at.rest = &at.rest[i + 1..];
                return Some(text);
            }
            _ => text.push(c),
        }
    }
    None
}

/// What follows a backslash in a text of Python. An unknown escape stays as it is written.
fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<String> {
    let (_, kind) = chars.next()?;
    let mut code = |n: usize| {
        let digits: String = chars.by_ref().take(n).map(|(_, c)| c).collect();
        char::from_u32(u32::from_str_radix(&digits, 16).ok()?).map(String::from)
    };
    match kind {
        'n' => Some("\n".into()),
        't' => Some("\t".into()),
        'r' => Some("\r".into()),
        '\\' | '\'' | '"' => Some(kind.into()),
        '\n' => Some(String::new()),
        'x' => code(2),
        'u' => code(4),
        'U' => code(8),
        _ => Some(format!("\\{kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_python_are_read() {
        let f = |arguments: Json| Some(vec![("f".to_owned(), arguments)]);
        for (text, expected) in [
            ("f()", json!({})),
            ("\n f( a = 1 , b=-2.5e3, )\n", json!({"a": 1, "b": -2500.0})),
            (r#"f(a="x, (y) \"z\"", b='it\'s \n\u00e9\d')"#, json!({"a": "x, (y) \"z\"", "b": "it's \né\\d"})),
            (
                "f(a=True, b=False, c=None, d=true, e=false, g=null)",
                json!({"a": true, "b": false, "c": null, "d": true, "e": false, "g": null}),
            ),
            (
                "f(a=[1, 'two', [3,],], b={'k': (1, 2), \"l\": {}})",
                json!({"a": [1, "two", [3]], "b": {"k": [1, 2], "l": {}}}),
            ),
        ] {
            assert_eq!(calls(text), f(expected), "{text}");
        }
        let names = |text: &str| -> Vec<String> { calls(text).unwrap().into_iter().map(|(name, _)| name).collect() };
        assert_eq!(names("f(a=1)\ng(b=2)\na.b-c()"), ["f", "g", "a.b-c"]);
        assert_eq!(names(""), [] as [String; 0]);
    }

    #[test]
    fn anything_else_is_no_call() {
        let deep = format!("f(a={})", "[".repeat(100_000));
        for text in [
            "f",
            "f(",
            "f(1)",
            "f(a)",
            "f(a=)",
            "f(a=1",
            "f(a='x)",
            "f(a=x)",
            "f(a=1 b=2)",
            "f() and",
            "f(a='\\",
            &deep,
        ] {
            assert_eq!(calls(text), None, "{}", &text[..text.len().min(40)]);
        }
    }
}
