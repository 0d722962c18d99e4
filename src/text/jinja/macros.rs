//! Calls macros: assigns arguments to parameters, and returns the text that the body writes.

use super::args::Args;
use super::interpreter::Interpreter;
use super::value::{Dict, Object, Value};
use crate::error::Result;

impl Interpreter<'_> {
    /// A macro of the program, declared in the current frame.
    pub(super) fn macro_value(&self, index: usize) -> Value {
        let serial = self.frames[self.current].serial;
        Value::Object(Object::Macro { index, frame: self.current, serial })
    }

    /// Calls a macro: the text that its body writes.
    pub(super) fn call_macro(&mut self, index: usize, frame: usize, serial: u64, mut args: Args) -> Result<Value> {
        let declared = &self.program.macros[index];
        let name = &declared.name;
        // The frame of a macro that outlived its loop or block is gone.
        let alive = self.frames.get(frame).is_some_and(|frame| frame.serial == serial);
        self.captured(|this| {
            this.framed(if alive { frame } else { 0 }, |this| {
                let extra = args.positional.split_off(args.positional.len().min(declared.params.len()));
                let mut given = args.positional.into_iter();
                for (param, default) in &declared.params {
                    let param_name = &this.program.names[*param as usize];
                    let by_name = args.named.iter().position(|(name, _)| name == param_name);
                    let value = match (given.next(), by_name, default) {
                        (Some(_), Some(_), _) => {
                            crate::bail!("macro '{name}' got multiple values for argument '{param_name}'")
                        }
                        (Some(value), None, _) => value,
                        (None, Some(at), _) => args.named.remove(at).1,
                        (None, None, Some(default)) => this.evaluate(default)?,
                        (None, None, None) => {
                            Value::undefined(format!("parameter '{param_name}' was not provided"), this.budget)?
                        }
                    };
                    this.set(*param, value)?;
                }
                if let Some(caller) = declared.caller {
                    let at = args.named.iter().position(|(name, _)| name == "caller");
                    let value = match at {
                        Some(at) => args.named.remove(at).1,
                        None => Value::undefined("No caller defined", this.budget)?,
                    };
                    this.set(caller, value)?;
                }
                match declared.varargs {
                    Some(varargs) => {
                        let extra = Value::tuple(extra, this.budget)?;
                        this.set(varargs, extra)?;
                    }
                    None => {
                        let n = declared.params.len();
                        crate::ensure!(extra.is_empty(), "macro '{name}' takes not more than {n} argument(s)");
                    }
                }
                match (declared.kwargs, args.named.first()) {
                    (Some(kwargs), _) => {
                        let pair = |(name, value): (String, Value)| Ok((Value::text(name, this.budget)?, value));
                        let pairs = args.named.into_iter().map(pair).collect::<Result<_>>()?;
                        let named = Value::Dict(Dict::new(pairs, this.budget)?);
                        this.set(kwargs, named)?;
                    }
                    (None, Some((extra, _))) => crate::bail!("macro '{name}' takes no keyword argument '{extra}'"),
                    (None, None) => {}
                }
                this.body(&declared.body)
            })
        })
    }
}
