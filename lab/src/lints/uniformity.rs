//! Uniformity analysis: the values and control flow that all invocations of a workgroup share.
//!
//! WGSL requires all invocations to reach barriers and subgroup operations together. naga accepts
//! shaders that violate this; they hang or compute garbage on some devices. This file implements
//! the analysis of the WGSL standard (section "Uniformity"). It is conservative: a value counts as
//! non-uniform unless it is provably uniform. It interprets each function from the entry point on,
//! with one flag per value and per local variable, and repeats loops until nothing changes.

use std::collections::{BTreeSet, HashMap};

use naga::{AddressSpace, Expression, Function, Handle, Module, Span, Statement};

use super::ir::{Root, operands, root};

/// A barrier or subgroup operation in non-uniform control flow.
#[derive(Clone, Debug)]
pub(super) struct Divergence {
    /// The statement.
    pub(super) span: Span,
    /// A description, with the name of the function.
    pub(super) what: String,
}

/// Every such statement reachable from the module's entry points, in source order.
pub(super) fn divergences(module: &Module) -> Vec<Divergence> {
    let mut analysis = Analysis { module, found: BTreeSet::new(), known: HashMap::new() };
    for entry in &module.entry_points {
        let arguments = entry.function.arguments.iter().map(|a| varies(module, a)).collect();
        analysis.function(&entry.function, arguments, false);
    }
    let found = analysis.found.into_iter();
    found.map(|(start, end, what)| Divergence { span: Span::new(start, end), what }).collect()
}

/// Whether an entry-point argument may differ between invocations.
fn varies(module: &Module, argument: &naga::FunctionArgument) -> bool {
    use naga::BuiltIn::{NumWorkGroups, SubgroupSize, WorkGroupId};
    let uniform = |binding: &Option<naga::Binding>| {
        matches!(binding, Some(naga::Binding::BuiltIn(NumWorkGroups | WorkGroupId | SubgroupSize)))
    };
    match &module.types[argument.ty].inner {
        naga::TypeInner::Struct { members, .. } => !members.iter().all(|m| uniform(&m.binding)),
        _ => !uniform(&argument.binding),
    }
}

/// A function, which of its arguments (or their pointees) vary, and whether the call is in
/// divergent flow.
type Context = (Handle<Function>, Vec<bool>, bool);

/// The effects of a call.
#[derive(Clone, Default)]
struct Outcome {
    /// Whether the returned value varies.
    result: bool,
    /// For each pointer argument, whether its pointee varies.
    arguments: Vec<bool>,
}

struct Analysis<'a> {
    module: &'a Module,
    found: BTreeSet<(u32, u32, String)>,
    known: HashMap<Context, Outcome>,
}

/// For each variable, whether its value varies; `None` if control flow never gets here.
type Flow = Option<Vec<bool>>;

/// Merges the states of two paths.
fn join(a: Flow, b: Flow) -> Flow {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.into_iter().zip(b).map(|(a, b)| a | b).collect()),
        (a, b) => a.or(b),
    }
}

/// A loop or switch that encloses the current statement.
#[derive(Default)]
struct Scope {
    is_loop: bool,
    /// Whether some invocations may have left it, or started a later iteration, while others are
    /// here.
    split: bool,
    at_break: Flow,
    at_continue: Flow,
}

/// The interpretation of one function in one context.
struct Frame<'a> {
    function: &'a Function,
    /// Whether each expression varies, as of its last evaluation.
    values: Vec<bool>,
    /// Local variables first, then the pointees of pointer arguments.
    flow: Flow,
    at_return: Flow,
    scopes: Vec<Scope>,
    /// Whether some invocations may have returned already.
    returned: bool,
    result: bool,
}

impl Frame<'_> {
    fn value(&self, e: Handle<Expression>) -> bool {
        self.values[e.index()]
    }

    /// Whether control flow diverges at a statement, given whether the flow that reaches its block
    /// does.
    fn diverges(&self, block: bool) -> bool {
        block || self.returned || self.scopes.iter().any(|s| s.split)
    }

    /// The variable behind a pointer, if this function tracks it.
    fn slot(&self, pointer: Handle<Expression>) -> Option<usize> {
        match root(&self.function.expressions, pointer) {
            Root::Local(local) => Some(local.index()),
            Root::Argument(i) => Some(self.function.local_variables.len() + i as usize),
            Root::Global(_) | Root::Value => None,
        }
    }

    fn variable(&self, slot: usize) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow[slot])
    }

    /// Whether a write covers a whole variable rather than a part of it.
    fn is_whole(&self, pointer: Handle<Expression>) -> bool {
        matches!(self.function.expressions[pointer], Expression::LocalVariable(_) | Expression::FunctionArgument(_))
    }

    fn store(&mut self, pointer: Handle<Expression>, varies: bool) {
        let (slot, whole) = (self.slot(pointer), self.is_whole(pointer));
        if let (Some(slot), Some(flow)) = (slot, self.flow.as_mut()) {
            flow[slot] = varies || (!whole && flow[slot]);
        }
    }
}

