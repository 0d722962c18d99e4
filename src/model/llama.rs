//! The model on a device: the forward of every family, by the switches of its configuration.
//!
//! Training, prefill and decode share one forward. They differ only in the tape and the cache.
use std::rc::Rc;

use super::block::{Attend, Block, StreamContext, TrainingContext};
use super::config::ModelConfig;
use super::rotation::Rotations;
use crate::attention::{Attention, Cache, CacheStep, Heads};
use crate::autograd::{Param, Tape, Var};
use crate::error::{Error, Result};
use crate::gpu::{Executor, Span};
use crate::kernels::embedding::{TokenIndex, embedding};
use crate::kernels::head::Head;
use crate::kernels::neftune::{Noise, add_noise};
use crate::nn::norm;

/// A model on a device.
#[derive(Debug)]
pub struct Llama {
    /// The configuration.
    pub config: ModelConfig,
    pub(crate) embed: Param,
    pub(crate) blocks: Vec<Rc<Block>>,
    pub(crate) final_norm: Param,
    /// The LM head; `None` if it shares the embedding weights.
    pub(crate) head: Option<Param>,
    pub(crate) rope: ModelRope,
}

/// The RoPE tables of a model for texts up to some length.
#[derive(Debug)]
pub(crate) struct ModelRope {
    rotations: Rc<Rotations>,
    n_positions: usize,
    /// What the frequencies of each RoPE setting depend on.
    frequency_lengths: Vec<usize>,
}

impl ModelRope {
    /// Tables for the positions 0..n_positions of a text of `length` tokens.
    pub(crate) fn upload(
        device: &mut dyn Executor,
        config: &ModelConfig,
        length: usize,
        n_positions: usize,
    ) -> Result<Self> {
        let rotations = Rc::new(Rotations::upload(device, &config.ropes, length, n_positions)?);
        Ok(Self { rotations, n_positions, frequency_lengths: config.frequency_lengths(length) })
    }
}

impl Llama {
    /// Head counts and head size.
    pub fn heads(&self) -> Heads {
        Heads { queries: self.config.n_heads, keys: self.config.n_kv_heads, dim: self.config.head_dim }
    }

    /// The LM head [vocabulary, hidden].
    pub fn head(&self) -> &Param {
        self.head.as_ref().unwrap_or(&self.embed)
    }

