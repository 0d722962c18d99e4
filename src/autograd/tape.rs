//! The tape: records applied ops and their gradient rules, and appends the backward pass.
//!
//! Rules return local gradients; the tape sums them, or lets a matrix product accumulate into a sum
//! in place. The tape owns the recording that the ops append to. It adds parameter gradients to
//! their persistent spans as soon as they are computed, so that their transient memory is free
//! again. With [`Tape::checkpoint`] a block keeps only its inputs and recomputes its activations in
//! the backward pass. [`Saved`] holds what recomputation must not repeat (the LRSA selection).

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::gpu::{Kind, Recording, Span};
use crate::kernels::elementwise::add_into;
use crate::kernels::op::{Applied, Op};
use crate::tensor::Tensor;

/// A weight and, if it is trained, the persistent span that accumulates its gradient.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name in the model files.
    pub name: String,
    /// The values.
    pub value: Tensor,
    /// Where gradients accumulate; `None` for a frozen weight.
    pub grad: Option<Tensor>,
}

impl Param {
    /// A frozen weight.
    pub fn frozen(name: impl Into<String>, value: Tensor) -> Self {
        Self { name: name.into(), value, grad: None }
    }
}

/// Where the gradient of a variable goes.
#[derive(Clone, Debug)]
enum Target {
    /// Nowhere: it depends on nothing that is trained.
    Constant,
    /// To the node that produced it.
    Node(u64),
    /// To a parameter's gradient.
    Param(Tensor),
}

/// A tensor on the tape.
#[derive(Clone, Debug)]
pub struct Var {
    /// The value.
    pub tensor: Tensor,
    target: Target,
}

impl Var {
    /// Whether it needs a gradient.
    pub fn needs_grad(&self) -> bool {
        !matches!(self.target, Target::Constant)
    }
}

/// Spans that a checkpointed block keeps besides its inputs, in the order of saving.
#[derive(Clone, Debug, Default)]
pub struct Saved(Vec<Option<Span>>);

type Block = Rc<dyn Fn(&mut Tape, &[Var]) -> Result<Vec<Var>>>;

enum Rule {
    Op(Box<dyn Op>),
    Block { run: Block, inputs: Vec<Tensor>, saved: Saved },
}

struct Node {
    rule: Rule,
    inputs: Vec<Target>,
    outputs: Vec<(u64, Tensor)>,
}

