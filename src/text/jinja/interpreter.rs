//! Runs the statements of a template.
//!
//! Names live in frames. A loop, a macro and a few blocks open one, and a name is looked up from
//! the current frame outwards, as Jinja2's scopes have it. Namespaces, loops and the like live in
//! lists here and values refer to them by place, so that no value can hold itself.

use super::args::{Args, required};
use super::ast::{Expr, FilterCall, For, Name, Program, Statement, StatementKind, Target};
use super::budget::{Budget, Held};
use super::evaluate::{self, Scope};
use super::functions;
use super::loops::Loop;
use super::print::{self, Writer};
use super::value::{Function, Object, Text, Value};
use crate::error::Result;

/// The names of one scope.
pub(super) struct Frame {
    /// The enclosing frame; the outermost frame encloses itself.
    parent: usize,
    pub(super) serial: u64,
    variables: Vec<(Name, Value)>,
}

/// What a statement leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A running template.
pub struct Interpreter<'t> {
    pub(super) program: &'t Program,
    pub(super) budget: &'t Budget,
    pub(super) frames: Vec<Frame>,
    pub(super) current: usize,
    loops: Vec<Loop<'t>>,
    namespaces: Vec<Vec<(Text, Value)>>,
    cyclers: Vec<(Vec<Value>, usize)>,
    /// Separators, and whether they were used.
    joiners: Vec<(Value, bool)>,
    /// Memory of the namespaces, cyclers and joiners.
    held: Vec<Held>,
    serial: u64,
    /// The output, and the text of the blocks that are being captured.
    outputs: Vec<String>,
    /// Bytes of all outputs.
    n_bytes: usize,
    /// What is written before and after a generation block.
    markers: [char; 2],
    /// The line of the current statement.
    pub line: u32,
}

impl<'t> Interpreter<'t> {
    /// An interpreter with the variables that the template sees.
    pub fn new(program: &'t Program, variables: Vec<(Name, Value)>, markers: [char; 2], budget: &'t Budget) -> Self {
        Self {
            program,
            budget,
            frames: vec![Frame { parent: 0, serial: 0, variables }],
            current: 0,
            loops: Vec::new(),
            namespaces: Vec::new(),
            cyclers: Vec::new(),
            joiners: Vec::new(),
            held: Vec::new(),
            serial: 0,
            outputs: vec![String::new()],
            n_bytes: 0,
            markers,
            line: 1,
        }
    }

