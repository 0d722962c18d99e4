//! Floating-point lints: unbounded exponentials, use of Inf and NaN, float atomics.

use naga::{Arena, BinaryOperator, Expression, Handle, Literal, MathFunction, Module, ScalarKind, Span};

use super::bounds::bounds;
use super::ir::alike;
use super::rule::Rule;

/// All violations of the floating-point rules: rule, place and description.
pub(super) fn float_violations(module: &Module) -> Vec<(Rule, Span, String)> {
    let mut found = Vec::new();
    for (handle, variable) in module.global_variables.iter() {
        if has_float_atomic(module, variable.ty) {
            let what = format!("{} holds atomic floats", variable.name.as_deref().unwrap_or("a variable"));
            found.push((Rule::FloatAtomic, module.global_variables.get_span(handle), what));
        }
    }
    for (handle, _) in module.global_expressions.iter() {
        let span = module.global_expressions.get_span(handle);
        found.extend(non_finite(&module.global_expressions, handle).map(|what| (Rule::NotFinite, span, what)));
    }
    let entries = module.entry_points.iter().map(|e| &e.function);
    for function in module.functions.iter().map(|(_, f)| f).chain(entries) {
        for (handle, _) in function.expressions.iter() {
            let span = function.expressions.get_span(handle);
            let exponential = raw_exponential(module, function, handle).map(|what| (Rule::RawExponential, span, what));
            let special = non_finite(&function.expressions, handle)
                .or_else(|| comparison(module, &function.expressions, handle))
                .map(|what| (Rule::NotFinite, span, what));
            found.extend(exponential.into_iter().chain(special));
        }
    }
    found
}

/// Reports an exponential without a visible bound below its f32 overflow limit: 88 for exp, 127 for
/// exp2 and the exponent of pow. Some devices compute tanh from exp(2x).
fn raw_exponential(module: &Module, function: &naga::Function, e: Handle<Expression>) -> Option<String> {
    let Expression::Math { fun, arg, arg1, .. } = function.expressions[e] else { return None };
    let of = bounds(module, function, arg);
    let within = |limit: f64| of.high <= limit && of.low >= -limit;
    let (name, is_safe) = match fun {
        MathFunction::Exp => ("exp", of.high <= 88.0),
        MathFunction::Exp2 => ("exp2", of.high <= 127.0),
        MathFunction::Sinh => ("sinh", within(88.0)),
        MathFunction::Cosh => ("cosh", within(88.0)),
        MathFunction::Tanh => ("tanh", within(44.0)),
        MathFunction::Pow => {
            let by = arg1.map(|e| bounds(module, function, e))?;
            let log = of.low.log2().abs().max(of.high.log2().abs());
            ("pow", of.low > 0.0 && log * by.low.abs().max(by.high.abs()) <= 127.0)
        }
        _ => return None,
    };
    (!is_safe).then(|| format!("{name} of an argument that is not visibly bounded: clamp it"))
}

/// Reports a constant that is Inf or NaN, including by bit pattern.
fn non_finite(expressions: &Arena<Expression>, e: Handle<Expression>) -> Option<String> {
    match expressions[e] {
        Expression::Literal(Literal::F32(x)) if !x.is_finite() => Some(format!("the constant {x}")),
        Expression::Literal(Literal::F16(x)) if !x.is_finite() => Some(format!("the constant {x}")),
        Expression::Literal(Literal::F64(x)) if x.is_nan() || x.abs() > f64::from(f32::MAX) => {
            Some(format!("the constant {x}"))
        }
        Expression::As { expr, kind: ScalarKind::Float, convert: None } => {
            let bits = bits(expressions, expr)?;
            (!f32::from_bits(bits).is_finite()).then(|| format!("the bits {bits:#x} as a float"))
        }
        _ => None,
    }
}

/// The bits of an integer constant.
fn bits(expressions: &Arena<Expression>, e: Handle<Expression>) -> Option<u32> {
    match expressions[e] {
        Expression::Literal(Literal::U32(bits)) => Some(bits),
        Expression::Literal(Literal::I32(bits)) => Some(bits as u32),
        Expression::Splat { value, .. } => bits(expressions, value),
        _ => None,
    }
}

/// Reports a comparison that only detects NaN or Inf: a float with itself, or its bits with those
/// of Inf or NaN.
fn comparison(module: &Module, expressions: &Arena<Expression>, e: Handle<Expression>) -> Option<String> {
    use BinaryOperator as B;
    let Expression::Binary { op, left, right } = expressions[e] else { return None };
    if !matches!(op, B::Equal | B::NotEqual | B::Less | B::LessEqual | B::Greater | B::GreaterEqual) {
        return None;
    }
    if matches!(op, B::Equal | B::NotEqual) && alike(expressions, left, right) {
        return Some("a value compared with itself, which only detects NaN".to_string());
    }
    let constant = |e: Handle<Expression>| match expressions[e] {
        Expression::Constant(c) => bits(&module.global_expressions, module.constants[c].init),
        _ => bits(expressions, e),
    };
    let exponent = |bits: u32| bits != u32::MAX && bits & 0x7f80_0000 == 0x7f80_0000 && bits & 0x003f_ffff == 0;
    let found = [left, right].into_iter().filter_map(constant).find(|bits| exponent(*bits))?;
    Some(format!("a comparison with {found:#x}, the bits of Inf or NaN"))
}

fn has_float_atomic(module: &Module, ty: Handle<naga::Type>) -> bool {
    match &module.types[ty].inner {
        naga::TypeInner::Atomic(scalar) => scalar.kind == ScalarKind::Float,
        naga::TypeInner::Array { base, .. } => has_float_atomic(module, *base),
        naga::TypeInner::Struct { members, .. } => members.iter().any(|m| has_float_atomic(module, m.ty)),
        _ => false,
    }
}
