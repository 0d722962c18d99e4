//! Helpers for the lints to inspect expressions of naga's intermediate representation.

use naga::{Arena, Expression, GlobalVariable, Handle, LocalVariable};

/// The base of a chain of accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// A variable of the function.
    Local(Handle<LocalVariable>),
    /// A variable of the module.
    Global(Handle<GlobalVariable>),
    /// An argument, a pointer or a value.
    Argument(u32),
    /// A computed value.
    Value,
}

/// Follows accesses back to the variable.
pub(super) fn root(expressions: &Arena<Expression>, mut e: Handle<Expression>) -> Root {
    loop {
        match expressions[e] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => e = base,
            Expression::LocalVariable(local) => return Root::Local(local),
            Expression::GlobalVariable(global) => return Root::Global(global),
            Expression::FunctionArgument(i) => return Root::Argument(i),
            _ => return Root::Value,
        }
    }
}

/// The operands of an expression; `None` if it is not computed from values alone (images, rays,
/// results of statements).
pub(super) fn operands(expression: &Expression) -> Option<Vec<Handle<Expression>>> {
    use Expression as E;
    Some(match expression {
        E::Literal(_) | E::Constant(_) | E::Override(_) | E::ZeroValue(_) => vec![],
        E::FunctionArgument(_) | E::GlobalVariable(_) | E::LocalVariable(_) => vec![],
        E::Compose { components, .. } => components.clone(),
        E::Access { base, index } => vec![*base, *index],
        E::AccessIndex { base: one, .. } | E::Splat { value: one, .. } | E::Swizzle { vector: one, .. } => vec![*one],
        E::Load { pointer: one } | E::Unary { expr: one, .. } | E::As { expr: one, .. } => vec![*one],
        E::Relational { argument, .. } => vec![*argument],
        E::Binary { left, right, .. } => vec![*left, *right],
        E::Select { condition, accept, reject } => vec![*condition, *accept, *reject],
        E::Math { arg, arg1, arg2, arg3, .. } => [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten().collect(),
        _ => return None,
    })
}

/// Whether two expressions are written the same way: the same operations on the same variables,
/// arguments and constants.
pub(super) fn alike(expressions: &Arena<Expression>, a: Handle<Expression>, b: Handle<Expression>) -> bool {
    if a == b {
        return true;
    }
    let (left, right) = (&expressions[a], &expressions[b]);
    let (Some(of_left), Some(of_right)) = (operands(left), operands(right)) else { return false };
    of_left.len() == of_right.len()
        && of_left.iter().zip(&of_right).all(|(l, r)| alike(expressions, *l, *r))
        && bare(left) == bare(right)
}

/// An expression's operation without its operands, as text.
fn bare(expression: &Expression) -> String {
    use Expression as E;
    match expression {
        E::Access { .. } => "access".to_string(),
        E::AccessIndex { index, .. } => format!("member {index}"),
        E::Splat { size, .. } => format!("splat {size:?}"),
        E::Swizzle { size, pattern, .. } => format!("swizzle {size:?} {pattern:?}"),
        E::Load { .. } => "load".to_string(),
        E::Unary { op, .. } => format!("{op:?}"),
        E::Binary { op, .. } => format!("{op:?}"),
        E::As { kind, convert, .. } => format!("as {kind:?} {convert:?}"),
        E::Relational { fun, .. } => format!("{fun:?}"),
        E::Select { .. } => "select".to_string(),
        E::Math { fun, .. } => format!("{fun:?}"),
        E::Compose { ty, .. } => format!("compose {ty:?}"),
        leaf => format!("{leaf:?}"),
    }
}