impl<'a> Analysis<'a> {
    fn function(&mut self, function: &'a Function, arguments: Vec<bool>, diverges: bool) -> Outcome {
        let mut values = vec![false; function.expressions.len()];
        for (handle, expression) in function.expressions.iter() {
            if let Expression::FunctionArgument(i) = *expression {
                let is_pointer = self.is_pointer(function.arguments[i as usize].ty);
                values[handle.index()] = arguments[i as usize] && !is_pointer;
            }
        }
        // The initialiser of a variable is constant.
        let n_locals = function.local_variables.len();
        let flow = std::iter::repeat_n(false, n_locals).chain(arguments).collect();
        let mut frame = Frame {
            function,
            values,
            flow: Some(flow),
            at_return: None,
            scopes: Vec::new(),
            returned: false,
            result: false,
        };
        self.block(&mut frame, &function.body, diverges);
        let at_end = join(frame.flow.take(), frame.at_return.take());
        let arguments = at_end.map(|flow| flow[n_locals..].to_vec()).unwrap_or_default();
        Outcome { result: frame.result, arguments }
    }

    fn is_pointer(&self, ty: Handle<naga::Type>) -> bool {
        matches!(self.module.types[ty].inner, naga::TypeInner::Pointer { .. } | naga::TypeInner::ValuePointer { .. })
    }

    fn block(&mut self, frame: &mut Frame<'a>, block: &'a naga::Block, diverges: bool) {
        for (statement, span) in block.span_iter() {
            if frame.flow.is_none() {
                return;
            }
            let diverges = frame.diverges(diverges);
            self.statement(frame, statement, *span, diverges);
        }
    }

    fn statement(&mut self, frame: &mut Frame<'a>, statement: &'a Statement, span: Span, diverges: bool) {
        match statement {
            Statement::Emit(range) => {
                for e in range.clone() {
                    frame.values[e.index()] = self.evaluate(frame, e);
                }
                self.collective(frame, statement, span, diverges);
            }
            Statement::Block(block) => self.block(frame, block, diverges),
            Statement::If { condition, accept, reject } => {
                let diverges = diverges || frame.value(*condition);
                let before = frame.flow.clone();
                self.block(frame, accept, diverges);
                let accepted = std::mem::replace(&mut frame.flow, before);
                self.block(frame, reject, diverges);
                frame.flow = join(accepted, frame.flow.take());
            }
            Statement::Switch { selector, cases } => self.switch(frame, *selector, cases, diverges),
            Statement::Loop { body, continuing, break_if } => {
                self.repeat(frame, (body, continuing, *break_if), diverges);
            }
            Statement::Break => leave(frame, frame.scopes.len().checked_sub(1), false, diverges),
            Statement::Continue => leave(frame, frame.scopes.iter().rposition(|s| s.is_loop), true, diverges),
            Statement::Return { value } => {
                frame.result |= diverges || value.is_some_and(|v| frame.value(v));
                frame.returned |= diverges;
                frame.at_return = join(frame.at_return.take(), frame.flow.take());
            }
            Statement::Kill => frame.flow = None,
            Statement::Store { pointer, value } => {
                let varies = diverges || frame.value(*value) || frame.value(*pointer);
                frame.store(*pointer, varies);
            }
            Statement::Atomic { result, .. } => result.iter().for_each(|r| frame.values[r.index()] = true),
            Statement::Call { function, arguments, result } => {
                self.call(frame, *function, arguments, *result, diverges);
            }
            _ => self.collective(frame, statement, span, diverges),
        }
    }

    fn switch(
        &mut self,
        frame: &mut Frame<'a>,
        selector: Handle<Expression>,
        cases: &'a [naga::SwitchCase],
        diverges: bool,
    ) {
        let diverges = diverges || frame.value(selector);
        let before = frame.flow.clone();
        frame.scopes.push(Scope::default());
        let mut after = None;
        let mut falls_in = None;
        for case in cases {
            frame.flow = join(before.clone(), falls_in.take());
            self.block(frame, &case.body, diverges);
            let end = frame.flow.take();
            if case.fall_through { falls_in = end } else { after = join(after, end) }
        }
        let scope = frame.scopes.pop().expect("the scope was pushed above");
        frame.flow = join(after, scope.at_break);
    }

