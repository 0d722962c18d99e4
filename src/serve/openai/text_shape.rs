//! Text completions as OpenAI writes them, whole and in chunks, with the older form of probabilities.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::answer::{Piece, Step, Whole};
use super::shape::{Names, Shape};
use super::token_table::{TokenTable, finite};
use super::tools::Part;
use crate::serve::job::TokenLogprob;

/// A prompt that is part of the answer.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    pub text: String,
    pub ids: Vec<u32>,
    /// Where each token begins in the text, in characters. Only if probabilities are asked for.
    pub offsets: Vec<usize>,
}

/// Writes text completions.
pub struct TextShape {
    /// The texts of the tokens, if probabilities are asked for.
    table: Option<Arc<TokenTable>>,
    /// The prompts, if answers begin with them.
    echoes: Option<Vec<Echo>>,
    /// Answers to each prompt.
    n: usize,
    /// What each answer has so far.
    answers: Vec<Streamed>,
}

/// The state of an answer that is sent in chunks.
#[derive(Clone, Debug, Default)]
struct Streamed {
    /// Characters so far.
    at: usize,
    /// Tokens whose text is held back.
    tokens: Vec<TokenLogprob>,
}

impl TextShape {
    /// For `n` answers to each of so many prompts.
    pub fn new(table: Option<Arc<TokenTable>>, echoes: Option<Vec<Echo>>, n: usize, n_prompts: usize) -> Self {
        Self { table, echoes, n, answers: vec![Streamed::default(); n * n_prompts] }
    }

    fn echo(&self, prompt: usize) -> Option<&Echo> {
        self.echoes.as_ref()?.get(prompt)
    }

    fn choice(&self, index: usize, text: &str, logprobs: Option<Report>, finish: Option<&str>) -> Json {
        json!({"index": index, "text": text, "logprobs": logprobs.map(Report::object), "finish_reason": finish})
    }

    /// The report of a prompt's tokens. The first has no probability.
    fn prompt_report(&self, echo: &Echo, tokens: &[Option<TokenLogprob>]) -> Option<Report> {
        let table = self.table.as_ref()?;
        let mut report = Report::default();
        for (i, &id) in echo.ids.iter().enumerate() {
            let offset = echo.offsets.get(i).copied().unwrap_or_default();
            report.push(table, id, tokens.get(i).and_then(Option::as_ref), offset);
        }
        Some(report)
    }

    /// Adds generated tokens to a report. `at` is the number of characters before them.
    fn add(&self, report: Option<&mut Report>, tokens: &[TokenLogprob], at: &mut usize) {
        if let (Some(report), Some(table)) = (report, &self.table) {
            for token in tokens {
                report.push(table, token.id, Some(token), *at);
                *at += table.characters(token.id);
            }
        }
    }

    fn piece(&mut self, piece: Piece) -> Vec<Json> {
        let index = piece.choice;
        let text: String = piece
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Thought(_) | Part::Call(_) => None,
            })
            .collect();
        self.answers[index].tokens.extend(piece.token);
        if text.is_empty() && piece.finish.is_none() {
            return Vec::new();
        }
        let Streamed { mut at, tokens } = std::mem::take(&mut self.answers[index]);
        let mut report = (self.table.is_some() && !tokens.is_empty()).then(Report::default);
        self.add(report.as_mut(), &tokens, &mut at);
        self.answers[index].at = at;
        vec![self.choice(index, &text, report, piece.finish)]
    }

    /// The chunks with a prompt, one for each of its answers.
    fn echoed(&mut self, prompt: usize, tokens: &[Option<TokenLogprob>]) -> Vec<Json> {
        let Some(echo) = self.echo(prompt).cloned() else { return Vec::new() };
        let choices = prompt * self.n..(prompt + 1) * self.n;
        let chunk = |index: usize| {
            self.answers[index].at = echo.text.chars().count();
            self.choice(index, &echo.text, self.prompt_report(&echo, tokens), None)
        };
        choices.map(chunk).collect()
    }
}

impl Shape for TextShape {
    fn names(&self) -> Names {
        Names { id: "cmpl-", whole: "text_completion", chunk: "text_completion" }
    }

    fn whole(&self, choice: usize, answer: &Whole, prompt: &[Option<TokenLogprob>]) -> Json {
        let none = Echo::default();
        let echo = self.echo(choice / self.n).unwrap_or(&none);
        let mut report = self.prompt_report(echo, prompt);
        self.add(report.as_mut(), &answer.tokens, &mut echo.text.chars().count());
        let text = format!("{}{}", echo.text, answer.text);
        self.choice(choice, &text, report, answer.finish)
    }

    fn chunks(&mut self, step: Step) -> Vec<Json> {
        match step {
            // With probabilities the prompt is sent when they are there.
            Step::Started { prompt } if self.table.is_none() => self.echoed(prompt, &[]),
            Step::Prompt { prompt, tokens } if self.table.is_some() => self.echoed(prompt, &tokens),
            Step::Started { .. } | Step::Prompt { .. } => Vec::new(),
            Step::Piece(piece) => self.piece(piece),
        }
    }
}

/// The older form of probabilities: lists with an entry for each token.
#[derive(Debug, Default)]
struct Report {
    tokens: Vec<String>,
    token_logprobs: Vec<Json>,
    top_logprobs: Vec<Json>,
    text_offset: Vec<usize>,
}

impl Report {
    fn push(&mut self, table: &TokenTable, id: u32, token: Option<&TokenLogprob>, offset: usize) {
        self.tokens.push(table.text(id));
        self.token_logprobs.push(token.map_or(Json::Null, |token| finite(token.logprob)));
        self.top_logprobs.push(token.map_or(Json::Null, |token| table.top(token)));
        self.text_offset.push(offset);
    }

    fn object(self) -> Json {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        })
    }
}
