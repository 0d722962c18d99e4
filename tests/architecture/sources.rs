//! Reads the sources for the architecture tests, with and without comments and tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The repository root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files under `dir` with this extension: paths from the repository root, sorted, with their
/// texts.
pub fn files(dir: &str, ending: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == ending) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn is_test_file(path: &str) -> bool {
    let stem = Path::new(path).file_stem().and_then(|s| s.to_str()).unwrap_or("");
    stem.ends_with("_tests") || stem.starts_with("test_")
}

/// The text without comments and without items under `#[cfg(test)]`; line numbers stay. Relies on
/// rustfmt's layout: an item ends with a line that has the indentation of its first line.
pub fn product_code(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let indent = line.len() - line.trim_start().len();
            out.push('\n');
            for skipped in lines.by_ref() {
                out.push('\n');
                let body = skipped.trim_start();
                let ends = body.starts_with('}') || body.ends_with(';') || body.ends_with("{}");
                if skipped.len() - body.len() == indent && ends {
                    break;
                }
            }
            continue;
        }
        let comment = line.match_indices("//").find(|(at, _)| line[..*at].matches('"').count() % 2 == 0);
        out.push_str(comment.map_or(line, |(at, _)| &line[..at]));
        out.push('\n');
    }
    out
}

/// The code of all files below `src/`, without test files.
pub fn product() -> BTreeMap<String, String> {
    let all = files("src", "rs").into_iter();
    all.filter(|(path, _)| !is_test_file(path)).map(|(path, text)| (path, product_code(&text))).collect()
}

/// Whether a character can be part of an identifier.
pub fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Fails with the violations and what to do about them, if there are any.
pub fn fail_if(wrong: &[String], what_to_do: &str) {
    assert!(wrong.is_empty(), "\n{}\n{what_to_do}", wrong.join("\n"));
}
