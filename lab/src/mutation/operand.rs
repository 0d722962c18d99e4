//! Finds the operands of a binary operator by WGSL's precedence.

use longreach::verify::wgsl_code::Code;

/// The precedence of a binary operator; `None` for other tokens.
fn level(sign: &str) -> Option<u32> {
    Some(match sign {
        "*" | "/" | "%" => 9,
        "+" | "-" => 8,
        "<<" | ">>" => 7,
        "<" | "<=" | ">" | ">=" => 6,
        "==" | "!=" => 5,
        "&" => 4,
        "^" => 3,
        "|" => 2,
        "&&" => 1,
        "||" => 0,
        _ => return None,
    })
}

/// The precedence of the token if it is an operator between two operands.
pub(super) fn binary_level(code: &Code, i: usize) -> Option<u32> {
    let live = !code.tokens[i].inert && i > 0 && code.ends_operand(i - 1);
    if live { level(code.at(i)) } else { None }
}

fn ends_expression(text: &str) -> bool {
    matches!(text, ")" | "]" | "{" | "}" | "," | ";" | "") || text.ends_with('=') && level(text).is_none()
}

/// Index of the first token after the right operand of the binary operator at `i`.
pub(super) fn right_end(code: &Code, i: usize) -> usize {
    let own = binary_level(code, i).unwrap_or(0);
    let mut j = i + 1;
    while !ends_expression(code.at(j)) && binary_level(code, j).is_none_or(|l| l > own) {
        j = code.partner(j).max(j) + 1;
    }
    j
}

/// Index of the first token of the left operand of the binary operator at `i`.
pub(super) fn left_start(code: &Code, i: usize) -> usize {
    let own = binary_level(code, i).unwrap_or(0);
    let mut j = i;
    while j > 0 {
        let before = code.partner(j - 1).min(j - 1);
        let text = code.at(j - 1);
        let opens = matches!(text, "(" | "[" | "{" | "}" | "," | ";" | "return" | "if" | "for");
        let assigns = text.ends_with('=') && level(text).is_none();
        if opens || assigns || binary_level(code, j - 1).is_some_and(|l| l < own) {
            break;
        }
        j = before;
    }
    j
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_follow_precedence() {
        let code = Code::new("fn f() { let x = a + b[i + 1] * -g(c, d) - e; if x < 3 && y == 2 { z = 1; } }");
        let operands = |sign: &str, nth: usize| {
            let i = code.live().filter(|&i| code.at(i) == sign && binary_level(&code, i).is_some()).nth(nth).unwrap();
            (code.source(left_start(&code, i)..i), code.source(i + 1..right_end(&code, i)))
        };
        assert_eq!(operands("+", 0), ("a", "b[i + 1] * -g(c, d)"));
        assert_eq!(operands("*", 0), ("b[i + 1]", "-g(c, d)"));
        assert_eq!(operands("-", 0), ("a + b[i + 1] * -g(c, d)", "e"));
        assert_eq!(operands("&&", 0), ("x < 3", "y == 2"));
    }
}
