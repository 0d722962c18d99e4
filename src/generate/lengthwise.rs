//! The rotation of a generated text whose RoPE frequencies depend on its length.
//!
//! A chunk is rotated with the frequencies for the length of text that is known when the chunk is
//! fed. With dynamic RoPE, earlier keys keep the rotation they were stored with. LongRoPE switches
//! all frequencies at one length, and the text before it is fed again.

use crate::error::Result;
use crate::gpu::{Executor, Span, upload_words};
use crate::model::llama::Llama;
use crate::model::rotation::Rotations;
use std::ops::Range;

/// The RoPE tables of the chunk being fed, and what they depend on.
pub(super) struct Lengthwise {
    /// Tables with a row for each token of a chunk.
    rotations: Rotations,
    /// The rows, U32 `[tokens of a chunk]`.
    rows: Span,
    /// Length of the text, as far as it is known.
    length: usize,
    /// Lengths beyond which all frequencies switch.
    switches: Vec<usize>,
    /// The tokens fed so far, which a switch feeds again.
    ids: Vec<u32>,
}

impl Lengthwise {
    /// For a model whose frequencies depend on the length; `None` for others.
    pub(super) fn new(device: &mut dyn Executor, model: &Llama, max_chunk: usize) -> Result<Option<Self>> {
        let ropes = &model.config.ropes;
        if !ropes.iter().any(|rope| rope.depends_on_length()) {
            return Ok(None);
        }
        let rows: Vec<u32> = (0..max_chunk as u32).collect();
        Ok(Some(Self {
            rotations: Rotations::new(device, ropes, max_chunk)?,
            rows: upload_words(device, "rows of the rotation tables", &rows)?,
            length: 0,
            switches: ropes.iter().filter_map(|rope| rope.switch_length()).collect(),
            ids: Vec::new(),
        }))
    }

    /// Sets the length of the text, which never shrinks. Returns the tokens to feed again if a
    /// switch changes the rotation of those fed.
    pub(super) fn extend(&mut self, length: usize) -> Option<Vec<u32>> {
        let before = self.length;
        self.length = before.max(length);
        let is_switched = self.switches.iter().any(|s| (before + 1..=self.length).contains(&(s + 1)));
        (is_switched && !self.ids.is_empty()).then(|| self.ids.clone())
    }

    /// Whether no switch lies between these lengths and the length of this text.
    pub(super) fn is_alike(&self, lengths: [usize; 2]) -> bool {
        self.switches.iter().all(|&s| lengths.iter().all(|&length| (length > s) == (self.length > s)))
    }

    /// Whether a switch may come before the text has `capacity` tokens.
    pub(super) fn may_switch(&self, capacity: usize) -> bool {
        self.switches.iter().any(|&s| self.length <= s && s < capacity)
    }

    /// Notes tokens that are fed.
    pub(super) fn note(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
    }

    /// Length of the text, as far as it is known.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Continues after these tokens, which were fed when the text was known to have `length`.
    pub(super) fn restore(&mut self, length: usize, ids: &[u32]) {
        self.length = length;
        self.ids = ids.to_vec();
    }

    /// Takes over the text of another session of the same model.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.length = other.length;
        self.ids.clone_from(&other.ids);
    }

    /// The tables of a chunk at these positions, and the row of each token.
    pub(super) fn chunk(
        &self,
        device: &mut dyn Executor,
        model: &Llama,
        positions: Range<usize>,
    ) -> Result<(&Rotations, Span)> {
        let rows = self.rows.prefix(positions.len());
        self.rotations.fill(device, &model.config.ropes, self.length, positions)?;
        Ok((&self.rotations, rows))
    }
}
