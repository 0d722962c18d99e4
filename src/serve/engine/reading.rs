//! A prompt that is being read, step by step, between the steps of the answers.

use std::collections::VecDeque;
use std::time::Instant;

use super::logprobs::token_logprob;
use super::places::Places;
use super::prefix::{Found, Kind, Path, Prefixes};
use crate::error::Result;
use crate::generate::Session;
use crate::gpu::Executor;
use crate::model::llama::Llama;
use crate::serve::job::{Job, TokenLogprob};

/// A prompt in progress.
pub struct Reading {
    /// The request.
    pub job: Job,
    /// Tokens that came from stored prefixes.
    pub cached_tokens: usize,
    session: Session,
    places: Places,
    n_read: usize,
    /// The kind of the prompt. `None` if nothing of it is stored.
    kind: Option<Kind>,
    /// The stored beginning.
    path: Path,
    /// Where the cache is to be stored, the next place first.
    to_store: VecDeque<usize>,
    started: Instant,
    logprobs: Vec<Option<TokenLogprob>>,
}

/// A prompt that has been read: a session for its first answer, and the time it took.
pub struct Read {
    pub job: Job,
    pub session: Session,
    pub seconds: f64,
    /// Those of the prompt's tokens, if they are asked.
    pub logprobs: Vec<Option<TokenLogprob>>,
}

/// A session for a prompt, with what was stored of its beginning.
pub struct Beginning {
    session: Session,
    places: Places,
    kind: Option<Kind>,
    found: Found,
}

impl Beginning {
    /// Opens a session and fills it with what is stored of the prompt's beginning.
    pub fn open(
        device: &mut dyn Executor,
        model: &mut Llama,
        job: &Job,
        step: usize,
        prefixes: &mut Prefixes,
    ) -> Result<Self> {
        let mut session = new_session(device, model, job, step, 0)?;
        session.expect(device, model, job.prompt.len())?;
        let places = Places::new(step, job.attention, model.config.longest_window());
        let kind = Kind::of(job, &model.config).filter(|_| prefixes.is_on());
        let found = match &kind {
            // The logits of stored tokens are gone.
            Some(kind) if !job.prompt_logprobs => prefixes.find(kind, &job.prompt),
            _ => Found::default(),
        };
        if !found.parts.is_empty() {
            let ids = &job.prompt[..found.n_tokens()];
            session.load_parts(device, ids, &found.parts.iter().collect::<Vec<_>>())?;
        }
        Ok(Self { session, places, kind, found })
    }
}

impl Reading {
    /// Begins to read a prompt.
    pub fn new(job: Job, beginning: Beginning) -> Self {
        let Beginning { session, places, kind, found } = beginning;
        let n_read = found.n_tokens();
        let to_store = match &kind {
            Some(_) => places.of_prompt(job.prompt.len(), found.n_shared),
            None => vec![],
        };
        Self {
            cached_tokens: n_read,
            session,
            places,
            n_read,
            kind,
            path: found.path,
            to_store: to_store.into_iter().filter(|&at| at > n_read).collect(),
            started: Instant::now(),
            logprobs: vec![None; usize::from(job.prompt_logprobs)],
            job,
        }
    }

    /// Tokens still to be read.
    pub fn n_left(&self) -> usize {
        self.job.prompt.len() - self.n_read
    }

    /// Reads the next step.
    pub fn step(&mut self, device: &mut dyn Executor, model: &Llama, prefixes: &mut Prefixes) -> Result<()> {
        let end = self.places.step_end(self.n_read).min(self.job.prompt.len());
        let ids = &self.job.prompt[self.n_read..end];
        if self.job.prompt_logprobs {
            let logits = self.session.feed_all_logits(device, model, ids)?;
            let next = &self.job.prompt[self.n_read + 1..];
            let n_top = self.job.logprobs.unwrap_or(0);
            let rows = logits.chunks_exact(model.config.vocab).zip(next);
            self.logprobs.extend(rows.map(|(row, &id)| Some(token_logprob(row, id, n_top))));
        } else {
            self.session.feed(device, model, ids)?;
        }
        self.n_read = end;
        let is_place = self.to_store.front() == Some(&end);
        match self.kind.as_ref().filter(|_| is_place) {
            None => Ok(()),
            Some(kind) => {
                self.to_store.pop_front();
                prefixes.store(device, kind, &mut self.path, &self.job.prompt[..end], &self.session.cache)
            }
        }
    }

    /// The read prompt.
    pub fn finish(self) -> Read {
        let Self { job, session, started, logprobs, .. } = self;
        Read { job, session, seconds: started.elapsed().as_secs_f64(), logprobs }
    }
}

/// An empty session for answer `i` of a job.
pub fn new_session(device: &mut dyn Executor, model: &mut Llama, job: &Job, step: usize, i: usize) -> Result<Session> {
    let capacity = job.capacity();
    let seed = job.seed.wrapping_add(i as u64);
    let mut session = Session::new(device, model, job.attention, capacity, step, job.draw.sampling, seed)?;
    session.set_bias(&job.draw.logit_bias)?;
    session.keeps_logits = job.logprobs.is_some();
    if let Some(constraint) = &job.constraint {
        session.set_constraint(constraint.copy());
    }
    Ok(session)
}

impl Job {
    /// Most tokens of the prompt with one answer.
    pub fn capacity(&self) -> usize {
        self.prompt.len().saturating_add(self.max_tokens)
    }
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
