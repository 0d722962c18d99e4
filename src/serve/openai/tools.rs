//! Finds tool calls in an answer that arrives piece by piece.

use super::tool_forms::{Call, Form, Tools};

/// What begins a block of JSON in Markdown.
const FENCE: &str = "```json";

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of the thoughts before the answer.
    Thought(String),
    Text(String),
    Call(Call),
}

/// Splits an answer into text and calls. It holds back what may be a call, and the space before it.
/// Space between and beside calls is dropped. What looks like a call and is none becomes text.
#[derive(Clone, Debug)]
pub struct Scanner {
    form: Form,
    tools: Tools,
    held: String,
    /// The mark of the call that `held` is the text of.
    inside: Option<&'static str>,
    /// The space before that mark.
    space: String,
    /// Whether all text so far was space.
    at_start: bool,
    /// Whether the last part was a call.
    after_call: bool,
    /// Whether the answer ends with its first call.
    takes_one: bool,
    /// Whether it has ended so.
    is_over: bool,
}

impl Scanner {
    /// For answers of this form. With `takes_one`, what follows the first call is left out.
    pub fn new(form: Form, tools: Tools, takes_one: bool) -> Self {
        Self {
            form,
            tools,
            held: String::new(),
            inside: None,
            space: String::new(),
            at_start: true,
            after_call: false,
            takes_one,
            is_over: false,
        }
    }

    /// Whether the answer has ended with its first call.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> Vec<Part> {
        self.held.push_str(piece);
        let mut parts = Vec::new();
        while self.step(&mut parts) {}
        parts
    }

    /// What was held back at the answer's end.
    pub fn finish(mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.inside {
            Some(mark) => self.end_call(mark, &held, "", &mut parts),
            None => self.say(&held, &mut parts),
        }
        parts
    }

    /// Moves on by one mark. Returns whether there may be more to do.
    fn step(&mut self, parts: &mut Vec<Part>) -> bool {
        let open = self.form.open();
        if let Some(mark) = self.inside {
            let close = self.form.close().filter(|_| !mark.is_empty());
            let Some(at) = self.held.find(close.unwrap_or(open)) else { return false };
            let body: String = self.held.drain(..at).collect();
            match close {
                Some(close) => {
                    self.held.drain(..close.len());
                    self.end_call(mark, &body, close, parts);
                }
                None => self.end_call(mark, &body, "", parts),
            }
            return true;
        }
        if self.form.may_be_bare() && self.at_start {
            let begun = self.held.trim_start();
            if begun.starts_with('{') || begun.starts_with(FENCE) {
                self.inside = Some("");
                return true;
            }
            if !begun.is_empty() && FENCE.starts_with(begun) {
                return false;
            }
        }
        if let Some(at) = self.held.find(open) {
            let text: String = self.held.drain(..at).collect();
            self.held.drain(..open.len());
            let said = text.trim_end();
            self.space = text[said.len()..].to_owned();
            self.say(said, parts);
            self.inside = Some(open);
            return true;
        }
        let may_begin = (1..open.len()).rev().find(|&n| self.held.ends_with(&open[..n])).unwrap_or(0);
        let free = self.held[..self.held.len() - may_begin].trim_end().len();
        let text: String = self.held.drain(..free).collect();
        self.say(&text, parts);
        false
    }

    /// Ends a call: its text is a list of calls, or text.
    fn end_call(&mut self, open: &str, body: &str, close: &str, parts: &mut Vec<Part>) {
        self.inside = None;
        let space = std::mem::take(&mut self.space);
        let bare = if open.is_empty() { without_fence(body) } else { body };
        match self.form.read(bare, &self.tools) {
            Some(_) if self.is_over => {}
            Some(calls) => {
                let most = if self.takes_one { 1 } else { calls.len() };
                parts.extend(calls.into_iter().take(most).map(Part::Call));
                (self.after_call, self.is_over) = (true, self.takes_one);
            }
            None => self.say(&format!("{space}{open}{body}{close}"), parts),
        }
        self.at_start = false;
    }

    fn say(&mut self, text: &str, parts: &mut Vec<Part>) {
        let text = if self.after_call { text.trim_start() } else { text };
        if text.is_empty() || self.is_over {
            return;
        }
        self.at_start &= text.trim().is_empty();
        self.after_call = false;
        match parts.last_mut() {
            Some(Part::Text(before)) => before.push_str(text),
            _ => parts.push(Part::Text(text.to_owned())),
        }
    }
}