    /// Runs the template and returns its output.
    pub fn run(&mut self) -> Result<String> {
        self.body(&self.program.body)?;
        Ok(self.outputs.pop().unwrap_or_default())
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn evaluate(&mut self, expr: &Expr) -> Result<Value> {
        let budget = self.budget;
        evaluate::evaluate(expr, self, budget)
    }

    fn emit(&mut self, piece: &str) -> Result<()> {
        self.budget.scan(piece.len())?;
        self.n_bytes += piece.len();
        self.budget.check_text(self.n_bytes)?;
        self.outputs.last_mut().expect("the output stays open while the template runs").push_str(piece);
        Ok(())
    }

    /// The text that something writes, instead of its output.
    pub(super) fn captured(&mut self, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<Value> {
        self.outputs.push(String::new());
        run(self)?;
        let text = self.outputs.pop().unwrap_or_default();
        self.n_bytes -= text.len();
        Value::text(text, self.budget)
    }

    /// Runs something in a new frame inside the frame `parent`.
    pub(super) fn framed<T>(&mut self, parent: usize, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let serial = self.next_serial();
        let before = self.current;
        self.current = self.frames.len();
        self.frames.push(Frame { parent, serial, variables: Vec::new() });
        let result = run(self)?;
        self.frames.pop();
        self.current = before;
        Ok(result)
    }

    /// Statements that no loop can leave.
    pub(super) fn body(&mut self, statements: &'t [Statement]) -> Result<()> {
        match self.statements(statements)? {
            Flow::Next => Ok(()),
            Flow::Break => crate::bail!("'break' outside a loop"),
            Flow::Continue => crate::bail!("'continue' outside a loop"),
        }
    }

    fn statements(&mut self, statements: &'t [Statement]) -> Result<Flow> {
        for statement in statements {
            self.budget.enter()?;
            self.line = statement.line;
            let flow = self.statement(&statement.kind)?;
            self.budget.leave();
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'t StatementKind) -> Result<Flow> {
        let here = self.current;
        match statement {
            StatementKind::Text(text) => self.emit(text)?,
            StatementKind::Print(expr) => match self.evaluate(expr)? {
                Value::Text(text) => self.emit(text.as_str())?,
                other => {
                    let mut text = Writer::new(self.budget);
                    print::write_str(&other, &mut text)?;
                    self.emit(&text.into_string())?;
                }
            },
            StatementKind::For(node) => {
                let items = self.loop_items(node)?;
                return self.loop_over(node, items, 0, here);
            }
            StatementKind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.evaluate(condition)?.is_true() {
                        return self.statements(body);
                    }
                }
                return self.statements(otherwise);
            }
            StatementKind::Set(target, expr) => {
                let value = self.evaluate(expr)?;
                self.assign(target, value)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let text = self.captured(|this| this.framed(here, |this| this.body(body)))?;
                let value = self.filtered(text, filters)?;
                self.assign(target, value)?;
            }
            StatementKind::With(values, body) => {
                let mut assigned = Vec::new();
                for (target, expr) in values {
                    assigned.push((target, self.evaluate(expr)?));
                }
                return self.framed(here, |this| {
                    for (target, value) in assigned {
                        this.assign(target, value)?;
                    }
                    this.statements(body)
                });
            }
            StatementKind::FilterBlock(filters, body) => {
                let text = self.captured(|this| this.framed(here, |this| this.body(body)))?;
                let value = self.filtered(text, filters)?;
                let text = print::to_text(&value, self.budget)?;
                self.emit(text.as_str())?;
            }
            StatementKind::Scope(body) => self.framed(here, |this| this.body(body))?,
            StatementKind::Macro(index) => {
                let name = self.program.macros[*index].declared;
                let value = self.macro_value(*index);
                self.set(name, value)?;
            }
            StatementKind::CallBlock(call, index) => {
                let Expr::Call(callee, args) = call else { crate::bail!("a call block needs a call") };
                let callee = self.evaluate(callee)?;
                let budget = self.budget;
                let mut args = evaluate::arguments(args, self, budget)?;
                args.named.push(("caller".to_owned(), self.macro_value(*index)));
                let value = evaluate::call(&callee, args, self, budget)?;
                let text = print::to_text(&value, self.budget)?;
                self.emit(text.as_str())?;
            }
            StatementKind::Generation(body) => {
                let [start, end] = self.markers;
                self.emit(start.encode_utf8(&mut [0; 4]))?;
                self.framed(here, |this| this.body(body))?;
                self.emit(end.encode_utf8(&mut [0; 4]))?;
            }
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn filtered(&mut self, mut value: Value, filters: &[FilterCall]) -> Result<Value> {
        for filter in filters {
            let budget = self.budget;
            value = evaluate::filter(value, filter, self, budget)?;
        }
        Ok(value)
    }

    /// The items of a loop for which its condition holds.
    fn loop_items(&mut self, node: &'t For) -> Result<Vec<Value>> {
        let items = self.evaluate(&node.iter)?.iterate(self.budget)?;
        self.those_that_hold(node, items)
    }

    fn those_that_hold(&mut self, node: &'t For, items: Vec<Value>) -> Result<Vec<Value>> {
        let Some(condition) = &node.condition else { return Ok(items) };
        self.framed(self.current, |this| {
            let mut kept = Vec::new();
            for item in items {
                this.assign(&node.target, item.clone())?;
                if this.evaluate(condition)?.is_true() {
                    kept.push(item);
                }
            }
            Ok(kept)
        })
    }

    fn loop_over(&mut self, node: &'t For, items: Vec<Value>, depth: usize, outer: usize) -> Result<Flow> {
        if items.is_empty() {
            return self.framed(outer, |this| this.statements(&node.otherwise));
        }
        let index = self.loops.len();
        let serial = self.next_serial();
        self.loops.push(Loop::new(node, items, depth, outer, serial, self.budget)?);
        self.framed(outer, |this| {
            for at in 0..this.loops[index].items.len() {
                this.loops[index].at = at;
                let item = this.loops[index].items[at].clone();
                let serial_of_frame = this.next_serial();
                let frame = &mut this.frames[this.current];
                frame.serial = serial_of_frame;
                frame.variables.clear();
                this.set(this.program.loop_name, Value::Object(Object::Loop(index, serial)))?;
                this.assign(&node.target, item)?;
                if this.statements(&node.body)? == Flow::Break {
                    break;
                }
            }
            Ok(())
        })?;
        self.loops.pop();
        Ok(Flow::Next)
    }

    pub(super) fn set(&mut self, name: Name, value: Value) -> Result<()> {
        let variables = &mut self.frames[self.current].variables;
        self.budget.spend(variables.len() / 16)?;
        match variables.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => variables.push((name, value)),
        }
        Ok(())
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.set(*name, value),
            Target::Tuple(targets) => {
                let values = value.defined()?.iterate(self.budget)?;
                let (wanted, got) = (targets.len(), values.len());
                crate::ensure!(got <= wanted, "too many values to unpack (expected {wanted})");
                crate::ensure!(got == wanted, "not enough values to unpack (expected {wanted}, got {got})");
                targets.iter().zip(values).try_for_each(|(target, value)| self.assign(target, value))
            }
            Target::Attribute(name, attribute) => {
                let Value::Object(Object::Namespace(index)) = self.variable(*name)? else {
                    crate::bail!("cannot assign attribute on non-namespace object");
                };
                self.set_attribute(index, attribute, value)
            }
        }
    }

    fn set_attribute(&mut self, namespace: usize, name: &str, value: Value) -> Result<()> {
        let attributes = &mut self.namespaces[namespace];
        self.budget.spend(1 + attributes.len() / 16)?;
        match attributes.iter_mut().find(|(n, _)| n.as_str() == name) {
            Some((_, old)) => *old = value,
            None => {
                attributes.push((Text::new(name, self.budget)?, value));
                self.held.push(self.budget.hold(2 * size_of::<(Text, Value)>())?);
            }
        }
        Ok(())
    }

    /// A running loop, if it is still the one that a value names.
    fn living_loop(&mut self, index: usize, serial: u64) -> Result<&mut Loop<'t>> {
        match self.loops.get_mut(index).filter(|l| l.serial == serial) {
            Some(living) => Ok(living),
            None => crate::bail!("the variable 'loop' is used after its loop"),
        }
    }

