//! One transformer block: grouped-query attention and a gated feed-forward layer.
//!
//! Both have a residual. An RMS norm precedes each of them, follows it, or both.
use std::cell::RefCell;
use std::rc::Rc;

use super::rotation::{Rotation, Rotations};
use crate::attention::{
    Cache, CacheStep, Heads, Pass, Stream, StreamChunk, TrainingLayouts, attend_sequences, attend_streamed,
    attend_training,
};
use crate::autograd::{Param, Tape, Var};
use crate::error::Result;
use crate::gpu::{Buffer, Kind, Span};
use crate::kernels::activation::{Activation, gated};
use crate::kernels::columns::concat;
use crate::kernels::elementwise::{add, scale};
use crate::kernels::neftune::Noise;
use crate::kernels::rope::{rope, rope_kv};
use crate::nn::{Adapters, Joint, Linear, norm};

/// Weights of a block.
#[derive(Clone, Debug)]
pub struct Block {
    pub(crate) index: usize,
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    /// Scale of the attention scores.
    pub(crate) scale: f32,
    /// Factor of what attention and the feed-forward layer add to the residual.
    pub(crate) residual_scale: f32,
    pub(crate) activation: Activation,
    /// Index of the RoPE table, or `None` without RoPE.
    pub(crate) rope: Option<usize>,
    /// Before attention.
    pub(crate) input_norm: Option<Param>,
    pub(crate) qkv: Joint<3>,
    pub(crate) o: Linear,
    /// RMS norms of queries and keys: of each head, or of all channels, as their weights are long.
    pub(crate) qk_norm: Option<(Param, Param)>,
    /// After attention, before the residual.
    pub(crate) after_attention_norm: Option<Param>,
    /// Before the feed-forward layer.
    pub(crate) mlp_norm: Option<Param>,
    pub(crate) gate_up: Joint<2>,
    pub(crate) down: Linear,
    /// After the feed-forward layer, before the residual.
    pub(crate) after_mlp_norm: Option<Param>,
}

/// Copies of the selections of a forward pass, one per layer, for inspection. `None` for layers
/// that select nothing.
pub type KeptLog = Rc<RefCell<Vec<Option<Span>>>>;

/// Inputs that all blocks of a training forward share.
#[derive(Clone, Debug)]
pub struct TrainingContext {
    /// The attention tables of each layer.
    pub layouts: Rc<TrainingLayouts>,
    /// Position of each token in its sequence, U32 `[tokens]`.
    pub positions: Span,
    /// The RoPE tables for the longest sequence of the batch.
    pub(crate) rotations: Rc<Rotations>,
    /// Whether the adapters apply, and with which dropout.
    pub adapters: Adapters,
    /// Noise of the embeddings.
    pub noise: Option<Noise>,
    /// Receives copies of the selections.
    pub kept: Option<KeptLog>,
}

/// Inputs that all blocks share in a training forward of one chunk of a streamed sequence.
#[derive(Clone, Debug)]
pub struct StreamContext {
    /// The sequence's pairs.
    pub stream: Rc<Stream>,
    /// The attention tables of the chunk.
    pub chunk: Rc<StreamChunk>,
    /// Whether this is the first forward pass over the chunk.
    pub pass: Pass,
    /// Position of each token in its sequence, U32 `[tokens]`.
    pub positions: Span,
    /// The RoPE tables for the whole sequence.
    pub(crate) rotations: Rc<Rotations>,
    /// Whether to apply the adapters, and their dropout.
    pub adapters: Adapters,
    /// Noise of the embeddings.
    pub noise: Option<Noise>,
}

/// The attention path of a block.
pub(super) enum Attend<'a> {
    Training(&'a TrainingContext),
    Streamed(&'a StreamContext),
    Cached {
        /// The sequences whose rows follow each other.
        sequences: &'a [(&'a Cache, &'a CacheStep)],
        /// RoPE tables, and the row of each token in them, U32 `[tokens]`.
        rotation: (&'a Rotations, &'a Span),
    },
}

impl Attend<'_> {
    /// RoPE tables, and the row of each token in them.
    fn rotation(&self) -> (&Rotations, &Span) {
        match self {
            Attend::Training(c) => (&c.rotations, &c.positions),
            Attend::Streamed(c) => (&c.rotations, &c.positions),
            Attend::Cached { rotation, .. } => *rotation,
        }
    }

    fn adapters(&self) -> Adapters {
        match self {
            Attend::Training(c) => c.adapters,
            Attend::Streamed(c) => c.adapters,
            Attend::Cached { .. } => Adapters::On(None),
        }
    }
}

impl Block {
    /// x [tokens, hidden] → [tokens, hidden]; overwrites x if the tape does not save it. In a
    /// streamed chunk a second output stands for the pairs that later chunks see
    /// ([`attend_streamed`]).
    pub(super) fn forward(&self, tape: &mut Tape, x: &Var, attend: &Attend<'_>) -> Result<(Var, Option<Var>)> {
        let adapters = attend.adapters();
        let (attended, carried) = self.attention(tape, x, attend)?;
        let x = self.add_to(tape, x, (&self.o, &attended), self.after_attention_norm.as_ref(), adapters)?;
        let [gate, up] = self.normed(tape, &x, self.mlp_norm.as_ref(), &self.gate_up, adapters)?;
        let inner = tape.apply1(&[&gate, &up], |rec, t| gated(rec, self.activation, &t[0], &t[1]))?;
        let x = self.add_to(tape, &x, (&self.down, &inner), self.after_mlp_norm.as_ref(), adapters)?;
        Ok((x, carried))
    }