    /// The LM head with the model's factor and softcap of the logits.
    pub fn output(&self) -> Head<'_> {
        Head {
            weight: &self.head().value,
            scale: self.config.logit_scale as f32,
            softcap: self.config.logit_softcap.map(|cap| cap as f32),
        }
    }

    /// Whether the embedding is trained. Token uploads then need an index of token positions.
    pub fn trains_embedding(&self) -> bool {
        self.embed.grad.is_some()
    }

    /// Fails for a token that the model does not know.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.config.vocab) {
            Some(id) => {
                Err(Error::new(format!("token {id} is outside the model's vocabulary of {}", self.config.vocab)))
            }
            None => Ok(()),
        }
    }

    /// Makes the RoPE tables those of a text of `length` tokens. Call it before a forward that
    /// reaches new positions.
    pub fn reserve_positions(&mut self, device: &mut dyn Executor, length: usize) -> Result<()> {
        let is_same = self.rope.frequency_lengths == self.config.frequency_lengths(length);
        if !is_same || length > self.rope.n_positions {
            let n_positions = length.checked_next_power_of_two().unwrap_or(length).max(self.rope.n_positions);
            self.rope = ModelRope::upload(device, &self.config, length, n_positions)?;
        }
        Ok(())
    }

    /// The RoPE tables that [`Llama::reserve_positions`] made.
    pub(crate) fn rotations(&self) -> Rc<Rotations> {
        self.rope.rotations.clone()
    }

    /// An empty cache for up to `capacity` tokens, fed at most `max_chunk` at a time. `attention`
    /// applies to the full-attention layers.
    pub fn cache(&self, attention: Attention, capacity: usize, max_chunk: usize) -> Result<Cache> {
        Cache::new(&self.config.layer_attentions(attention), self.heads(), capacity, max_chunk)
    }

    /// Forward of a training batch; returns the final hidden states [tokens, hidden].
    pub fn forward(&self, tape: &mut Tape, ids: &TokenIndex, context: &TrainingContext) -> Result<Var> {
        let mut x = self.noisy_embed(tape, ids, context.noise.as_ref())?;
        for block in &self.blocks {
            let (block, context) = (block.clone(), context.clone());
            let run = move |tape: &mut Tape, inputs: &[Var]| {
                Ok(vec![block.forward(tape, &inputs[0], &Attend::Training(&context))?.0])
            };
            x = tape.checkpoint(&[x], run)?.remove(0);
        }
        norm(tape, &x, &self.final_norm, self.config.rms_eps as f32)
    }

    /// Forward of one chunk of a streamed sequence; returns the final hidden states [tokens,
    /// hidden] and, for each layer, a variable that stands for the pairs that later chunks see
    /// ([`crate::attention::attend_streamed`]).
    pub fn forward_streamed(
        &self,
        tape: &mut Tape,
        ids: &TokenIndex,
        context: &StreamContext,
    ) -> Result<(Var, Vec<Var>)> {
        let mut x = self.noisy_embed(tape, ids, context.noise.as_ref())?;
        let mut carried = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (block, context) = (block.clone(), context.clone());
            let run = move |tape: &mut Tape, inputs: &[Var]| {
                let (x, carried) = block.forward(tape, &inputs[0], &Attend::Streamed(&context))?;
                Ok([Some(x), carried].into_iter().flatten().collect())
            };
            let mut outputs = tape.checkpoint(&[x], run)?;
            carried.extend(outputs.drain(1..));
            x = outputs.remove(0);
        }
        Ok((norm(tape, &x, &self.final_norm, self.config.rms_eps as f32)?, carried))
    }

    /// Forward of the next chunk of a cached sequence, with the tables of
    /// [`Llama::reserve_positions`]; returns the final hidden states [tokens, hidden]. The caller
    /// runs the recording, then commits the step.
    pub fn forward_cached(&self, tape: &mut Tape, ids: &TokenIndex, cache: &Cache, step: &CacheStep) -> Result<Var> {
        self.forward_sequences(tape, ids, &[(cache, step)], &step.positions)
    }

    /// [`Llama::forward_cached`] for the next chunks of several sequences. `ids` and `positions`
    /// (U32 `[tokens]`) hold those of all chunks in the order of `sequences`. The products run once
    /// over all rows; each sequence attends within its own cache.
    pub fn forward_sequences(
        &self,
        tape: &mut Tape,
        ids: &TokenIndex,
        sequences: &[(&Cache, &CacheStep)],
        positions: &Span,
    ) -> Result<Var> {
        self.forward_rotated(tape, ids, sequences, (&self.rope.rotations, positions))
    }

    /// [`Llama::forward_sequences`] with other RoPE tables, and the row of each token in them.
    pub(crate) fn forward_rotated(
        &self,
        tape: &mut Tape,
        ids: &TokenIndex,
        sequences: &[(&Cache, &CacheStep)],
        rotation: (&Rotations, &Span),
    ) -> Result<Var> {
        let mut x = self.embed(tape, ids)?;
        for block in &self.blocks {
            x = block.forward(tape, &x, &Attend::Cached { sequences, rotation })?.0;
        }
        norm(tape, &x, &self.final_norm, self.config.rms_eps as f32)
    }

    /// The embeddings with noise. The model's factor is in the noise's magnitudes where it applies.
    fn noisy_embed(&self, tape: &mut Tape, ids: &TokenIndex, noise: Option<&Noise>) -> Result<Var> {
        let x = self.embed(tape, ids)?;
        let Some(noise) = noise else { return Ok(x) };
        tape.apply1(&[&x], |rec, t| Ok(add_noise(rec, &t[0], noise)))
    }

    fn embed(&self, tape: &mut Tape, ids: &TokenIndex) -> Result<Var> {
        let table = tape.param(&self.embed);
        let scale = self.config.embed_scale as f32;
        tape.apply1(&[&table], |rec, t| embedding(rec, &t[0], ids, scale))
    }
}