    fn call_function(&mut self, function: Function, args: Args) -> Result<Value> {
        match function {
            Function::Range => functions::range(args),
            Function::Dict => functions::dict(args, self.budget),
            Function::RaiseException => functions::raise_exception(args, self.budget),
            Function::StrftimeNow => functions::strftime_now(args, self.budget),
            Function::Namespace => {
                self.held.push(self.budget.hold(128)?);
                self.namespaces.push(Vec::new());
                let index = self.namespaces.len() - 1;
                let Value::Dict(values) = functions::dict(args, self.budget)? else { return Ok(Value::None) };
                for (name, value) in values.entries() {
                    let name = print::to_text(name, self.budget)?;
                    self.set_attribute(index, name.as_str(), value.clone())?;
                }
                Ok(Value::Object(Object::Namespace(index)))
            }
            Function::Cycler => {
                crate::ensure!(!args.positional.is_empty(), "at least one item has to be provided");
                self.held.push(self.budget.hold(128 + args.positional.len() * size_of::<Value>())?);
                self.cyclers.push((args.positional, 0));
                Ok(Value::Object(Object::Cycler(self.cyclers.len() - 1)))
            }
            Function::Joiner => {
                let [separator] = args.bind("joiner", ["sep"])?;
                let separator = separator.map_or_else(|| Value::text(", ", self.budget), Ok)?;
                self.held.push(self.budget.hold(128)?);
                self.joiners.push((separator, false));
                Ok(Value::Object(Object::Joiner(self.joiners.len() - 1)))
            }
        }
    }
}

