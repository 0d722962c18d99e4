//! The arguments of a call, matched to the names of the parameters as Python does.

use super::value::Value;
use crate::error::Result;

/// The arguments of a call of a filter, a test, a method, a macro or a function.
#[derive(Clone, Debug, Default)]
pub struct Args {
    pub positional: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

impl Args {
    /// The arguments in the order of `names`, `None` where the call has none. Fails for arguments
    /// that fit no name.
    pub fn bind<const N: usize>(self, callee: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        crate::ensure!(
            self.positional.len() <= N,
            "{callee}() takes at most {N} arguments, but {} were given",
            self.positional.len()
        );
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = names.iter().position(|n| *n == name) else {
                crate::bail!("{callee}() got an unexpected keyword argument '{name}'");
            };
            crate::ensure!(bound[at].is_none(), "{callee}() got multiple values for argument '{name}'");
            bound[at] = Some(value);
        }
        Ok(bound)
    }
}

/// The argument, which must be there.
pub fn required(value: Option<Value>, callee: &str, name: &str) -> Result<Value> {
    value.ok_or_else(|| crate::error::Error::new(format!("{callee}() needs the argument '{name}'")))
}

/// The integer of an optional argument.
pub fn int_or(value: Option<Value>, name: &str, default: i128) -> Result<i128> {
    match value {
        None => Ok(default),
        Some(value) => match value.defined()?.as_int() {
            Some(n) => Ok(n),
            None => crate::bail!("the argument '{name}' must be an integer, not '{}'", value.type_name()),
        },
    }
}

/// The text of an optional argument.
pub fn text_or<'a>(value: &'a Option<Value>, name: &str, default: &'a str) -> Result<&'a str> {
    match value {
        None => Ok(default),
        Some(value) => match value.defined()?.as_str() {
            Some(text) => Ok(text),
            None => crate::bail!("the argument '{name}' must be a string, not '{}'", value.type_name()),
        },
    }
}

/// Whether an optional argument is true.
pub fn flag_or(value: &Option<Value>, default: bool) -> bool {
    value.as_ref().map_or(default, Value::is_true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_find_their_names() {
        let mut args = Args { positional: vec![Value::Int(1)], named: vec![("c".into(), Value::Int(3))] };
        let [a, b, c] = args.clone().bind("f", ["a", "b", "c"]).unwrap();
        assert_eq!((a.unwrap().as_int(), b.is_none(), c.unwrap().as_int()), (Some(1), true, Some(3)));
        let refused = |args: &Args, names| args.clone().bind::<2>("f", names).unwrap_err().to_string();
        assert!(refused(&args, ["a", "b"]).contains("unexpected keyword argument 'c'"));
        assert!(refused(&args, ["c", "b"]).contains("multiple values"));
        args.positional = vec![Value::None; 3];
        assert!(refused(&args, ["a", "b"]).contains("at most 2"));
    }
}
