//! The state of a session on the host: the entries of its cache, and what its next token depends on.
//!
//! The random numbers of the sampler are no part of it: whoever continues gives a seed.

use super::session::Session;
use crate::attention::{Attention, CacheEntries};
use crate::error::Result;
use crate::gpu::Executor;
use crate::kernels::sample::Sampling;
use crate::model::llama::Llama;

/// The state of a session after some tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The entries of the cache.
    pub entries: CacheEntries,
    /// Length of the text that RoPE reckoned with.
    pub length: usize,
    /// Maximum number of tokens of the cache.
    pub capacity: usize,
    /// Maximum number of tokens fed at once.
    pub chunk: usize,
    /// The logits of the next token.
    pub logits: Vec<f32>,
}

impl Snapshot {
    /// The state of a session that was fed.
    pub(super) fn of(session: &Session, device: &mut dyn Executor) -> Result<Self> {
        Ok(Self {
            entries: session.cache.entries(device)?,
            length: session.length(),
            capacity: session.cache.capacity(),
            chunk: session.cache.max_chunk(),
            logits: session.logits().read(device)?,
        })
    }

    /// A session that continues after `ids`, the tokens that were fed. Fails if the entries are not
    /// those of this model, attention and number of tokens.
    pub(super) fn session(
        &self,
        device: &mut dyn Executor,
        model: &mut Llama,
        attention: Attention,
        ids: &[u32],
    ) -> Result<Session> {
        let capacity = self.capacity;
        let vocab = model.config.vocab;
        crate::ensure!(ids.iter().all(|&id| (id as usize) < vocab), "a token is outside the vocabulary of {vocab}");
        crate::ensure!(ids.len() <= capacity && self.chunk > 0, "{} tokens exceed a cache for {capacity}", ids.len());
        crate::ensure!(
            self.logits.len() == vocab && !ids.is_empty(),
            "{} logits after {} tokens for a vocabulary of {vocab}",
            self.logits.len(),
            ids.len()
        );
        let mut session = Session::new(device, model, attention, capacity, self.chunk, Sampling::default(), 0)?;
        session.cache.restore(device, ids.len(), &self.entries)?;
        session.resume_at(ids, self.length.max(ids.len()));
        session.logits().write(device, &self.logits)?;
        Ok(session)
    }

    /// Bytes of the entries.
    pub fn n_bytes(&self) -> usize {
        self.entries.iter().map(|(_, tensor)| tensor.bytes.len()).sum()
    }
}
