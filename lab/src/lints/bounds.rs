//! Bounds of a value, derived within one expression from constants, min, max and clamp.

use naga::{BinaryOperator, Expression, Function, Handle, Literal, MathFunction, Module, ScalarKind, UnaryOperator};

use super::ir::{alike, operands};

/// A range that contains every component of a value; infinite if unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) low: f64,
    pub(super) high: f64,
}

/// The unbounded range.
const ALL: Bounds = Bounds { low: f64::NEG_INFINITY, high: f64::INFINITY };

impl Bounds {
    fn exactly(value: f64) -> Self {
        Self { low: value, high: value }
    }

    fn union(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    fn min(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.min(other.high) }
    }

    fn max(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.max(other.high) }
    }

    fn negated(self) -> Self {
        Self { low: -self.high, high: -self.low }
    }

    fn plus(self, other: Self) -> Self {
        Self { low: self.low + other.low, high: self.high + other.high }
    }

    fn times(self, other: Self) -> Self {
        // Zero times an unknown finite value is zero.
        let product = |a: f64, b: f64| if a == 0.0 || b == 0.0 { 0.0 } else { a * b };
        let corners = [(self.low, other.low), (self.low, other.high), (self.high, other.low), (self.high, other.high)];
        corners.into_iter().map(|(a, b)| Self::exactly(product(a, b))).reduce(Self::union).unwrap_or(ALL)
    }
}

/// The bounds of an expression of a function.
pub(super) fn bounds(module: &Module, function: &Function, e: Handle<Expression>) -> Bounds {
    let of = |e: Handle<Expression>| bounds(module, function, e);
    let expressions = &function.expressions;
    match &expressions[e] {
        Expression::Constant(c) => global_bounds(module, module.constants[*c].init),
        Expression::Literal(_) | Expression::ZeroValue(_) => constant_bounds(&expressions[e]),
        Expression::Splat { value, .. } => of(*value),
        Expression::Swizzle { vector, .. } => of(*vector),
        Expression::AccessIndex { base, .. } | Expression::Access { base, .. } => match &expressions[*base] {
            Expression::Math { .. } | Expression::Splat { .. } | Expression::Binary { .. } => of(*base),
            _ => ALL,
        },
        Expression::Compose { components, .. } => {
            components.iter().map(|c| of(*c)).reduce(Bounds::union).unwrap_or(ALL)
        }
        Expression::Unary { op: UnaryOperator::Negate, expr } => of(*expr).negated(),
        Expression::Select { accept, reject, .. } => of(*accept).union(of(*reject)),
        Expression::Binary { op, left, right } => match op {
            BinaryOperator::Add => of(*left).plus(of(*right)),
            BinaryOperator::Subtract => difference(module, function, *left, *right),
            BinaryOperator::Multiply if alike(expressions, *left, *right) => {
                Bounds { low: 0.0, ..of(*left).times(of(*right)) }
            }
            BinaryOperator::Multiply => of(*left).times(of(*right)),
            _ => ALL,
        },
        Expression::Math { fun, arg, arg1, arg2, .. } => {
            let second = arg1.map_or(ALL, of);
            match fun {
                MathFunction::Min => of(*arg).min(second),
                MathFunction::Max => of(*arg).max(second),
                MathFunction::Clamp => of(*arg).max(second).min(arg2.map_or(ALL, of)),
                MathFunction::Saturate | MathFunction::Fract => Bounds { low: 0.0, high: 1.0 },
                MathFunction::Sin | MathFunction::Cos | MathFunction::Tanh => Bounds { low: -1.0, high: 1.0 },
                MathFunction::Abs => {
                    let Bounds { low, high } = of(*arg);
                    Bounds { low: 0.0, high: high.max(-low) }
                }
                MathFunction::Exp | MathFunction::Exp2 | MathFunction::Sqrt => Bounds { low: 0.0, ..ALL },
                _ => ALL,
            }
        }
        // The conversion to float keeps an integer's bounds.
        Expression::As { expr, kind: ScalarKind::Float, convert: Some(_) } => of(*expr),
        _ => ALL,
    }
}

/// Bounds of a - b: at most 0 if b is the maximum of a and something else, at least 0 if b is the
/// minimum.
fn difference(module: &Module, function: &Function, a: Handle<Expression>, b: Handle<Expression>) -> Bounds {
    let plain = bounds(module, function, a).plus(bounds(module, function, b).negated());
    let Expression::Math { fun, .. } = function.expressions[b] else { return plain };
    let includes = operands(&function.expressions[b])
        .is_some_and(|operands| operands.into_iter().any(|o| alike(&function.expressions, o, a)));
    match fun {
        MathFunction::Max if includes => Bounds { high: plain.high.min(0.0), ..plain },
        MathFunction::Min if includes => Bounds { low: plain.low.max(0.0), ..plain },
        _ => plain,
    }
}

fn global_bounds(module: &Module, e: Handle<Expression>) -> Bounds {
    match &module.global_expressions[e] {
        Expression::Constant(c) => global_bounds(module, module.constants[*c].init),
        Expression::Splat { value, .. } => global_bounds(module, *value),
        Expression::Compose { components, .. } => {
            components.iter().map(|c| global_bounds(module, *c)).reduce(Bounds::union).unwrap_or(ALL)
        }
        other => constant_bounds(other),
    }
}

fn constant_bounds(expression: &Expression) -> Bounds {
    match *expression {
        Expression::ZeroValue(_) => Bounds::exactly(0.0),
        Expression::Literal(Literal::F32(x)) => Bounds::exactly(x.into()),
        Expression::Literal(Literal::F16(x)) => Bounds::exactly(x.into()),
        Expression::Literal(Literal::F64(x)) => Bounds::exactly(x),
        Expression::Literal(Literal::U32(x)) => Bounds::exactly(x.into()),
        Expression::Literal(Literal::I32(x)) => Bounds::exactly(x.into()),
        _ => ALL,
    }
}
