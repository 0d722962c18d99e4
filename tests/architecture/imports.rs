//! Imports between files: follows `crate::`, `super::` and `self::` paths to the defining file.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::is_ident;

type Path = Vec<String>;

/// A path in the code of a file, with its line (from 1).
pub struct Import {
    pub line: usize,
    pub path: Path,
}

/// The module path of a file below `src/`: `gpu::plan` for `src/gpu/plan.rs`, `gpu` for
/// `src/gpu/mod.rs`.
fn module_path(file: &str) -> Path {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let inner = inner.trim_end_matches("/mod");
    if inner == "lib" { vec![] } else { inner.split('/').map(String::from).collect() }
}

/// The paths of a `use` tree, each with its local name: `a::{b, c::d as e}` gives `a::b` and
/// `a::c::d`.
fn flatten(tree: &str, prefix: &[String], out: &mut Vec<(Path, String)>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (i, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().map(str::trim).filter(|p| !p.is_empty()) {
        let segments = |s: &str| -> Vec<String> {
            s.split("::").map(|x| x.trim().to_string()).filter(|x| !x.is_empty()).collect()
        };
        if let Some((head, group)) = part.split_once('{') {
            let inner: Path = prefix.iter().cloned().chain(segments(head)).collect();
            flatten(group.strip_suffix('}').unwrap_or(group), &inner, out);
            continue;
        }
        let (path, alias) = part.split_once(" as ").map_or((part, None), |(p, a)| (p, Some(a.trim())));
        let path: Path = prefix.iter().cloned().chain(segments(path)).collect();
        let name = alias.map_or_else(|| path.last().cloned().unwrap_or_default(), String::from);
        out.push((path, name));
    }
}

/// A `use` declaration: where it starts and ends, whether it is public, and its paths with their
/// names.
type Use = (usize, usize, bool, Vec<(Path, String)>);

/// The `use` declarations of some code.
fn uses(code: &str) -> Vec<Use> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rfind('\n').map_or(0, |i| i + 1);
        let before = code[line..at].trim();
        let is_public = before.starts_with("pub") && !before.contains(' ');
        if !(before.is_empty() || is_public) {
            continue;
        }
        let Some(length) = code[at..].find(';') else { continue };
        let mut paths = Vec::new();
        flatten(&code[at + 4..at + length], &[], &mut paths);
        found.push((line, at + length, is_public, paths));
    }
    found
}

/// Every path in the code that starts with `crate`, `super` or `self`.
pub fn paths(code: &str) -> Vec<Import> {
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let declared = uses(code);
    let mut found = Vec::new();
    for (start, _, _, paths) in &declared {
        found.extend(paths.iter().map(|(path, _)| Import { line: line_of(*start), path: path.clone() }));
    }
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let is_inside = code[..at].chars().next_back().is_some_and(|c| is_ident(c) || c == ':');
            if is_inside || declared.iter().any(|(start, end, ..)| (*start..*end).contains(&at)) {
                continue;
            }
            let text: String = code[at..].chars().take_while(|&c| is_ident(c) || c == ':').collect();
            let path = text.split("::").filter(|s| !s.is_empty()).map(String::from).collect();
            found.push(Import { line: line_of(at), path });
        }
    }
    found
}

/// The files of a crate by module, and what each re-exports.
pub struct Imports<'a> {
    code: &'a BTreeMap<String, String>,
    modules: BTreeMap<Path, &'a str>,
    passed_on: BTreeMap<&'a str, BTreeMap<String, Path>>,
}

impl<'a> Imports<'a> {
    /// Analyses product code, given by file.
    pub fn new(code: &'a BTreeMap<String, String>) -> Self {
        let modules = code.keys().map(|file| (module_path(file), file.as_str())).collect();
        let mut passed_on: BTreeMap<&str, BTreeMap<String, Path>> = BTreeMap::new();
        for (file, text) in code {
            let own = passed_on.entry(file).or_default();
            for (_, _, is_public, paths) in uses(text) {
                own.extend(paths.into_iter().filter(|_| is_public).map(|(path, name)| (name, path)));
            }
        }
        Self { code, modules, passed_on }
    }

