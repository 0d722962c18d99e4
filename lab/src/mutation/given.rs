//! Reads mutants from a file, to try faults that the operators do not generate.

use std::path::Path;

use longreach::error::{Context, Error, Result};

use super::equivalent::change_of;
use super::mutant::{Mutant, files, mutants};

/// All generated mutants, or those of a file with one per line: `path: before → after`. `before`
/// must occur exactly once in `shaders/path.wgsl`, and `\n` is a line break. Empty lines and lines
/// that start with `#` are skipped.
pub(super) fn mutants_of(given: Option<&Path>) -> Result<Vec<Mutant>> {
    let Some(path) = given else { return Ok(mutants()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Vec<Mutant>> {
    let files = files();
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
        let refuse = |why: String| Error::usage(format!("line {}: {why}", i + 1));
        let Some([path, before, after]) = change_of(line) else {
            return Err(refuse("not `path: before → after`".to_string()));
        };
        let Some((path, (file, _))) = files.get_key_value(path) else {
            return Err(refuse(format!("no kernel links shaders/{path}.wgsl")));
        };
        let (before, after) = (before.replace("\\n", "\n"), after.replace("\\n", "\n"));
        let places: Vec<usize> = file.match_indices(&before).map(|(at, _)| at).collect();
        let &[at] = places.as_slice() else {
            return Err(refuse(format!("`{before}` occurs {} times in shaders/{path}.wgsl, not once", places.len())));
        };
        let text = [&file[..at], &after, &file[at + before.len()..]].concat();
        let line = file[..at].matches('\n').count() + 1;
        found.push(Mutant { index: found.len(), path, line, operator: "given", before, after, text });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_fault_is_planted_where_it_says() {
        let list = parse("# try\n\nelementwise/add: a[i] + b[i] → a[i] - b[i]\n").unwrap();
        assert_eq!(list.len(), 1);
        assert!(list[0].text.contains("a[i] - b[i]") && list[0].line > 5);
        for (wrong, why) in [
            ("elementwise/add a → b", "not `path"),
            ("no/such: a → b", "no kernel links"),
            ("elementwise/add: not there → b", "occurs 0 times"),
        ] {
            let e = parse(wrong).unwrap_err().to_string();
            assert!(e.contains(why), "{e}");
        }
    }
}