    fn repeat(
        &mut self,
        frame: &mut Frame<'a>,
        (body, continuing, break_if): (&'a naga::Block, &'a naga::Block, Option<Handle<Expression>>),
        diverges: bool,
    ) {
        frame.scopes.push(Scope { is_loop: true, ..Scope::default() });
        loop {
            let (at_head, before) = (frame.flow.clone(), (frame.diverges(diverges), frame.result));
            self.block(frame, body, diverges);
            let scope = frame.scopes.last_mut().expect("the scope was pushed above");
            frame.flow = join(frame.flow.take(), scope.at_continue.take());
            self.block(frame, continuing, diverges);
            if let (Some(condition), Some(_)) = (break_if, &frame.flow) {
                let (varies, flow) = (frame.value(condition), frame.flow.clone());
                let scope = frame.scopes.last_mut().expect("the scope was pushed above");
                scope.split |= varies;
                scope.at_break = join(scope.at_break.take(), flow);
            }
            frame.flow = join(at_head.clone(), frame.flow.take());
            if frame.flow == at_head && before == (frame.diverges(diverges), frame.result) {
                break;
            }
        }
        frame.flow = frame.scopes.pop().expect("the scope was pushed above").at_break;
    }

    fn call(
        &mut self,
        frame: &mut Frame<'a>,
        callee: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        diverges: bool,
    ) {
        let target: Vec<Option<usize>> = arguments.iter().map(|a| frame.slot(*a)).collect();
        let given: Vec<bool> = arguments
            .iter()
            .zip(&target)
            .map(|(a, slot)| frame.value(*a) || slot.is_some_and(|slot| frame.variable(slot)))
            .collect();
        let context = (callee, given, diverges);
        let outcome = match self.known.get(&context) {
            Some(outcome) => outcome.clone(),
            None => {
                let outcome = self.function(&self.module.functions[callee], context.1.clone(), diverges);
                self.known.insert(context, outcome.clone());
                outcome
            }
        };
        if let Some(result) = result {
            frame.values[result.index()] = outcome.result;
        }
        for ((argument, slot), varies) in arguments.iter().zip(target).zip(outcome.arguments) {
            if slot.is_some() {
                frame.store(*argument, varies);
            }
        }
    }

    /// Statements that all invocations must reach together, and their results.
    fn collective(&mut self, frame: &mut Frame<'a>, statement: &Statement, span: Span, diverges: bool) {
        let mut varies = diverges;
        let what = match statement {
            Statement::ControlBarrier(_) | Statement::MemoryBarrier(_) => "a barrier",
            Statement::WorkGroupUniformLoad { pointer, .. } => {
                varies |= frame.value(*pointer);
                "workgroupUniformLoad"
            }
            Statement::SubgroupBallot { result, .. } | Statement::SubgroupCollectiveOperation { result, .. } => {
                frame.values[result.index()] = true;
                "a subgroup operation"
            }
            Statement::SubgroupGather { mode, result, .. } => {
                use naga::GatherMode::{ShuffleDown, ShuffleUp, ShuffleXor};
                if let ShuffleDown(by) | ShuffleUp(by) | ShuffleXor(by) = mode {
                    varies |= frame.value(*by);
                }
                frame.values[result.index()] = true;
                "a subgroup operation"
            }
            _ => return,
        };
        if varies {
            let function = frame.function.name.as_deref().unwrap_or("the entry point");
            let range = span.to_range().unwrap_or_default();
            let what = format!("{what} in {function} may be reached by some invocations and not by others");
            self.found.insert((range.start as u32, range.end as u32, what));
        }
    }

    /// Whether an expression varies, given its operands.
    fn evaluate(&self, frame: &Frame<'a>, e: Handle<Expression>) -> bool {
        let expression = &frame.function.expressions[e];
        let operand = |e: Handle<Expression>| frame.value(e);
        match expression {
            Expression::Load { pointer } => {
                let stored = match (root(&frame.function.expressions, *pointer), frame.slot(*pointer)) {
                    (Root::Global(g), _) => match self.module.global_variables[g].space {
                        AddressSpace::Uniform => false,
                        AddressSpace::Storage { access } => access.contains(naga::StorageAccess::STORE),
                        _ => true,
                    },
                    (_, Some(slot)) => frame.variable(slot),
                    (_, None) => true,
                };
                stored || operand(*pointer)
            }
            // The length of the binding is the same for all invocations.
            Expression::ArrayLength(_) => false,
            _ => match operands(expression) {
                Some(operands) => operands.into_iter().any(operand),
                None => true,
            },
        }
    }
}

/// Handles `break` or `continue` out of a scope and the scopes inside it.
fn leave(frame: &mut Frame<'_>, scope: Option<usize>, continues: bool, diverges: bool) {
    let flow = frame.flow.take();
    let Some(scope) = scope.map(|i| &mut frame.scopes[i]) else { return };
    scope.split |= diverges;
    let kept = if continues { &mut scope.at_continue } else { &mut scope.at_break };
    *kept = join(kept.take(), flow);
}
