//! A request that was read: its jobs, and how their answers are shown.

use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::settings::Settings;
use super::shape::Shape;
use super::splitter::Splitter;
use crate::generate::Constraint;
use crate::serve::http::failure::ApiError;
use crate::serve::http::state::State;
use crate::serve::job::{Event, Job};

/// What a request asks for.
pub struct Asked {
    pub settings: Settings,
    /// The ids of each prompt.
    pub prompts: Vec<Vec<u32>>,
    /// The field of the prompts.
    pub param: &'static str,
    /// Most tokens of an answer. Without it the context's end is the limit.
    pub max_tokens: Option<usize>,
    pub logprobs: Option<usize>,
    pub prompt_logprobs: bool,
    pub constraint: Option<Box<dyn Constraint>>,
    pub splitter: Splitter,
    /// Tokens whose names are part of the text.
    pub shown: Vec<u32>,
    pub shape: Box<dyn Shape>,
}

/// A job with the other end of its channel.
pub type Channelled = (Job, UnboundedReceiver<Event>);

impl Asked {
    /// The jobs, one for each prompt. Fails if a prompt is longer than the context.
    pub fn jobs(&self, state: &State) -> Result<Vec<Channelled>, ApiError> {
        let deadline = state.options.answer_time.and_then(|time| Instant::now().checked_add(time));
        self.prompts.iter().map(|prompt| self.job(prompt, deadline, state)).collect()
    }

    fn job(&self, prompt: &[u32], deadline: Option<Instant>, state: &State) -> Result<Channelled, ApiError> {
        let (events, receiver) = unbounded_channel();
        let Settings { model, attention, draw, seed, n, stop_texts, .. } = self.settings.clone();
        let job = Job {
            model,
            prompt: prompt.to_vec(),
            max_tokens: self.room(prompt.len(), state)?,
            n,
            attention,
            draw,
            seed,
            stop: state.catalogue.files.stop.ids().to_vec(),
            stop_texts,
            shown: self.shown.clone(),
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            constraint: self.constraint.as_ref().map(|constraint| constraint.copy()),
            deadline,
            events,
        };
        Ok((job, receiver))
    }

    /// Most tokens of an answer to a prompt of this length: as many as asked, and no more than the
    /// context leaves. Fails if that is none.
    fn room(&self, n_prompt: usize, state: &State) -> Result<usize, ApiError> {
        let context = state.catalogue.max_positions;
        let left = context.saturating_sub(n_prompt);
        let asked = self.max_tokens.unwrap_or(state.options.max_tokens);
        if n_prompt <= context && (left > 0 || asked == 0) {
            return Ok(asked.min(left));
        }
        let n_prompt_and = if left == 0 && n_prompt == context { " and no room is left for an answer" } else { "" };
        Err(ApiError::too_long(
            format!("the context of the model has {context} tokens, and the prompt has {n_prompt}{n_prompt_and}"),
            self.param,
        ))
    }
}
