//! The Llama family: Llama, Mistral, Qwen2, Qwen3, SmolLM2.
//!
//! Training, prefill and decode share one forward. They differ only in the tape and the cache.
use std::rc::Rc;

use super::block::{Attend, Block, TrainingContext};
use super::config::ModelConfig;
use super::rope;
use super::rope_config::RopeConfig;
use crate::attention::{Attention, Cache, CacheStep, Heads};
use crate::autograd::{Param, Tape, Var};
use crate::error::{Context, Result};
use crate::gpu::{Executor, check_host_memory};
use crate::kernels::embedding::{TokenIndex, embedding};
use crate::kernels::head::Head;
use crate::kernels::rope::RopeTables;
use crate::nn::norm;
use crate::tensor::{Format, Tensor};

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
    /// RoPE tables, one per entry of [`ModelConfig::ropes`].
    pub(crate) tables: Rc<Vec<RopeTables>>,
    pub(crate) n_positions: usize,
}

/// Uploads the RoPE tables for positions 0..n.
pub(crate) fn upload_tables(device: &mut dyn Executor, config: &ModelConfig, n: usize) -> Result<Vec<RopeTables>> {
    let table_bytes = (n as u64).saturating_mul(config.head_dim as u64 / 2 * 4);
    check_host_memory(table_bytes.saturating_mul(2 * config.ropes.len() as u64))
        .with_context(|| format!("rotation tables for {n} positions"))?;
    let limits = device.limits();
    let mut put = |label: &str, values: &[f32]| -> Result<Tensor> {
        let t = Tensor::persistent(label, Format::F32, n, config.head_dim / 2, &limits)?;
        t.write(device, values)?;
        Ok(t)
    };
    let mut tables = |rope: &RopeConfig| {
        let (cos, sin) = rope::tables(rope, n, 0..n);
        Ok(RopeTables { cos: put("rope cos", &cos)?, sin: put("rope sin", &sin)? })
    };
    config.ropes.iter().map(&mut tables).collect()
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

    /// Extends the RoPE tables to positions 0..n. Call it before a forward that reaches new
    /// positions.
    pub fn reserve_positions(&mut self, device: &mut dyn Executor, n: usize) -> Result<()> {
        if n > self.n_positions {
            let n = n.checked_next_power_of_two().unwrap_or(n);
            self.tables = Rc::new(upload_tables(device, &self.config, n)?);
            self.n_positions = n;
        }
        Ok(())
    }

    /// An empty cache for up to `capacity` tokens, fed at most `max_chunk` at a time. `attention`
    /// applies to the full-attention layers.
    pub fn cache(&self, attention: Attention, capacity: usize, max_chunk: usize) -> Result<Cache> {
        Cache::new(&self.config.layer_attentions(attention), self.heads(), capacity, max_chunk)
    }

    /// Forward of a training batch; returns the final hidden states [tokens, hidden].
    pub fn forward(&self, tape: &mut Tape, ids: &TokenIndex, context: &TrainingContext) -> Result<Var> {
        let mut x = self.embed(tape, ids)?;
        for block in &self.blocks {
            let (block, tables, context) = (block.clone(), self.tables.clone(), context.clone());
            let run = move |tape: &mut Tape, inputs: &[Var]| {
                Ok(vec![block.forward(tape, &inputs[0], &tables, &Attend::Training(&context))?])
            };
            x = tape.checkpoint(&[x], run)?.remove(0);
        }
        norm(tape, &x, &self.final_norm, self.config.rms_eps as f32)
    }

    /// Forward of the next chunk of a cached sequence; returns the final hidden states [tokens,
    /// hidden]. The caller runs the recording, then commits the step.
    pub fn forward_cached(&self, tape: &mut Tape, ids: &TokenIndex, cache: &Cache, step: &CacheStep) -> Result<Var> {
        let mut x = self.embed(tape, ids)?;
        for block in &self.blocks {
            x = block.forward(tape, &x, &self.tables, &Attend::Cached { cache, step })?;
        }
        norm(tape, &x, &self.final_norm, self.config.rms_eps as f32)
    }

    fn embed(&self, tape: &mut Tape, ids: &TokenIndex) -> Result<Var> {
        let table = tape.param(&self.embed);
        let scale = self.config.embed_scale as f32;
        tape.apply1(&[&table], |rec, t| embedding(rec, &t[0], ids, scale))
    }
}