    /// A path of a file, relative to the root of the crate; `None` if it leads out of the crate.
    fn absolute(&self, file: &str, path: &[String]) -> Option<Path> {
        let mut base = module_path(file);
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|s| s == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            child => {
                let inner: Path = base.iter().cloned().chain([child.to_string()]).collect();
                self.modules.get(&inner)?;
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The file that defines the item of an absolute path.
    fn definer(&self, path: &[String], hops: usize) -> Option<&'a str> {
        let n = (0..=path.len()).rev().find(|&n| self.modules.contains_key(&path[..n]))?;
        let file = self.modules[&path[..n]];
        if let (Some(name), true) = (path.get(n), hops < 8)
            && let Some(onward) = self.passed_on[file].get(name)
            && let Some(absolute) = self.absolute(file, onward)
        {
            let absolute: Path = absolute.into_iter().chain(path[n + 1..].iter().cloned()).collect();
            return self.definer(&absolute, hops + 1);
        }
        Some(file)
    }

    /// The files whose items a file uses, with the first line of use.
    pub fn of(&self, file: &str) -> BTreeMap<&'a str, usize> {
        let mut found = BTreeMap::new();
        for import in paths(&self.code[file]) {
            let target = self.absolute(file, &import.path).and_then(|path| self.definer(&path, 0));
            if let Some(target) = target.filter(|t| *t != file) {
                found.entry(target).or_insert(import.line);
            }
        }
        found
    }

    /// Cycles of files that use each other, each with its files in order. `mod.rs` files are
    /// ignored, since they only re-export.
    pub fn circles(&self) -> Vec<Vec<&'a str>> {
        let counts = |file: &str| !(file.ends_with("/mod.rs") || file == "src/lib.rs");
        let files: Vec<&str> = self.code.keys().map(String::as_str).filter(|f| counts(f)).collect();
        let targets = |file: &str| self.of(file).into_keys().filter(|t| counts(t)).collect::<BTreeSet<_>>();
        let edges: BTreeMap<&str, BTreeSet<&str>> = files.iter().map(|&f| (f, targets(f))).collect();
        let reach = |from: &str| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
            while let Some(file) = open.pop() {
                for &next in &edges[file] {
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&str, BTreeSet<&str>> = files.iter().map(|&f| (f, reach(f))).collect();
        let mut circles = BTreeSet::new();
        for &file in files.iter().filter(|f| reached[*f].contains(*f)) {
            let with: Vec<&str> = reached[file].iter().copied().filter(|o| reached[o].contains(file)).collect();
            circles.insert(with.iter().map(|f| self.code.get_key_value(*f).expect("a file").0.as_str()).collect());
        }
        circles.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        files.iter().map(|(f, t)| (f.to_string(), t.to_string())).collect()
    }

    #[test]
    fn paths_lead_through_groups_and_re_exports_to_the_file_that_defines() {
        let code = crate_of(&[
            ("src/gpu/mod.rs", "mod plan;\nmod buffer;\npub use plan::{Plan, Slot as Place};\n"),
            ("src/gpu/plan.rs", "use super::buffer::Buffer;\npub struct Plan;\npub struct Slot;\n"),
            ("src/gpu/buffer.rs", "pub struct Buffer;\nfn f() -> Option<super::plan::Plan> { None }\n"),
            ("src/nn.rs", "use crate::gpu::{\n    self,\n    Place,\n};\nuse std::path::Path;\n"),
        ]);
        let imports = Imports::new(&code);
        assert_eq!(imports.of("src/nn.rs").into_keys().collect::<Vec<_>>(), ["src/gpu/mod.rs", "src/gpu/plan.rs"]);
        assert_eq!(imports.of("src/gpu/buffer.rs"), BTreeMap::from([("src/gpu/plan.rs", 2)]));
        assert_eq!(imports.circles(), [["src/gpu/buffer.rs", "src/gpu/plan.rs"]]);
    }
}
