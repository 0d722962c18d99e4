//! Reads calls that are written as in Python: `NAME(KEY=VALUE, …)`, one after another.

use serde_json::{Map, Value as Json, json};

/// Deepest nesting of values, as in JSON.
const MAX_DEPTH: usize = 128;

/// The calls of a text: each a name and an object of the arguments, whose values are literals of Python
/// or JSON. `None` if the text is anything else.
pub fn calls(text: &str) -> Option<Vec<(String, Json)>> {
    let mut reader = Reader { rest: text, depth: 0 };
    let mut calls = Vec::new();
    loop {
        reader.skip_space();
        if reader.rest.is_empty() {
            return Some(calls);
        }
        calls.push(reader.call()?);
        reader.take(","); // a list of calls
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a mark and the space before it, if it comes next.
    fn take(&mut self, mark: &str) -> bool {
        let after = self.rest.trim_start().strip_prefix(mark);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Takes the characters that may be in a name.
    fn name(&mut self) -> Option<&'a str> {
        self.skip_space();
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, after) = self.rest.split_at(end);
        self.rest = after;
        (!name.is_empty()).then_some(name)
    }

    fn call(&mut self) -> Option<(String, Json)> {
        let name = self.name()?.to_owned();
        if !self.take("(") {
            return None;
        }
        let mut arguments = Map::new();
        while !self.take(")") {
            let key = self.name()?.to_owned();
            if !self.take("=") {
                return None;
            }
            arguments.insert(key, self.value()?);
            self.separator(")")?;
        }
        Some((name, arguments.into()))
    }

    /// Takes a comma, or stays before the end.
    fn separator(&mut self, end: &str) -> Option<()> {
        (self.take(",") || self.rest.trim_start().starts_with(end)).then_some(())
    }

    fn value(&mut self) -> Option<Json> {
        self.skip_space();
        match self.rest.chars().next()? {
            '"' | '\'' => self.text().map(Json::from),
            '[' | '(' | '{' => {
                self.depth += 1;
                let nested = if self.depth > MAX_DEPTH { None } else { self.nested() };
                self.depth -= 1;
                nested
            }
            _ => self.word(),
        }
    }

    fn nested(&mut self) -> Option<Json> {
        if self.take("{") {
            let mut map = Map::new();
            while !self.take("}") {
                self.skip_space();
                let key = self.text()?;
                if !self.take(":") {
                    return None;
                }
                map.insert(key, self.value()?);
                self.separator("}")?;
            }
            return Some(map.into());
        }
        let end = if self.take("[") { "]" } else { ")" };
        if end == ")" {
            self.take("(");
        }
        let mut list = Vec::new();
        while !self.take(end) {
            list.push(self.value()?);
            self.separator(end)?;
        }
        Some(list.into())
    }

    /// A number, or the name of a constant.
    fn word(&mut self) -> Option<Json> {
        let end = self.rest.find(|c: char| c.is_whitespace() || ",)]}".contains(c)).unwrap_or(self.rest.len());
        let (word, after) = self.rest.split_at(end);
        self.rest = after;
        match word {
            "True" | "true" => Some(json!(true)),
            "False" | "false" => Some(json!(false)),
            "None" | "null" => Some(Json::Null),
            number => serde_json::from_str::<serde_json::Number>(&number.replace('_', "")).ok().map(Json::Number),
        }
    }

    /// A text between single or double quotes.
    fn text(&mut self) -> Option<String> {
        let mut chars = self.rest.char_indices();
        let (_, quote) = chars.next().filter(|&(_, c)| c == '"' || c == '\'')?;
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.push_str(&escape(&mut chars)?),
                _ if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                _ => text.push(c),
            }
        }
        None
    }
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