impl Scope for Interpreter<'_> {
    fn variable(&self, name: Name) -> Result<Value> {
        let mut at = self.current;
        loop {
            let frame = &self.frames[at];
            self.budget.spend(1 + frame.variables.len() / 16)?;
            if let Some((_, value)) = frame.variables.iter().find(|(n, _)| *n == name) {
                return Ok(value.clone());
            }
            if at == 0 {
                break;
            }
            at = frame.parent;
        }
        let name = &self.program.names[name as usize];
        match functions::by_name(name) {
            Some(function) => Ok(Value::Object(Object::Function(function))),
            None => Value::undefined(format!("'{name}' is undefined"), self.budget),
        }
    }

    fn attribute(&self, object: Object, name: &str) -> Result<Option<Value>> {
        match object {
            Object::Namespace(index) => {
                let attributes = &self.namespaces[index];
                self.budget.spend(1 + attributes.len() / 16)?;
                Ok(attributes.iter().find(|(n, _)| n.as_str() == name).map(|(_, value)| value.clone()))
            }
            Object::Loop(index, serial) => match self.loops.get(index).filter(|l| l.serial == serial) {
                Some(living) => living.attribute(name, index, self.budget),
                None => Ok(None),
            },
            Object::Macro { index, .. } if name == "name" => {
                Value::text(self.program.macros[index].name.as_str(), self.budget).map(Some)
            }
            Object::Cycler(index) => Ok(match name {
                "current" => Some(self.cyclers[index].0[self.cyclers[index].1].clone()),
                "next" => Some(Value::Object(Object::CyclerNext(index))),
                "reset" => Some(Value::Object(Object::CyclerReset(index))),
                _ => None,
            }),
            _ => Ok(None),
        }
    }

    fn call(&mut self, object: Object, args: Args) -> Result<Value> {
        match object {
            Object::Function(function) => self.call_function(function, args),
            Object::Macro { index, frame, serial } => self.call_macro(index, frame, serial, args),
            Object::Loop(index, serial) => {
                let [items] = args.bind("loop", ["iterable"])?;
                let living = self.living_loop(index, serial)?;
                let (node, depth, outer) = (living.node, living.depth, living.frame);
                crate::ensure!(node.recursive, "only a recursive loop can be called: add 'recursive' to its tag");
                let items = required(items, "loop", "iterable")?.iterate(self.budget)?;
                let items = self.those_that_hold(node, items)?;
                self.captured(|this| this.loop_over(node, items, depth + 1, outer).map(drop))
            }
            Object::LoopCycle(index, serial) => self.living_loop(index, serial)?.cycle(&args.positional),
            Object::LoopChanged(index, serial) => {
                let budget = self.budget;
                self.living_loop(index, serial)?.changed(args.positional, budget).map(Value::Bool)
            }
            Object::CyclerNext(index) => {
                let (values, at) = &mut self.cyclers[index];
                let value = values[*at].clone();
                *at = (*at + 1) % values.len();
                Ok(value)
            }
            Object::CyclerReset(index) => {
                self.cyclers[index].1 = 0;
                Ok(Value::None)
            }
            Object::Joiner(index) => match std::mem::replace(&mut self.joiners[index].1, true) {
                true => Ok(self.joiners[index].0.clone()),
                false => Value::text("", self.budget),
            },
            Object::Namespace(_) | Object::Cycler(_) => {
                crate::bail!("'{}' object is not callable", Value::Object(object).type_name())
            }
        }
    }
}
