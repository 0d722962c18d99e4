//! Builds the file map of ARCHITECTURE.md from the first sentence of each file's `//!` comment.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The first sentence of a file's documentation, with links as plain text.
fn summary(text: &str) -> String {
    let lines = text.lines().map_while(|l| l.strip_prefix("//!")).map(str::trim);
    let paragraph = lines.take_while(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
    let sentence = paragraph.split_once(". ").map_or(paragraph.as_str(), |(first, _)| first);
    let mut out = String::new();
    let mut rest = sentence.trim_end_matches('.');
    // Replaces [`name`](path) and [`name`] by `name`.
    while let Some(at) = rest.find("[`") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = after.find(']').unwrap_or(after.len());
        out.push_str(&after[..end]);
        rest = after.get(end + 1..).unwrap_or("");
        if let Some(target) = rest.strip_prefix('(') {
            rest = target.split_once(')').map_or("", |(_, rest)| rest);
        }
    }
    out + rest
}

/// The text in lines of at most 100 columns; further lines are indented by two.
fn wrapped(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let n = word.chars().count();
        if column > 0 && column + 1 + n > 100 {
            out.push_str("\n ");
            column = 1;
        }
        if !out.is_empty() {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += n;
    }
    out
}

/// The map: a heading for each floor, and an entry for each folder (that of its `mod.rs`) and file
/// below it.
pub fn file_map(floors: &[&[&str]], sources: &BTreeMap<String, String>) -> String {
    let mut map = String::new();
    let mut put = |heading: &str, belongs: &dyn Fn(&str) -> bool| {
        let _ = write!(map, "\n### {heading}\n\n");
        for (path, text) in sources.iter().filter(|(path, _)| belongs(path)) {
            let path = path.trim_start_matches("src/");
            let path = path.strip_suffix("mod.rs").unwrap_or(path);
            let _ = writeln!(map, "{}", wrapped(&format!("- `{path}`: {}", summary(text))));
        }
    };
    put("On top", &|path| matches!(path, "src/lib.rs" | "src/main.rs"));
    for (n, floor) in floors.iter().enumerate() {
        put(&format!("Floor {n}: {}", floor.join(", ")), &|path| {
            floor.iter().any(|m| path == format!("src/{m}.rs") || path.starts_with(&format!("src/{m}/")))
        });
    }
    put("The lab", &|path| path.starts_with("lab/src/"));
    map
}
