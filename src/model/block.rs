//! One transformer block of the Llama family: attention with RoPE and grouped heads, then SwiGLU, each behind an RMS norm
//! and a residual.

use std::cell::RefCell;
use std::rc::Rc;

use crate::attention::{Cache, CacheStep, Heads, TrainingLayout, attend_training};
use crate::autograd::{Param, Tape, Var};
use crate::error::Result;
use crate::gpu::{Buffer, Kind, Span};
use crate::kernels::activation::swiglu;
use crate::kernels::rope::{RopeTables, rope, rope_kv};
use crate::nn::{Dropout, Linear, Stacked, norm};

/// Weights of a block.
#[derive(Clone, Debug)]
pub struct Block {
    pub(crate) index: usize,
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    pub(crate) input_norm: Param,
    pub(crate) qkv: Stacked<3>,
    pub(crate) o: Linear,
    /// Qwen3: norms over each query and key head.
    pub(crate) qk_norm: Option<(Param, Param)>,
    pub(crate) mlp_norm: Param,
    pub(crate) gate_up: Stacked<2>,
    pub(crate) down: Linear,
}

/// Selections of a forward pass, one per layer, copied out for who wants to look at them.
pub type KeptLog = Rc<RefCell<Vec<Option<Span>>>>;

/// What every block of one training forward shares.
#[derive(Clone, Debug)]
pub struct TrainingContext {
    /// Who sees whom.
    pub layout: Rc<TrainingLayout>,
    /// Position of each token in its sequence, U32 `[tokens]`.
    pub positions: Span,
    /// Masks of the adapters' dropout; `None` switches it off.
    pub dropout: Option<Dropout>,
    /// Where the selections are copied to.
    pub kept: Option<KeptLog>,
}

/// How a block attends.
pub(super) enum Attend<'a> {
    Training(&'a TrainingContext),
    Cached { cache: &'a Cache, step: &'a CacheStep },
}

impl Attend<'_> {
    fn positions(&self) -> &Span {
        match self {
            Attend::Training(c) => &c.positions,
            Attend::Cached { step, .. } => &step.positions,
        }
    }

    fn dropout(&self) -> Option<Dropout> {
        match self {
            Attend::Training(c) => c.dropout,
            Attend::Cached { .. } => None,
        }
    }
}

impl Block {
    /// x [tokens, hidden] → [tokens, hidden], in place of x where the tape keeps nothing.
    pub(super) fn forward(&self, tape: &mut Tape, x: &Var, tables: &RopeTables, attend: &Attend<'_>) -> Result<Var> {
        let drop = attend.dropout();
        let attended = self.attention(tape, x, tables, attend)?;
        let x = self.o.forward_accumulate(tape, &attended, x, drop)?;
        let [gate, up] = self.gate_up.forward_normed(tape, &x, (&self.mlp_norm, self.eps), drop)?;
        let inner = tape.apply1(&[&gate, &up], |rec, t| swiglu(rec, &t[0], &t[1]))?;
        self.down.forward_accumulate(tape, &inner, &x, drop)
    }

    /// Attention behind its norm, before the output projection.
    fn attention(&self, tape: &mut Tape, x: &Var, tables: &RopeTables, attend: &Attend<'_>) -> Result<Var> {
        let (drop, positions, dim) = (attend.dropout(), attend.positions(), self.heads.dim);
        let [mut q, mut k, v] = self.qkv.forward_normed(tape, x, (&self.input_norm, self.eps), drop)?;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            q = self.head_norm(tape, &q, q_norm)?;
            k = self.head_norm(tape, &k, k_norm)?;
        }
        let q = tape.apply1(&[&q], |rec, t| rope(rec, &t[0], tables, positions, dim))?;
        let kv = tape.apply1(&[&k, &v], |rec, t| rope_kv(rec, &t[0], &t[1], tables, positions, dim))?;
        match attend {
            Attend::Training(context) => self.attend_training(tape, &q, &kv, context),
            Attend::Cached { cache, step, .. } => {
                let out = cache.attend(&mut tape.rec, self.index, step, &q.tensor, &kv.tensor);
                Ok(tape.constant(out))
            }
        }
    }

    fn attend_training(&self, tape: &mut Tape, q: &Var, kv: &Var, context: &TrainingContext) -> Result<Var> {
        let mut out = None;
        tape.save_once(|tape, earlier| {
            let first_run = earlier.is_none();
            let mut selection = None;
            out = Some(tape.apply1(&[q, kv], |rec, t| {
                let (applied, kept) = attend_training(rec, &t[0], &t[1], &context.layout, earlier)?;
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

    /// RMS norm of every head of x [tokens, heads · d].
    fn head_norm(&self, tape: &mut Tape, x: &Var, weight: &Param) -> Result<Var> {
        let (rows, cols) = (x.tensor.rows, x.tensor.cols);
        let per_head = tape.reshape(x, rows * cols / self.heads.dim, self.heads.dim);
        let normed = norm(tape, &per_head, weight, self.eps)?;
        Ok(tape.reshape(&normed, rows, cols))
    }
}
