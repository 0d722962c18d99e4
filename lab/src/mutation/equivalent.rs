//! The list of equivalent mutants, which no test can detect, with reasons: `equivalent.txt`.

use longreach::error::{Error, Result};

const TEXT: &str = include_str!("equivalent.txt");

/// One entry of the list.
#[derive(Clone, Debug)]
pub(super) struct Equivalent {
    /// Line in `equivalent.txt`, from 1.
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) reason: String,
}

/// Parses the list.
pub(super) fn equivalents() -> Result<Vec<Equivalent>> {
    parse(TEXT)
}

/// A line that starts with `= ` is the reason for the entries after it, `path: before → after`,
/// until the next reason.
fn parse(text: &str) -> Result<Vec<Equivalent>> {
    let (mut found, mut reason) = (Vec::new(), "");
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(text) = line.strip_prefix("= ") {
            reason = text;
            continue;
        }
        let Some(change) = change_of(line).filter(|_| !reason.is_empty()) else {
            return Err(Error::new(format!("equivalent.txt:{}: not `path: before → after` under a reason", i + 1)));
        };
        let [path, before, after] = change.map(str::to_string);
        let reason = reason.to_string();
        found.push(Equivalent { line: i + 1, path, before, after, reason });
    }
    Ok(found)
}

/// Splits `path: before → after` into its three parts.
pub(super) fn change_of(line: &str) -> Option<[&str; 3]> {
    let (path, change) = line.split_once(": ")?;
    let (before, after) = change.split_once(" →")?;
    Some([path, before, after.trim_start()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_take_the_reason_above_them() {
        let list = parse("# a comment\n= It is 0 anyway.\na/b: x = 0; →\na/b: y → z\n").unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].after.as_str(), list[1].after.as_str(), list[1].line), ("", "z", 4));
        assert!(list.iter().all(|e| e.reason == "It is 0 anyway."));
        for wrong in ["a/b: x → y", "= Why\na/b x → y", "= Why\na/b: x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
