//! The draw of a text's next token: its settings, what it remembers of the text, and its random
//! numbers.

use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::constraint::Constraint;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Executor, Kind, Recording, Span};
use crate::kernels::sample::{Changes, EXCLUDED, Sampling, sample};
use crate::tensor::Tensor;

/// How a constraint ends a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its form is complete.
    Complete,
    /// The constraint failed; the reason.
    Failed(String),
}

/// Draws the tokens of one text.
pub(super) struct Draw {
    sampling: Sampling,
    rng: StdRng,
    vocab: usize,
    /// Distinct ids so far, in order of first occurrence, for the repetition penalty.
    seen: Vec<u32>,
    is_seen: HashSet<u32>,
    seen_buffer: Span,
    /// How often the answer has each token, for the frequency and the presence penalty.
    counts: HashMap<u32, u32>,
    bias: HashMap<u32, f32>,
    constraint: Option<Box<dyn Constraint>>,
    /// How the constraint ended the text before the token that is being drawn.
    end: Option<End>,
    /// What is added to the logits, once something is.
    added: Option<Span>,
}

impl Draw {
    /// Draws from a vocabulary. Fails if the sampling is not valid.
    pub(super) fn new(sampling: Sampling, seed: u64, vocab: usize) -> Result<Self> {
        sampling.validate()?;
        Ok(Self {
            sampling,
            rng: StdRng::seed_from_u64(seed),
            vocab,
            seen: Vec::new(),
            is_seen: HashSet::new(),
            seen_buffer: Buffer::persistent("seen ids", Kind::U32, vocab).span(),
            counts: HashMap::new(),
            bias: HashMap::new(),
            constraint: None,
            end: None,
            added: None,
        })
    }

    /// Adds these numbers to the logits of these tokens. Fails for a token outside the vocabulary,
    /// or a number that is not finite.
    pub(super) fn set_bias(&mut self, bias: &[(u32, f32)]) -> Result<()> {
        for &(id, by) in bias {
            if id as usize >= self.vocab || !by.is_finite() {
                return Err(Error::usage(format!(
                    "a bias of {by} for token {id}: biases are finite numbers for the tokens 0 to {}",
                    self.vocab - 1
                )));
            }
        }
        self.bias = bias.iter().copied().collect();
        Ok(())
    }

    /// Limits the answer.
    pub(super) fn set_constraint(&mut self, constraint: Box<dyn Constraint>) {
        self.constraint = Some(constraint);
    }

    /// Takes over what another draw remembers of the text.
    pub(super) fn copy_from(&mut self, device: &mut dyn Executor, other: &Self) -> Result<()> {
        self.seen.clone_from(&other.seen);
        self.is_seen.clone_from(&other.is_seen);
        self.write_seen(device)
    }

    /// Whether a draw depends on the ids before it.
    pub(super) fn needs_ids(&self) -> bool {
        self.sampling.repetition_penalty != 1.0 || self.counts_tokens() || self.constraint.is_some()
    }

    /// Notes tokens of the text.
    pub(super) fn note(&mut self, device: &mut dyn Executor, ids: &[u32]) -> Result<()> {
        if self.sampling.repetition_penalty == 1.0 {
            return Ok(());
        }
        let before = self.seen.len();
        self.seen.extend(ids.iter().copied().filter(|&id| self.is_seen.insert(id)));
        if self.seen.len() > before { self.write_seen(device) } else { Ok(()) }
    }

    fn write_seen(&self, device: &mut dyn Executor) -> Result<()> {
        if self.seen.is_empty() { Ok(()) } else { device.write_words(&self.seen_buffer, &self.seen) }
    }

    /// Notes the token that was drawn. If the constraint has ended the text, the token is no part of it.
    pub(super) fn take(&mut self, id: u32) -> Option<End> {
        if let Some(end) = self.end.take() {
            return Some(end);
        }
        if self.counts_tokens() {
            *self.counts.entry(id).or_default() += 1;
        }
        self.constraint.as_mut()?.accept(id).err().map(|e| End::Failed(e.to_string()))
    }

    fn counts_tokens(&self) -> bool {
        self.sampling.frequency_penalty != 0.0 || self.sampling.presence_penalty != 0.0
    }

    /// Uploads what the next draw adds to the logits. Call it before each [`Draw::record`]. If the
    /// constraint ends the text, the draw is free and [`Draw::take`] says so: other texts of the same
    /// pass go on.
    pub(super) fn prepare(&mut self, device: &mut dyn Executor) -> Result<()> {
        if self.bias.is_empty() && self.counts.is_empty() && self.constraint.is_none() {
            return Ok(());
        }
        let mut added = vec![0.0; self.vocab];
        for (&id, &by) in &self.bias {
            added[id as usize] += by;
        }
        for (&id, &n) in &self.counts {
            added[id as usize] -= self.sampling.presence_penalty + n as f32 * self.sampling.frequency_penalty;
        }
        if let Some(constraint) = &mut self.constraint {
            self.end = match constraint.allowed() {
                Ok(allowed) => exclude(&mut added, &allowed),
                Err(e) => Some(End::Failed(e.to_string())),
            };
        }
        let span =
            self.added.get_or_insert_with(|| Buffer::persistent("added to logits", Kind::Real, self.vocab).span());
        device.write_real(span, &added)
    }

    /// Appends the draw of the next token from a row of logits to `drawn`.
    pub(super) fn record(&mut self, rec: &mut Recording, (logits, row): (&Tensor, usize), drawn: &Span) {
        let uniform = self.rng.random_range(0.0f32..1.0);
        let previous = (!self.seen.is_empty()).then_some((&self.seen_buffer, self.seen.len()));
        sample(rec, logits, row, Changes { previous, added: self.added.as_ref() }, &self.sampling, uniform, drawn);
    }
}

/// Excludes the tokens whose bit is not set. If that is all of them, the text is complete, and none is
/// excluded.
fn exclude(added: &mut [f32], allowed: &[u32]) -> Option<End> {
    let is_allowed = |id: usize| allowed.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
    if !(0..added.len()).any(is_allowed) {
        return Some(End::Complete);
    }
    for (id, by) in added.iter_mut().enumerate() {
        if !is_allowed(id) {
            *by = EXCLUDED;
        }
    }
    None
}
