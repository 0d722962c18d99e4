//! Answers of a conversation: to a new question, again, and further.

use std::ops::ControlFlow;
use std::time::Instant;

use super::engine::Ask;
use super::machine::Chat;
use super::reports::{Told, status};
use super::screen::Screen;
use super::settings::DEFAULT_MAX_TOKENS;
use super::turns::Turn;
use crate::error::{Error, Result};
use crate::generate::{Answer, Progress, StoppedBy};

impl Chat {
    /// Answers a question, with the documents in front of it.
    pub fn ask(&mut self, question: &str, screen: &mut dyn Screen) -> Result<()> {
        // The documents of a question that got no answer go to the next one.
        let before = self.turns.unanswered.take().map(|turn| turn.document).unwrap_or_default();
        let documents = [before, std::mem::take(&mut self.turns.document)];
        let document = documents.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
        self.turns.unanswered = Some(Turn { document, question: question.to_string(), answer: String::new() });
        self.answer_new(screen)
    }

    /// Answers the question that has no answer yet. It stays without one if nothing is said.
    fn answer_new(&mut self, screen: &mut dyn Screen) -> Result<()> {
        let Some(turn) = self.turns.unanswered.clone() else { return Ok(()) };
        let answer = self.answer(self.turns.turns.len(), &turn, screen).inspect_err(|_| {
            screen.note("the question is kept: /regenerate asks it again, /undo takes it back");
        })?;
        if is_nothing(&answer) {
            screen.note(
                "stopped before the answer, and what was read stays: /regenerate asks again, /undo takes the question back",
            );
            return Ok(());
        }
        self.turns.unanswered = None;
        self.turns.turns.push(Turn { answer: answer.text.clone(), ..turn });
        self.note_end(&answer, screen)
    }

    /// `/regenerate`. The old answer stays until the new one has a token.
    pub fn regenerate(&mut self, screen: &mut dyn Screen) -> Result<()> {
        if self.turns.unanswered.is_some() {
            return self.answer_new(screen);
        }
        let Some(last) = self.turns.turns.last() else { return Err(Error::usage("there is no question yet")) };
        let turn = Turn { answer: String::new(), ..last.clone() };
        let answer = self.answer(self.turns.turns.len() - 1, &turn, screen)?;
        if is_nothing(&answer) {
            screen.note("stopped before the new answer: the old one stays, and so does what was read");
            return Ok(());
        }
        if let Some(last) = self.turns.turns.last_mut() {
            last.answer.clone_from(&answer.text);
        }
        self.note_end(&answer, screen)
    }

    /// `/continue`
    pub fn go_on(&mut self, screen: &mut dyn Screen) -> Result<()> {
        let Some(last) = self.turns.turns.last().filter(|_| self.turns.is_cut) else {
            return Err(Error::usage("no answer was cut: ask a question, or /regenerate the last answer"));
        };
        let turn = last.clone();
        let answer = self.answer(self.turns.turns.len() - 1, &turn, screen)?;
        if is_nothing(&answer) {
            return Ok(());
        }
        if let Some(last) = self.turns.turns.last_mut() {
            last.answer += &answer.text;
        }
        self.note_end(&answer, screen)
    }

    /// Answers `last` after the first `n` turns, and shows the answer as it comes.
    fn answer(&mut self, n: usize, last: &Turn, screen: &mut dyn Screen) -> Result<Answer> {
        let files = self.engine.files()?;
        let (prompt, question_start) = self.turns.prompt_and_question(files.template.as_ref(), n, last)?;
        let ask = Ask {
            prompt: &prompt,
            question_start,
            attention: self.attention,
            sampling: files.generation.conversational(&self.settings.wished)?,
            max_tokens: self.settings.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
            seed: self.settings.next_seed(),
        };
        let begun = Instant::now();
        let (mut first, mut n_shown) = (None, 0);
        let mut watch = |progress: Progress<'_>| {
            match progress {
                Progress::Fed { done, total } => screen.read(done, total),
                Progress::Said { text, .. } => {
                    first.get_or_insert_with(Instant::now);
                    n_shown += text.len();
                    screen.say(text);
                }
            }
            if screen.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let answer = self.engine.answer(&ask, &mut watch);
        if let Ok(answer) = &answer {
            screen.say(&answer.text[n_shown..]); // what might have been the start of a stop text
        }
        screen.end_answer();
        let answer = answer?;
        self.settings.n_answers += 1;
        let first = first.unwrap_or_else(Instant::now);
        let cache = self.engine.cache_size();
        // A stopped reading has not read the whole prompt.
        let n_fed = cache.map_or(0, |cache| cache.n_tokens).min(answer.n_tokens - answer.n_said);
        screen.note(&status(&Told {
            n_said: answer.n_said,
            decode_seconds: first.elapsed().as_secs_f64(),
            n_read: n_fed.saturating_sub(answer.n_reused),
            n_reused: answer.n_reused,
            read_seconds: (first - begun).as_secs_f64(),
            cache,
        }));
        Ok(answer)
    }

    /// Says how to go on after an answer that did not end by itself.
    fn note_end(&mut self, answer: &Answer, screen: &mut dyn Screen) -> Result<()> {
        self.turns.is_cut = matches!(answer.stopped_by, StoppedBy::MaxTokens | StoppedBy::Caller);
        let limit = self.engine.max_positions()?;
        match answer.stopped_by {
            StoppedBy::StopToken | StoppedBy::StopText | StoppedBy::Constraint => {}
            StoppedBy::Caller => screen.note("stopped: /continue goes on"),
            StoppedBy::MaxTokens if answer.n_tokens >= limit => {
                screen
                    .note(&format!("the {limit} tokens that the model takes are used up: /undo or /clear makes room"));
            }
            StoppedBy::MaxTokens => {
                screen.note(&format!("cut after {} tokens, as `max_tokens` says: /continue goes on", answer.n_said));
            }
        }
        Ok(())
    }
}

/// Whether an answer was stopped before its first token.
fn is_nothing(answer: &Answer) -> bool {
    answer.stopped_by == StoppedBy::Caller && answer.n_said == 0
}
