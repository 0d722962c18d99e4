//! Questions of several lines: a line that ends in a backslash continues, and `"""` opens and closes
//! a block.

/// The mark of a block.
const BLOCK: &str = "\"\"\"";

/// Whether a text needs another line.
pub fn is_open(text: &str) -> bool {
    match block(text) {
        Some(inner) => !inner.contains(BLOCK),
        None => continues(text),
    }
}

/// Whether a line opens a block.
pub fn opens_block(line: &str) -> bool {
    block(line).is_some()
}

/// Whether a line within a block closes it; the first line also opens it.
pub fn closes_block(line: &str, is_first: bool) -> bool {
    let inner = if is_first { block(line).unwrap_or(line) } else { line };
    inner.contains(BLOCK)
}

/// What a block holds after its mark.
fn block(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix(BLOCK)
}

/// Whether a line ends in an odd number of backslashes.
pub fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|&b| b == b'\\').count() % 2 == 1
}

/// The text without the marks of blocks and continued lines. What follows the end of a block belongs
/// to the text.
pub fn unfold(text: &str) -> String {
    if let Some(inner) = block(text) {
        let (inside, after) = inner.split_once(BLOCK).unwrap_or((inner, ""));
        let inside = inside.strip_prefix('\n').unwrap_or(inside);
        let inside = inside.strip_suffix('\n').unwrap_or(inside);
        return format!("{inside}{}", after.trim_end());
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let last = lines.len() - 1;
    let unmarked = |(i, line): (usize, &&str)| match i < last && continues(line) {
        true => line[..line.len() - 1].to_string(),
        false => line.to_string(),
    };
    lines.iter().enumerate().map(unmarked).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_continue_until_they_are_closed() {
        for (text, open) in [
            ("a", false),
            ("a\\", true),
            ("a\\\\", false),
            ("a\\\nb", false),
            ("a\\\nb\\", true),
            ("\"\"\"", true),
            ("\"\"\"a\n\nb", true),
            ("\"\"\"a\n\"\"\"", false),
            ("\"\"\"a\"\"\" b", false),
            ("a \"\"\"", false),
            ("", false),
        ] {
            assert_eq!(is_open(text), open, "{text:?}");
        }
    }

    #[test]
    fn the_marks_are_no_part_of_the_text() {
        for (text, unfolded) in [
            ("a", "a"),
            ("a\\\nb", "a\nb"),
            ("a\\\nb\\\nc", "a\nb\nc"),
            ("a\nb", "a\nb"),
            ("\"\"\"\na\n\n/b\n\"\"\"", "a\n\n/b"),
            ("\"\"\"a\"\"\" b", "a b"),
            ("\"\"\"never closed", "never closed"),
            ("ends\\", "ends\\"),
            ("", ""),
        ] {
            assert_eq!(unfold(text), unfolded, "{text:?}");
        }
    }
}
