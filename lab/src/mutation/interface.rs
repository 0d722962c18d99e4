//! Faults in a kernel's interface: swapped bindings and parameters.

use longreach::verify::wgsl_code::{Code, Edit, Kind};

/// A storage variable in the text.
struct Variable<'a> {
    name: &'a str,
    /// Address space and access, and element type, as written.
    kind: (&'a str, &'a str),
    /// Token index of its binding number.
    number: usize,
}

/// All interface faults. `params` is the file that declares the parameters, if that is another one.
pub(super) fn edits(code: &Code, params: &Code) -> Vec<Edit> {
    let variables = variables(code);
    let mut found = swapped_bindings(code, &variables);
    for i in code.live().filter(|&i| code.tokens[i].kind == Kind::Word) {
        wrong_buffer(code, &variables, i, &mut found);
    }
    wrong_parameters(code, &members(params), &mut found);
    found
}

/// `@binding(N) var<storage, access> name: type;`
fn variables<'a>(code: &Code<'a>) -> Vec<Variable<'a>> {
    let mut found = Vec::new();
    for i in 0..code.tokens.len() {
        if code.at(i) != "binding" || code.at(i + 4) != "var" {
            continue;
        }
        let find = |sign: &str, from: usize| (from..code.tokens.len()).find(|&j| code.at(j) == sign).unwrap_or(from);
        let colon = find(":", i);
        let kind = (code.source(i + 4..colon - 1), code.source(colon + 1..find(";", colon)));
        found.push(Variable { name: code.at(colon - 1), kind, number: i + 2 });
    }
    found
}

fn swapped_bindings(code: &Code, variables: &[Variable]) -> Vec<Edit> {
    let mut found = Vec::new();
    for (k, a) in variables.iter().enumerate() {
        for b in variables[k + 1..].iter().filter(|b| b.kind == a.kind) {
            let [first, second] = [a.number, b.number].map(|n| code.bytes(n..n + 1));
            let replacements = vec![(first, code.at(b.number).into()), (second, code.at(a.number).into())];
            found.push(Edit { operator: "swap bindings", replacements });
        }
    }
    found
}

/// Redirects one access to another buffer of the same type and access.
fn wrong_buffer(code: &Code, variables: &[Variable], i: usize, found: &mut Vec<Edit>) {
    let Some(own) = variables.iter().position(|v| v.name == code.at(i)) else { return };
    if code.at(i + 1) != "[" {
        return;
    }
    let others = variables[own + 1..].iter().chain(&variables[..own]);
    if let Some(other) = others.into_iter().find(|v| v.kind == variables[own].kind) {
        found.push(Edit::one("take another buffer", code.bytes(i..i + 1), other.name));
    }
}

/// Names and types of the members of `Params`; empty if the text does not declare it.
fn members<'a>(code: &Code<'a>) -> Vec<(&'a str, &'a str)> {
    let declares = |i: &usize| code.at(*i) == "struct" && code.at(i + 1) == "Params";
    let Some(start) = (0..code.tokens.len()).find(declares) else { return Vec::new() };
    let body = start + 3..code.partner(start + 2);
    body.filter(|&i| code.at(i) == ":").map(|i| (code.at(i - 1), code.at(i + 1))).collect()
}

/// Replaces each use of a parameter by the next parameter of the same type.
fn wrong_parameters(code: &Code, members: &[(&str, &str)], found: &mut Vec<Edit>) {
    for i in code.live().filter(|&i| code.at(i) == "p" && code.at(i + 1) == ".") {
        let Some(own) = members.iter().position(|(name, _)| *name == code.at(i + 2)) else { continue };
        let mut others = members[own + 1..].iter().chain(&members[..own]);
        if let Some((other, _)) = others.find(|(_, ty)| *ty == members[own].1) {
            found.push(Edit::one("take another parameter", code.bytes(i + 2..i + 3), *other));
        }
    }
}
