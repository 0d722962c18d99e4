//! Faults within an expression: operators, operands, numbers, built-in functions, components.

use longreach::verify::wgsl_code::{Code, Edit, Kind};

use super::operand::{binary_level, left_start, right_end};

/// All expression faults.
pub(super) fn edits(code: &Code) -> Vec<Edit> {
    let mut found = Vec::new();
    for i in code.live() {
        match code.tokens[i].kind {
            Kind::Number => numbers(code, i, &mut found),
            Kind::Word => words(code, i, &mut found),
            Kind::Sign => signs(code, i, &mut found),
        }
    }
    found
}

/// Replacements for an operator between two operands.
fn other_signs(sign: &str) -> &'static [&'static str] {
    match sign {
        "+" => &["-"],
        "-" => &["+"],
        "*" => &["/"],
        "/" => &["*", "%"],
        "%" => &["/"],
        "<" => &["<=", ">"],
        "<=" => &["<", ">"],
        ">" => &[">=", "<"],
        ">=" => &[">", "<"],
        "==" => &["!="],
        "!=" => &["=="],
        "&&" => &["||"],
        "||" => &["&&"],
        "<<" => &[">>"],
        ">>" => &["<<"],
        "&" => &["|"],
        "|" => &["&"],
        "^" => &["|"],
        _ => &[],
    }
}

fn signs(code: &Code, i: usize, found: &mut Vec<Edit>) {
    let sign = code.at(i);
    let range = code.bytes(i..i + 1);
    if binary_level(code, i).is_none() {
        let unary = ["-", "!", "~"].contains(&sign) && i > 0 && !code.ends_operand(i - 1);
        if unary {
            found.push(Edit::one("drop a sign", range, ""));
        }
        return;
    }
    for other in other_signs(sign) {
        found.push(Edit::one("swap an operator", range.clone(), *other));
    }
    let (left, right) = (left_start(code, i), right_end(code, i));
    if ["<", "<=", ">", ">="].contains(&sign) {
        found.push(Edit::one("move a limit", range.start..range.start, "+ 1u "));
    } else if !["==", "!="].contains(&sign) {
        found.push(Edit::one("drop an operand", code.tokens[i - 1].end()..code.tokens[right - 1].end(), ""));
        found.push(Edit::one("drop an operand", code.tokens[left].start..code.tokens[i + 1].start, ""));
    }
}

fn numbers(code: &Code, i: usize, found: &mut Vec<Edit>) {
    let text = code.at(i);
    let range = code.bytes(i..i + 1);
    for new in other_numbers(text) {
        found.push(Edit::one("change a number", range.clone(), new));
    }
}

/// Replacements for a number: 0 and 1 for each other, others changed by one and by a factor of two.
fn other_numbers(text: &str) -> Vec<String> {
    let (digits, suffix) = match text.strip_suffix(['u', 'i']) {
        Some(digits) if !text.starts_with("0x") || text.ends_with('u') => (digits, &text[text.len() - 1..]),
        _ => (text, ""),
    };
    let integer = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse::<u64>().ok(),
    };
    if let Some(n) = integer {
        let others = match n {
            0 => vec![1],
            1 => vec![0, 2],
            n => vec![n - 1, n + 1, 2 * n],
        };
        return others.into_iter().filter(|&n| n <= u64::from(u32::MAX)).map(|n| format!("{n}{suffix}")).collect();
    }
    match digits.trim_end_matches('f').parse::<f64>() {
        Ok(0.0) => vec!["1.0".into()],
        Ok(1.0) => vec!["0.0".into(), "2.0".into()],
        Ok(x) => vec![format!("{:?}", 2.0 * x), format!("{:?}", 0.5 * x)],
        Err(_) => vec![],
    }
}

/// Built-in functions of one argument that a fault may remove.
const LEFT_OUT: &[&str] = &["sqrt", "exp", "log", "ceil", "floor", "inverseSqrt", "abs"];

fn words(code: &Code, i: usize, found: &mut Vec<Edit>) {
    let word = code.at(i);
    let after_dot = i > 0 && code.at(i - 1) == ".";
    if after_dot {
        let other = match word {
            "x" | "z" | "w" => "y",
            "y" => "x",
            _ => return,
        };
        found.push(Edit::one("take another component", code.bytes(i..i + 1), other));
        return;
    }
    if code.at(i + 1) != "(" {
        return;
    }
    let arguments = code.arguments(i + 1);
    let whole = code.tokens[i].start..code.tokens[code.partner(i + 1)].end();
    let source = |k: usize| code.source(arguments[k].clone());
    match word {
        "min" | "max" => {
            let other = if word == "min" { "max" } else { "min" };
            found.push(Edit::one("swap min and max", code.bytes(i..i + 1), other));
            for k in 0..2 {
                found.push(Edit::one("drop a clamp", whole.clone(), format!("({})", source(k))));
            }
        }
        "clamp" => {
            let (x, low, high) = (source(0), source(1), source(2));
            for new in [format!("({x})"), format!("max({x}, {low})"), format!("min({x}, {high})")] {
                found.push(Edit::one("drop a clamp", whole.clone(), new));
            }
        }
        "select" => {
            let (no, yes, condition) = (source(0), source(1), source(2));
            for new in [format!("select({yes}, {no}, {condition})"), format!("({no})"), format!("({yes})")] {
                found.push(Edit::one("choose otherwise", whole.clone(), new));
            }
        }
        _ if LEFT_OUT.contains(&word) => {
            found.push(Edit::one("leave out a function", code.bytes(i..i + 1), ""));
        }
        _ => {}
    }
}