    /// residual + s · linear(x), or residual + s · norm(linear(x)) if the block has an output norm.
    /// Without a norm, the product can accumulate into the residual in place.
    fn add_to(
        &self,
        tape: &mut Tape,
        residual: &Var,
        (linear, x): (&Linear, &Var),
        after: Option<&Param>,
        adapters: Adapters,
    ) -> Result<Var> {
        let Some(after) = after else {
            return linear.forward_accumulate(tape, x, residual, self.residual_scale, adapters);
        };
        let y = linear.forward(tape, x, adapters)?;
        let mut y = norm(tape, &y, after, self.eps)?;
        if self.residual_scale != 1.0 {
            y = tape.apply1(&[&y], |rec, t| scale(rec, &t[0], self.residual_scale))?;
        }
        tape.apply1(&[residual, &y], |rec, t| add(rec, &t[0], &t[1]))
    }

    /// Linear layers of x, after the input norm if the block has one.
    fn normed<const N: usize>(
        &self,
        tape: &mut Tape,
        x: &Var,
        before: Option<&Param>,
        linears: &Joint<N>,
        adapters: Adapters,
    ) -> Result<[Var; N]> {
        match before {
            Some(before) => linears.forward_normed(tape, x, (before, self.eps), adapters),
            None => linears.forward(tape, x, adapters),
        }
    }

    /// Input norm and attention, without the output projection.
    fn attention(&self, tape: &mut Tape, x: &Var, attend: &Attend<'_>) -> Result<(Var, Option<Var>)> {
        let (adapters, (rotations, rows), dim) = (attend.adapters(), attend.rotation(), self.heads.dim);
        let [mut q, mut k, v] = self.normed(tape, x, self.input_norm.as_ref(), &self.qkv, adapters)?;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = self.qk_norm(tape, &q, q_norm)?;
            k = self.qk_norm(tape, &k, k_norm)?;
        }
        let kv = match self.rope.map(|i| rotations.of(i)) {
            Some(Rotation { keys, queries }) => {
                q = tape.apply1(&[&q], |rec, t| rope(rec, &t[0], queries, rows, dim))?;
                tape.apply1(&[&k, &v], |rec, t| rope_kv(rec, &t[0], &t[1], keys, rows, dim))?
            }
            None => tape.apply1(&[&k, &v], concat)?,
        };
        match attend {
            Attend::Training(context) => Ok((self.attend_training(tape, &q, &kv, context)?, None)),
            Attend::Streamed(context) => self.attend_streamed(tape, &q, &kv, context),
            Attend::Cached { sequences, .. } => {
                let out = attend_sequences(&mut tape.rec, self.index, sequences, &q.tensor, &kv.tensor, self.scale)?;
                Ok((tape.constant(out), None))
            }
        }
    }

    fn attend_training(&self, tape: &mut Tape, q: &Var, kv: &Var, context: &TrainingContext) -> Result<Var> {
        let mut out = None;
        tape.save_once(|tape, earlier| {
            let first_run = earlier.is_none();
            let mut selection = None;
            out = Some(tape.apply1(&[q, kv], |rec, t| {
                let (applied, kept) =
                    attend_training(rec, &t[0], &t[1], context.layouts.of(self.index), self.scale, earlier)?;
                selection = kept;
                Ok(applied)
            })?);
            if let (Some(log), true) = (&context.kept, first_run) {
                let copy = selection.as_ref().map(|kept| {
                    let copy = Buffer::persistent("kept rows", Kind::U32, kept.len).span();
                    tape.rec.copy(kept, &copy);
                    copy
                });
                log.borrow_mut().push(copy);
            }
            Ok(selection)
        })?;
        Ok(out.expect("save_once runs its argument"))
    }

    fn attend_streamed(
        &self,
        tape: &mut Tape,
        q: &Var,
        kv: &Var,
        context: &StreamContext,
    ) -> Result<(Var, Option<Var>)> {
        let mut outputs = Vec::new();
        tape.save_once(|tape, earlier| {
            let pass = if earlier.is_some() { Pass::Again } else { context.pass };
            let at = (&context.stream, &context.chunk, self.index);
            outputs = tape.apply(&[q, kv], |rec, t| attend_streamed(rec, &t[0], &t[1], at, self.scale, pass))?;
            Ok(Some(context.positions.clone())) // any span says that the first run was
        })?;
        let [out, carried]: [Var; 2] = outputs.try_into().expect("an output and what it carries on");
        Ok((out, Some(carried)))
    }

    /// RMS norm of x [tokens, heads · d], each over as many channels as the weight has: those of a
    /// head, or all.
    fn qk_norm(&self, tape: &mut Tape, x: &Var, weight: &Param) -> Result<Var> {
        let (rows, cols, width) = (x.tensor.rows, x.tensor.cols, weight.value.cols);
        let parts = tape.reshape(x, rows * cols / width, width);
        let normed = norm(tape, &parts, weight, self.eps)?;
        Ok(tape.reshape(&normed, rows, cols))
    }
}