#[doc = include_str!("tape.md")]
#[derive(Default)]
pub struct Tape {
    /// The commands recorded so far.
    pub rec: Recording,
    nodes: Vec<Node>,
    grad: bool,
    /// Whether each intermediate result is used only by the op that follows it.
    passing: bool,
    recompute: bool,
    saving: Saved,
    replaying: Option<std::vec::IntoIter<Option<Span>>>,
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Tape {
    /// A tape for training. With `recompute`, [`Tape::checkpoint`] recomputes activations.
    pub fn training(recompute: bool) -> Self {
        Self { grad: true, recompute, ..Self::default() }
    }

    /// A tape that records only the forward pass.
    pub fn inference() -> Self {
        Self { passing: true, ..Self::default() }
    }

    /// Whether the tape computes gradients.
    pub fn is_training(&self) -> bool {
        self.grad
    }

    /// Whether a variable needs a gradient in this pass.
    pub fn needs(&self, var: &Var) -> bool {
        self.is_training() && var.needs_grad()
    }

    /// Whether a rule or a recomputation may read activations again. If so, no activation that a
    /// rule holds may be overwritten.
    pub fn keeps(&self) -> bool {
        !self.passing
    }

    /// An input without gradient.
    pub fn constant(&self, tensor: Tensor) -> Var {
        Var { tensor, target: Target::Constant }
    }

    /// A parameter.
    pub fn param(&self, param: &Param) -> Var {
        let target = match &param.grad {
            Some(grad) if self.grad => Target::Param(grad.clone()),
            _ => Target::Constant,
        };
        Var { tensor: param.value.clone(), target }
    }

    /// Applies an op: `forward` appends its commands and returns its outputs and its gradient rule.
    pub fn apply(
        &mut self,
        inputs: &[&Var],
        forward: impl FnOnce(&mut Recording, &[Tensor]) -> Result<Applied>,
    ) -> Result<Vec<Var>> {
        let tensors: Vec<Tensor> = inputs.iter().map(|v| v.tensor.clone()).collect();
        let (outputs, op) = forward(&mut self.rec, &tensors)?;
        let targets = inputs.iter().map(|v| v.target.clone()).collect();
        Ok(self.push(Rule::Op(op), targets, outputs))
    }

    /// [`Tape::apply`] for ops with one output.
    pub fn apply1(
        &mut self,
        inputs: &[&Var],
        forward: impl FnOnce(&mut Recording, &[Tensor]) -> Result<Applied>,
    ) -> Result<Var> {
        let mut outputs = self.apply(inputs, forward)?;
        assert_eq!(outputs.len(), 1, "the op has one output");
        Ok(outputs.remove(0))
    }

    /// The same elements in another shape; the gradient is reshaped back.
    pub fn reshape(&mut self, x: &Var, rows: usize, cols: usize) -> Var {
        let op = Reshape { rows: x.tensor.rows, cols: x.tensor.cols };
        let out = x.tensor.reshaped(rows, cols);
        self.push(Rule::Op(Box::new(op)), vec![x.target.clone()], vec![out]).remove(0)
    }

    fn push(&mut self, rule: Rule, inputs: Vec<Target>, outputs: Vec<Tensor>) -> Vec<Var> {
        if !self.grad || inputs.iter().all(|t| matches!(t, Target::Constant)) {
            return outputs.into_iter().map(|t| self.constant(t)).collect();
        }
        let outputs: Vec<(u64, Tensor)> = outputs.into_iter().map(|t| (next_id(), t)).collect();
        let vars = outputs.iter().map(|(id, t)| Var { tensor: t.clone(), target: Target::Node(*id) }).collect();
        self.nodes.push(Node { rule, inputs, outputs });
        vars
    }

    /// Runs a block. On a recomputing tape the backward pass runs it again: `run` must append the
    /// same commands each time and take every activation that needs a gradient from its inputs (it
    /// may capture parameters).
    pub fn checkpoint(
        &mut self,
        inputs: &[Var],
        run: impl Fn(&mut Tape, &[Var]) -> Result<Vec<Var>> + 'static,
    ) -> Result<Vec<Var>> {
        if !(self.grad && self.recompute) {
            return run(self, inputs);
        }
        let run: Block = Rc::new(run);
        let constants: Vec<Var> = inputs.iter().map(|v| self.constant(v.tensor.clone())).collect();
        let (outputs, saved) = self.nested(Tape { grad: false, ..Tape::default() }, |t| run(t, &constants))?;
        let outputs = outputs.into_iter().map(|v| v.tensor).collect();
        let tensors = inputs.iter().map(|v| v.tensor.clone()).collect();
        // A block may hold trained parameters even if its inputs are constants.
        let mut targets: Vec<Target> = inputs.iter().map(|v| v.target.clone()).collect();
        if targets.iter().all(|t| matches!(t, Target::Constant)) {
            targets.push(Target::Node(next_id()));
        }
        Ok(self.push(Rule::Block { run, inputs: tensors, saved: saved.saving }, targets, outputs))
    }

    /// Runs `f` on an inner tape that appends to this tape's recording.
    fn nested<R>(&mut self, mut inner: Tape, f: impl FnOnce(&mut Tape) -> Result<R>) -> Result<(R, Tape)> {
        inner.rec = std::mem::take(&mut self.rec);
        let result = f(&mut inner);
        self.rec = std::mem::take(&mut inner.rec);
        Ok((result?, inner))
    }

    /// Keeps the span that `make` returns across recomputation: the first run computes it, the
    /// second receives it.
    pub fn save_once(&mut self, make: impl FnOnce(&mut Tape, Option<Span>) -> Result<Option<Span>>) -> Result<()> {
        let earlier = self.replaying.as_mut().map(|r| r.next().expect("a block saves the same things each run"));
        let made = make(self, earlier.flatten())?;
        self.saving.0.push(made);
        Ok(())
    }

    /// Appends the backward pass from a scalar loss [1, 1]. Parameter gradients accumulate in their
    /// spans; the caller clears them once per optimiser step. `one` is a [1, 1] tensor that holds
    /// 1.
    pub fn backward(&mut self, loss: &Var, one: &Tensor) -> Result<()> {
        assert_eq!(loss.tensor.len(), 1, "the loss is a scalar");
        self.backward_from(&[(loss.clone(), one.clone())], &[]).map(|_| ())
    }

    /// Appends the backward pass from the given output gradients; returns the gradients of
    /// `wanted`.
    pub fn backward_from(&mut self, seeds: &[(Var, Tensor)], wanted: &[&Var]) -> Result<Vec<Option<Tensor>>> {
        let mut grads = Gradients::default();
        for (var, grad) in seeds {
            grads.add(&mut self.rec, &var.target, grad.clone(), false);
        }
        let wanted_ids: Vec<Option<u64>> = wanted.iter().map(|v| v.node_id()).collect();
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().all(|(id, _)| !grads.of_node.contains_key(id)) {
                continue; // the loss does not depend on its outputs
            }
            let mut need: Vec<bool> = node.inputs.iter().map(|t| !matches!(t, Target::Constant)).collect();
            let outputs: Vec<Tensor> = node.outputs.iter().map(|(id, t)| grads.take(&mut self.rec, *id, t)).collect();
            let (label, passed_on, local) = match node.rule {
                Rule::Op(op) => {
                    let local = self.op_backward(op.as_ref(), &node.inputs, &mut grads, &outputs, &mut need)?;
                    (op.label(), op.passes_on(), local)
                }
                Rule::Block { run, inputs, saved } => {
                    ("checkpoint", true, self.block_backward(&run, &inputs, saved, &outputs, &need)?)
                }
            };
            for ((target, grad), needed) in node.inputs.iter().zip(local).zip(&need) {
                match grad {
                    Some(grad) => grads.add(&mut self.rec, target, grad, !passed_on),
                    None if *needed => {
                        return Err(Error::new(format!("the rule of {label} gives no gradient for a trained input")));
                    }
                    None => {}
                }
            }
        }
        Ok(wanted_ids
            .into_iter()
            .map(|id| id.and_then(|id| grads.of_node.get(&id).map(|g| g.tensor.clone())))
            .collect())
    }

