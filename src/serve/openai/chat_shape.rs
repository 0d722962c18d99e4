//! Chat completions as OpenAI writes them, whole and in chunks.

use std::sync::Arc;

use rand::RngExt;
use serde_json::{Value as Json, json};

use super::answer::{Piece, Step, Whole};
use super::shape::{Names, Shape, random_id};
use super::token_table::TokenTable;
use super::tool_forms::{Call, Form};
use super::tools::Part;
use crate::serve::job::TokenLogprob;

/// Writes chat completions.
pub struct ChatShape {
    /// The texts of the tokens, if probabilities are asked for.
    table: Option<Arc<TokenTable>>,
    /// The form of the model's tool calls.
    form: Option<Form>,
    /// Tokens that end an answer. They are not part of it.
    stop: Vec<u32>,
    /// What each answer has so far.
    answers: Vec<Streamed>,
}

/// The state of an answer that is sent in chunks.
#[derive(Clone, Debug, Default)]
struct Streamed {
    n_calls: usize,
    /// Tokens whose text is held back.
    tokens: Vec<TokenLogprob>,
}

impl ChatShape {
    /// For `n` answers.
    pub fn new(table: Option<Arc<TokenTable>>, form: Option<Form>, stop: &[u32], n: usize) -> Self {
        Self { table, form, stop: stop.to_vec(), answers: vec![Streamed::default(); n] }
    }

    /// The object `logprobs`; null if nobody asked.
    fn logprobs(&self, tokens: &[TokenLogprob]) -> Json {
        let Some(table) = &self.table else { return Json::Null };
        let said = tokens.iter().filter(|token| !self.stop.contains(&token.id));
        let content: Vec<Json> = said.map(|token| table.chat_entry(token)).collect();
        json!({"content": content, "refusal": null})
    }

    fn choice(&self, index: usize, delta: Json, logprobs: Json, finish: Option<&str>) -> Json {
        json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish})
    }

    fn piece(&mut self, piece: Piece) -> Vec<Json> {
        let index = piece.choice;
        let mut deltas = Vec::new();
        for part in piece.parts {
            deltas.push(match part {
                Part::Thought(text) => json!({"reasoning_content": text}),
                Part::Text(text) => json!({"content": text}),
                Part::Call(call) => {
                    let mut object = self.call(&call);
                    object["index"] = json!(self.answers[index].n_calls);
                    self.answers[index].n_calls += 1;
                    json!({"tool_calls": [object]})
                }
            });
        }
        self.answers[index].tokens.extend(piece.token);
        if piece.finish.is_some() {
            deltas.push(json!({}));
        }
        let n_deltas = deltas.len();
        let mut chunks = Vec::new();
        for (i, delta) in deltas.into_iter().enumerate() {
            let tokens = std::mem::take(&mut self.answers[index].tokens);
            let logprobs = if tokens.is_empty() { Json::Null } else { self.logprobs(&tokens) };
            let finish = piece.finish.filter(|_| i + 1 == n_deltas);
            chunks.push(self.choice(index, delta, logprobs, finish));
        }
        chunks
    }

    /// A call with an id. Mistral's templates take ids of nine letters and digits only.
    fn call(&self, call: &Call) -> Json {
        let id = match self.form {
            Some(Form::Mistral) => {
                let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
                let mut rng = rand::rng();
                (0..9).map(|_| char::from(letters[rng.random_range(0..letters.len())])).collect()
            }
            _ => random_id("call_"),
        };
        json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
    }
}

impl Shape for ChatShape {
    fn names(&self) -> Names {
        Names { id: "chatcmpl-", whole: "chat.completion", chunk: "chat.completion.chunk" }
    }

    fn whole(&self, choice: usize, answer: &Whole, _: &[Option<TokenLogprob>]) -> Json {
        let content = if answer.text.is_empty() && !answer.calls.is_empty() { None } else { Some(&answer.text) };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !answer.thoughts.is_empty() {
            message["reasoning_content"] = json!(answer.thoughts);
        }
        if !answer.calls.is_empty() {
            message["tool_calls"] = answer.calls.iter().map(|call| self.call(call)).collect();
        }
        let logprobs = self.logprobs(&answer.tokens);
        json!({"index": choice, "message": message, "logprobs": logprobs, "finish_reason": answer.finish})
    }

    fn chunks(&mut self, step: Step) -> Vec<Json> {
        match step {
            Step::Started { prompt: 0 } => {
                let first = |index| {
                    self.choice(index, json!({"role": "assistant", "content": "", "refusal": null}), Json::Null, None)
                };
                (0..self.answers.len()).map(first).collect()
            }
            Step::Started { .. } | Step::Prompt { .. } => Vec::new(),
            Step::Piece(piece) => self.piece(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_calls_suit_the_family() {
        let call = Call { name: "f".into(), arguments: "{}".into() };
        let id = |form| {
            let shape = ChatShape::new(None, Some(form), &[], 1);
            shape.call(&call)["id"].as_str().unwrap().to_owned()
        };
        assert!(id(Form::Hermes).starts_with("call_") && id(Form::Hermes) != id(Form::Hermes));
        let mistral = id(Form::Mistral);
        assert!(mistral.len() == 9 && mistral.chars().all(|letter| letter.is_ascii_alphanumeric()), "{mistral}");
    }

    #[test]
    fn probabilities_wait_for_the_text_and_leave_out_stop_tokens() {
        let table = TokenTable::new(vec![b"<".to_vec(), b"b".to_vec(), b"</s>".to_vec()], |_| false);
        let mut shape = ChatShape::new(Some(Arc::new(table)), None, &[2], 1);
        let mut piece = |id: u32, parts: Vec<Part>, finish: Option<&'static str>| {
            let token = finish.is_none().then(|| TokenLogprob { id, logprob: -1.0, top: Vec::new() });
            shape.chunks(Step::Piece(Piece { choice: 0, parts, token, finish }))
        };
        assert_eq!(piece(0, Vec::new(), None), [] as [Json; 0]);
        let chunks = piece(1, vec![Part::Text("<b".into())], None);
        let tokens: Vec<&Json> =
            chunks[0]["logprobs"]["content"].as_array().unwrap().iter().map(|t| &t["token"]).collect();
        assert_eq!(tokens, ["<", "b"]);
        assert!(piece(2, Vec::new(), None).is_empty());
        let end = piece(0, Vec::new(), Some("stop"));
        assert_eq!((&end[0]["finish_reason"], &end[0]["logprobs"]["content"]), (&json!("stop"), &json!([])));
    }
}
