//! A prompt that is being read, step by step, between the steps of the answers.

use std::time::Instant;

use super::logprobs::token_logprob;
use super::prefix::{Kind, NOTHING, Prefixes, Steps, Stored};
use crate::error::{ErrorKind, Result};
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
    steps: Steps,
    n_read: usize,
    /// The stored beginning, and its tokens. `None` once it could not be stored.
    stored: Option<(Stored, usize)>,
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
    stored: Stored,
    n_read: usize,
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
        if job.prompt_logprobs {
            return Ok(Self { session, stored: NOTHING, n_read: 0 }); // the logits of stored tokens are gone
        }
        let (stored, parts) = prefixes.find(job.kind(), Steps::new(step, job.attention), &job.prompt);
        let n_read = parts.last().map_or(0, |part| part.tokens().end);
        if n_read > 0 {
            session.load_parts(device, &job.prompt[..n_read], &parts.iter().collect::<Vec<_>>())?;
        }
        Ok(Self { session, stored, n_read })
    }
}

impl Reading {
    /// Begins to read a prompt in steps of at most `step` tokens.
    pub fn new(job: Job, beginning: Beginning, step: usize) -> Self {
        let Beginning { session, stored, n_read } = beginning;
        Self {
            cached_tokens: n_read,
            session,
            steps: Steps::new(step, job.attention),
            n_read,
            stored: Some((stored, n_read)),
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
        let step_end = self.steps.end(self.n_read);
        let end = step_end.min(self.job.prompt.len());
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
        // A step that the prompt cuts short ends where no other prompt is looked up.
        if end == step_end { self.store(device, prefixes) } else { Ok(()) }
    }

    /// Stores what was read since the last stored beginning.
    fn store(&mut self, device: &mut dyn Executor, prefixes: &mut Prefixes) -> Result<()> {
        let is_place = prefixes.limit() > 0 && self.steps.can_store(self.n_read);
        let Some((stored, from)) = self.stored.filter(|_| is_place) else { return Ok(()) };
        let part = match self.session.save_part(device, from) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory => None, // the prompt goes on without
            saved => saved?,
        };
        let tokens = &self.job.prompt[from..self.n_read];
        let longer = part.and_then(|part| prefixes.store(self.job.kind(), stored, tokens, &part));
        self.stored = longer.map(|longer| (longer, self.n_read));
        Ok(())
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

    /// What prompts must have in common to share a beginning.
    pub fn kind(&self) -> Kind {
        Kind { model: self.model, attention: self.attention }
    }
}