/// The content of a block of JSON, or the text as it is.
fn without_fence(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix(FENCE).and_then(|rest| rest.strip_suffix("```")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scanner(form: Form) -> Scanner {
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        Scanner::new(form, Tools::new(&[tool("f"), tool("g")]), false)
    }

    #[test]
    fn an_answer_with_one_call_ends_with_it() {
        let call = |name: &str| format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {{}}}}</tool_call>");
        let answer = format!("Wait. {} and {} more", call("f"), call("g"));
        let both = r#"<|tool_call|>[{"name": "f"}, {"name": "g"}]<|/tool_call|>"#.to_string();
        for (form, answer, text) in [(Form::Hermes, answer, Some("Wait.")), (Form::List, both, None)] {
            let mut scanner = Scanner { takes_one: true, ..scanner(form) };
            let mut found: Vec<Part> = answer.chars().flat_map(|c| scanner.push(&c.to_string())).collect();
            found.extend(scanner.finish());
            let said: String = found
                .iter()
                .filter_map(|part| match part {
                    Part::Text(t) => Some(t.as_str()),
                    _ => None,
                })
                .collect();
            let calls = found.iter().filter(|part| matches!(part, Part::Call(_))).count();
            assert_eq!((said.as_str(), calls), (text.unwrap_or_default(), 1), "{found:?}");
        }
    }

    /// The parts of an answer, cut into pieces of so many characters, with adjacent texts joined.
    fn parts(form: Form, answer: &str, cut: usize) -> Vec<Part> {
        let letters: Vec<char> = answer.chars().collect();
        let mut scanner = scanner(form);
        let pieces = letters.chunks(cut).map(|piece| piece.iter().collect::<String>());
        let mut found: Vec<Part> = pieces.flat_map(|piece| scanner.push(&piece)).collect();
        found.extend(scanner.finish());
        let mut joined: Vec<Part> = Vec::new();
        for part in found {
            match (joined.last_mut(), part) {
                (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
                (_, part) => joined.push(part),
            }
        }
        joined
    }

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn call(name: &str) -> Part {
        Part::Call(Call { name: name.into(), arguments: "{}".into() })
    }

    #[test]
    fn calls_are_found_however_the_answer_is_cut() {
        let hermes = |name: &str| format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{}}}}\n</tool_call>");
        let (f, g) = (hermes("f"), hermes("g"));
        let broken = "<tool_call>{\"name\": f}</tool_call>";
        let cases = [
            (Form::Hermes, "no call, 1 < 2 <tool".to_owned(), vec![text("no call, 1 < 2 <tool")]),
            (Form::Hermes, format!("Let me see.\n\n{f}\n{g}\n"), vec![text("Let me see."), call("f"), call("g")]),
            (Form::Hermes, format!("{f} then\n"), vec![call("f"), text("then\n")]),
            (Form::Hermes, f.replace("</tool_call>", ""), vec![call("f")]),
            (Form::Hermes, format!("a {broken}\n{f}"), vec![text(&format!("a {broken}")), call("f")]),
            (Form::Hermes, "  ".into(), vec![text("  ")]),
            (Form::Hermes, "```json\n{\"name\": \"f\", \"arguments\": {}}\n```".into(), vec![call("f")]),
            (Form::Hermes, "{\"name\": \"g\"}".into(), vec![call("g")]),
            (Form::Hermes, "```json\n[1]\n```\n".into(), vec![text("```json\n[1]\n```\n")]),
            (Form::Hermes, "```js\nx\n``` `".into(), vec![text("```js\nx\n``` `")]),
            (Form::Mistral, "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{}".into(), vec![call("f"), call("g")]),
            (
                Form::Mistral,
                "Hi [TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]".into(),
                vec![text("Hi"), call("f")],
            ),
            (Form::Llama, "\n{\"name\": \"f\", \"parameters\": {}}".into(), vec![call("f")]),
            (Form::Llama, "<|python_tag|>{\"name\": \"f\"}".into(), vec![call("f")]),
            (Form::Llama, "{\"name\": \"Bob\"} is JSON".into(), vec![text("{\"name\": \"Bob\"} is JSON")]),
            (Form::Llama, "It is {\"name\": \"f\"}".into(), vec![text("It is {\"name\": \"f\"}")]),
            (Form::Llama, "<|python_tag|>print(1)".into(), vec![text("<|python_tag|>print(1)")]),
            (Form::List, "<|tool_call|>[{\"name\": \"f\"}, {\"name\": \"g\"}]".into(), vec![call("f"), call("g")]),
            (Form::Gemma, "<start_function_call>call:f{}<end_function_call>".into(), vec![call("f")]),
        ];
        for (form, answer, expected) in cases {
            for cut in [1, 2, 3, 7, 1000] {
                let got = parts(form, &answer, cut);
                assert_eq!(got, expected, "{form:?}, pieces of {cut}: {answer}");
            }
        }
    }

    #[test]
    fn only_what_may_be_a_call_is_held_back() {
        let mut scanner = scanner(Form::Hermes);
        assert_eq!(scanner.push("Hello <"), [text("Hello")]);
        assert_eq!(scanner.push("b> you"), [text(" <b> you")]);
        assert_eq!(scanner.push("\n<tool_call"), []);
        assert_eq!(scanner.push("ing>"), [text("\n<tool_calling>")]);
    }
}
