//! Faults in statements: dropped statements, guards, loops, accumulation, off-by-one errors.

use std::ops::Range;

use longreach::verify::wgsl_code::{Code, Edit, Kind};

/// All statement faults.
pub(super) fn edits(code: &Code) -> Vec<Edit> {
    let mut found = Vec::new();
    for i in code.live() {
        match code.at(i) {
            "if" => condition(code, i, &mut found),
            "break" => jump(code, i, "continue", &mut found),
            "continue" => jump(code, i, "break", &mut found),
            "for" => step(code, i, &mut found),
            "let" | "var" => initialiser(code, i, &mut found),
            "[" if i > 0 && code.ends_operand(i - 1) => {
                let inner = i + 1..code.partner(i);
                found.push(Edit::one("shift an index", code.bytes(inner.clone()), plus_one(code, inner)));
            }
            _ => {}
        }
        accumulation(code, i, &mut found);
        if code.tokens[i].kind == Kind::Word && code.functions.contains(code.at(i)) && code.at(i + 1) == "(" {
            arguments(code, i + 1, &mut found);
        }
    }
    found.extend(statements(code).into_iter().filter_map(|s| dropped(code, s)));
    found
}

fn plus_one(code: &Code, tokens: Range<usize>) -> String {
    let single = tokens.len() == 1;
    let inner = code.source(tokens);
    if single { format!("{inner} + 1u") } else { format!("({inner}) + 1u") }
}

/// Makes the condition of an `if` constant, which removes the guard or the guarded code.
fn condition(code: &Code, i: usize, found: &mut Vec<Edit>) {
    let mut end = i + 1;
    while code.at(end) != "{" {
        end = code.partner(end).max(end) + 1;
    }
    for value in ["true", "false"] {
        found.push(Edit::one("decide a condition", code.bytes(i + 1..end), value));
    }
}

fn jump(code: &Code, i: usize, other: &str, found: &mut Vec<Edit>) {
    found.push(Edit::one("change a jump", code.bytes(i..i + 1), other));
    found.push(Edit::one("change a jump", code.bytes(i..i + 2), ""));
}

/// Increases the step of a loop.
fn step(code: &Code, i: usize, found: &mut Vec<Edit>) {
    let close = code.partner(i + 1);
    if code.at(close - 1) == "++" {
        found.push(Edit::one("change a step", code.bytes(close - 1..close), " += 2u"));
    } else if let Some(sign) = (i..close).rev().find(|&j| code.at(j) == "+=") {
        let range = sign + 1..close;
        found.push(Edit::one("change a step", code.bytes(range.clone()), plus_one(code, range)));
    }
}

/// Changes a variable's initial value by one. Plain numbers have their own faults.
fn initialiser(code: &Code, i: usize, found: &mut Vec<Edit>) {
    let Some(equals) = (i..code.tokens.len()).take_while(|&j| code.at(j) != ";").find(|&j| code.at(j) == "=") else {
        return;
    };
    let mut end = equals + 1;
    while code.at(end) != ";" {
        end = code.partner(end).max(end) + 1;
    }
    if end - equals > 2 || code.tokens[equals + 1].kind != Kind::Number {
        let range = equals + 1..end;
        found.push(Edit::one("shift a value", code.bytes(range.clone()), plus_one(code, range)));
    }
}

/// Replaces `+=` and similar operators by `=` or by the opposite operator.
fn accumulation(code: &Code, i: usize, found: &mut Vec<Edit>) {
    let opposite = match code.at(i) {
        "+=" => "-=",
        "-=" => "+=",
        "*=" => "/=",
        "/=" => "*=",
        "<<=" | ">>=" => "=",
        _ => return,
    };
    let range = code.bytes(i..i + 1);
    found.push(Edit::one("swap an operator", range.clone(), opposite));
    // A loop whose step overwrites its variable rarely ends, and a hung device says nothing about
    // the cases.
    if !in_loop_head(code, i) {
        found.push(Edit::one("overwrite instead of accumulate", range, "="));
    }
}

fn in_loop_head(code: &Code, i: usize) -> bool {
    let heads = code.live().filter(|&j| code.at(j) == "for").map(|j| j + 1);
    heads.into_iter().any(|open| (open..code.partner(open)).contains(&i))
}

/// Changes arguments of the file's own functions by one, and swaps neighbouring arguments.
fn arguments(code: &Code, open: usize, found: &mut Vec<Edit>) {
    let list = code.arguments(open);
    for argument in &list {
        found.push(Edit::one("shift an argument", code.bytes(argument.clone()), plus_one(code, argument.clone())));
    }
    for pair in list.windows(2) {
        let [a, b] = [code.source(pair[0].clone()), code.source(pair[1].clone())];
        if a != b {
            let replacements = vec![(code.bytes(pair[0].clone()), b.into()), (code.bytes(pair[1].clone()), a.into())];
            found.push(Edit { operator: "swap arguments", replacements });
        }
    }
}

/// The statements of all functions that end with a semicolon.
fn statements(code: &Code) -> Vec<Range<usize>> {
    let (mut found, mut first, mut i) = (Vec::new(), None, 0);
    while i < code.tokens.len() {
        let outside = code.tokens[i].inert;
        match code.at(i) {
            "{" | "}" => first = Some(i + 1),
            ";" => {
                if let Some(first) = first.filter(|&f| f < i && !outside) {
                    found.push(first..i + 1);
                }
                first = Some(i + 1);
            }
            "(" | "[" => i = code.partner(i),
            _ => {}
        }
        i += 1;
    }
    found
}

/// Drops assignments and calls; declarations and jumps have their own faults.
fn dropped(code: &Code, statement: Range<usize>) -> Option<Edit> {
    let words = ["let", "var", "const", "return", "break", "continue", "@", "struct", "override"];
    let first = code.at(statement.start);
    if words.contains(&first) {
        return None;
    }
    let operator = if first.ends_with("Barrier") { "drop a barrier" } else { "drop a statement" };
    Some(Edit::one(operator, code.bytes(statement), ""))
}
