//! The messages of a conversation, and the prompt that the model reads.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::Result;
use crate::text::chat_template::{ChatTemplate, Conversation, Message};
use crate::text::question_start::question_start;

/// A question with its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Text of the documents in front of the question.
    pub document: String,
    pub question: String,
    pub answer: String,
}

/// Everything that was said, and what the chat template sees beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turns {
    pub system: Option<String>,
    /// Questions with answers.
    pub turns: Vec<Turn>,
    /// Text of documents for the next question.
    pub document: String,
    /// A question that got no answer, because it failed or was stopped before.
    pub unanswered: Option<Turn>,
    /// Whether the last answer was cut or stopped, so that it can continue.
    pub is_cut: bool,
    pub tools: Option<Json>,
    pub variables: Map<String, Json>,
}

impl Turns {
    /// What the model reads: the first `n` turns, then `last` up to what its answer says so far.
    pub fn prompt(&self, template: Option<&ChatTemplate>, n: usize, last: &Turn) -> Result<String> {
        let turns = &self.turns[..n];
        let Some(template) = template else { return Ok(plain(turns, last)) };
        let mut messages: Vec<Message> = self.system.iter().map(|text| Message::new("system", text.clone())).collect();
        for turn in turns {
            messages.push(Message::new("user", turn.asked()));
            messages.push(Message::new("assistant", turn.answer.clone()));
        }
        messages.push(Message::new("user", last.asked()));
        let conversation = Conversation {
            messages,
            tools: self.tools.clone(),
            variables: self.variables.clone(),
            ..Conversation::default()
        };
        Ok(template.render(&conversation, true)? + &last.answer)
    }

    /// The prompt, and where its question begins, in bytes.
    pub fn prompt_and_question(
        &self,
        template: Option<&ChatTemplate>,
        n: usize,
        last: &Turn,
    ) -> Result<(String, usize)> {
        let prompt = self.prompt(template, n, last)?;
        let start = question_start(&prompt, |question| {
            self.prompt(template, n, &Turn { question: question.into(), answer: String::new(), ..last.clone() })
        })?;
        Ok((prompt, start))
    }

    /// Forgets what was said.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.document.clear();
        (self.unanswered, self.is_cut) = (None, false);
    }
}

impl Turn {
    /// The question as the user's message, with the documents in front.
    fn asked(&self) -> String {
        match self.document.is_empty() {
            true => self.question.clone(),
            false => format!("{}\n\n{}", self.document, self.question),
        }
    }
}

/// The text that a model without a chat template continues.
fn plain(turns: &[Turn], last: &Turn) -> String {
    let mut text = String::new();
    for turn in turns.iter().chain([last]) {
        for part in [&turn.document, &turn.question, &turn.answer] {
            // An answer follows its question as the model said it.
            let is_answer = std::ptr::eq(part, &turn.answer);
            let is_apart = text.is_empty() || text.ends_with(char::is_whitespace) || part.is_empty();
            if !is_apart && !is_answer {
                text.push(' ');
            }
            text += part;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(document: &str, question: &str, answer: &str) -> Turn {
        Turn { document: document.into(), question: question.into(), answer: answer.into() }
    }

    #[test]
    fn a_prompt_has_the_messages_up_to_the_answer() {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
        let template = ChatTemplate::new(source, "", "").unwrap();
        let said = Turns {
            system: Some("S".into()),
            turns: vec![turn("D", "q1", "a1"), turn("", "q2", "a2")],
            ..Turns::default()
        };
        let prompt = |n, last: &Turn| said.prompt(Some(&template), n, last).unwrap();
        let whole = "<system>S</><user>D\n\nq1</><assistant>a1</><user>q2</><assistant>a2</><user>q3</><a>";
        assert_eq!(prompt(2, &turn("", "q3", "")), whole);
        assert_eq!(prompt(2, &turn("", "q3", "so far")), format!("{whole}so far"));
        assert_eq!(prompt(0, &turn("", "q", "")), "<system>S</><user>q</><a>");
        assert_eq!(said.prompt(None, 2, &turn("", "q3", "")).unwrap(), "D q1a1 q2a2 q3");
        let start = |template, n, last: &Turn| {
            let (prompt, start) = said.prompt_and_question(template, n, last).unwrap();
            prompt[..start].to_string()
        };
        assert_eq!(start(Some(&template), 0, &turn("E", "q", "so far")), "<system>S</><user>E\n\n");
        assert_eq!(start(None, 2, &turn("E", "q", "")), "D q1a1 q2a2 E ");
    }

    #[test]
    fn a_plain_text_continues_what_the_model_said() {
        let said = Turns { turns: vec![turn("", "Once", " upon a time.\n")], ..Turns::default() };
        assert_eq!(said.prompt(None, 1, &turn("", "Tom", ", who")).unwrap(), "Once upon a time.\nTom, who");
        assert_eq!(said.prompt(None, 0, &turn("", "Tom", "")).unwrap(), "Tom");
    }
}