    /// The local gradients of an op. Gradients that the op can accumulate into an existing sum are
    /// accumulated and not returned.
    fn op_backward(
        &mut self,
        op: &dyn Op,
        inputs: &[Target],
        grads: &mut Gradients,
        outputs: &[Tensor],
        need: &mut [bool],
    ) -> Result<Vec<Option<Tensor>>> {
        for (i, (target, needed)) in inputs.iter().zip(&mut *need).enumerate() {
            if *needed
                && op.has_backward_accumulate(i)
                && let Some(sum) = grads.sum_of(&mut self.rec, target)
            {
                op.backward_accumulate(&mut self.rec, outputs, i, &sum);
                *needed = false;
            }
        }
        let local = op.backward(&mut self.rec, outputs, need)?;
        let ids = |t: &Tensor| t.pieces().iter().map(|p| p.span.buffer.id()).collect::<Vec<_>>();
        let given: Vec<u64> = outputs.iter().flat_map(ids).collect();
        let is_given = |g: &Tensor| ids(g).iter().any(|id| given.contains(id));
        assert!(
            op.passes_on() || !local.iter().flatten().any(is_given),
            "{} returns a gradient that it was given, but passes_on() is false",
            op.label()
        );
        Ok(local)
    }

    fn block_backward(
        &mut self,
        run: &Block,
        inputs: &[Tensor],
        saved: Saved,
        outputs: &[Tensor],
        need: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let leaf = |(t, needed): (&Tensor, &bool)| Var {
            tensor: t.clone(),
            target: if *needed { Target::Node(next_id()) } else { Target::Constant },
        };
        let leaves: Vec<Var> = inputs.iter().zip(need).map(leaf).collect();
        let replay = Tape { grad: true, replaying: Some(saved.0.into_iter()), ..Tape::default() };
        let (mut grads, _) = self.nested(replay, |inner| {
            let again = run(inner, &leaves)?;
            let seeds: Vec<(Var, Tensor)> = again.into_iter().zip(outputs.iter().cloned()).collect();
            inner.backward_from(&seeds, &leaves.iter().collect::<Vec<_>>())
        })?;
        if need.len() > inputs.len() {
            grads.push(Some(outputs[0].clone())); // placeholder for a block without trained inputs; nothing reads it
        }
        Ok(grads)
    }
}

/// Gradient of a reshape: the reshape back.
struct Reshape {
    rows: usize,
    cols: usize,
}

impl Op for Reshape {
    fn label(&self) -> &'static str {
        "reshape"
    }

    fn backward(&self, _: &mut Recording, grads: &[Tensor], _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(grads[0].reshaped(self.rows, self.cols))])
    }

    fn passes_on(&self) -> bool {
        true
    }
}

impl Var {
    fn node_id(&self) -> Option<u64> {
        match self.target {
            Target::Node(id) => Some(id),
            _ => None,
        }
    }
}

struct Gradient {
    tensor: Tensor,
    /// Whether this tape allocated the tensor, so that it may add to it in place.
    is_own: bool,
}

#[derive(Default)]
struct Gradients {
    of_node: HashMap<u64, Gradient>,
}

impl Gradients {
    fn add(&mut self, rec: &mut Recording, target: &Target, grad: Tensor, is_own: bool) {
        if let Some(sum) = self.sum_of(rec, target) {
            add_into(rec, &grad, &sum);
        } else if let Target::Node(id) = target {
            self.of_node.insert(*id, Gradient { tensor: grad, is_own });
        }
    }

    /// The sum so far, for in-place accumulation; `None` before the first gradient.
    fn sum_of(&mut self, rec: &mut Recording, target: &Target) -> Option<Tensor> {
        match target {
            Target::Constant => None,
            Target::Param(sum) => Some(sum.clone()),
            Target::Node(id) => {
                let sum = self.of_node.get_mut(id)?;
                if !sum.is_own {
                    // Another node may share it, so it is copied before anything is added.
                    let own = Tensor::transient_like(rec, "gradient sum", &sum.tensor);
                    crate::tensor::copy_tensor(rec, &sum.tensor, &own);
                    *sum = Gradient { tensor: own, is_own: true };
                }
                Some(sum.tensor.clone())
            }
        }
    }

    /// The summed gradient of a node's output; zeros if only the node's other outputs were used.
    fn take(&mut self, rec: &mut Recording, id: u64, like: &Tensor) -> Tensor {
        match self.of_node.remove(&id) {
            Some(g) => g.tensor,
            None => {
                let zeros =
                    Tensor::from_span(rec.transient("zero gradient", Kind::Real, like.len()), like.rows, like.cols);
                rec.clear(zeros.span());
                zeros
            }
        }
    }
}
