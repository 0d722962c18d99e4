//! The mutants of every shader file in a fixed order, and the kernels that they change.

use std::collections::{BTreeMap, HashSet};

use longreach::conformance::shaders;
use longreach::gpu::{Features, KernelDef, PartVariant, Source};
use longreach::verify::wgsl_code::{Code, Edit};

use super::{expressions, interface, statements};

/// One fault in one shader file.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// Index in [`mutants`].
    pub index: usize,
    /// Path of the file in `shaders/`, without extension.
    pub path: &'static str,
    /// Line of the fault, from 1.
    pub line: usize,
    /// The kind of fault.
    pub operator: &'static str,
    /// The original lines, trimmed and joined by ` / `; followed by ` #2` at their second
    /// occurrence in the file.
    pub before: String,
    /// The changed lines.
    pub after: String,
    pub(super) text: String,
}

/// Every kernel once, with one set of constants.
pub(super) fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    let mut seen = HashSet::new();
    shaders::kernels().filter(|(kernel, _)| seen.insert(kernel.name())).collect()
}

/// The files' texts by path, each with the text that declares the parameters of the first kernel
/// that links it.
pub(super) fn files() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let mut files = BTreeMap::new();
    for (kernel, _) in kernels() {
        for (path, text) in kernel.files() {
            let params = kernel.parts.iter().find(|p| p.text.contains("struct Params")).map_or(text, |p| p.text);
            files.entry(path).or_insert((text, params));
        }
    }
    files
}

/// All mutants of all files; faults with the same resulting text count once.
pub fn mutants() -> Vec<Mutant> {
    let mut found: Vec<Mutant> = Vec::new();
    for (path, (file, params)) in files() {
        let mut edits = edits(file, params);
        edits.sort_by_key(|e| e.replacements[0].0.start);
        let mut seen = HashSet::from([file.to_string()]);
        for edit in edits {
            let text = edit.apply(file);
            if seen.insert(text.clone()) {
                let (line, before, after) = describe(file, &edit);
                found.push(Mutant { index: found.len(), path, line, operator: edit.operator, before, after, text });
            }
        }
    }
    found
}

fn edits(text: &str, params: &str) -> Vec<Edit> {
    let (code, params) = (Code::new(text), Code::new(params));
    [expressions::edits(&code), statements::edits(&code), interface::edits(&code, &params)].concat()
}

/// Line of the first change, and the lines before and after the change.
fn describe(text: &str, edit: &Edit) -> (usize, String, String) {
    let line_start = |at: usize| text[..at].rfind('\n').map_or(0, |i| i + 1);
    let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |i| at + i);
    let mut lines: BTreeMap<usize, (usize, Edit)> = BTreeMap::new();
    for (range, new) in &edit.replacements {
        let start = line_start(range.start);
        let entry =
            lines.entry(start).or_insert_with(|| (start, Edit { operator: edit.operator, replacements: vec![] }));
        entry.0 = entry.0.max(line_end(range.end));
        entry.1.replacements.push((range.start - start..range.end - start, new.clone()));
    }
    let squeezed = |s: &str| s.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (start, (end, edit)) in &lines {
        let whole = &text[*start..*end];
        let times = text[..*start].lines().filter(|l| l.trim() == whole.trim()).count() + 1;
        let mark = if times > 1 { format!(" #{times}") } else { String::new() };
        before.push(squeezed(whole) + &mark);
        after.push(squeezed(&edit.apply(whole)));
    }
    let first = edit.replacements[0].0.start;
    (text[..first].matches('\n').count() + 1, before.join(" / "), after.join(" / "))
}

impl Mutant {
    /// The features that a device needs to run the file: those that all linking kernels need, plus
    /// those of the variant if the file is one.
    pub fn needs(&self) -> Features {
        let linking = self.linking();
        let parts = linking.iter().flat_map(|(k, _)| k.parts);
        let variants = parts.filter_map(|p| p.variant).filter(|a| a.path == self.path).map(|a| a.needs);
        let common = linking.iter().map(|(k, _)| k.required()).reduce(Features::and).unwrap_or(Features::NONE);
        variants.fold(common, Features::with)
    }

    /// The kernels that link the file.
    pub(super) fn linking(&self) -> Vec<(&'static KernelDef, Vec<u32>)> {
        kernels().into_iter().filter(|(k, _)| k.files().any(|(path, _)| path == self.path)).collect()
    }

    /// The kernel with this fault. Like all kernels it lives as long as the process.
    pub(super) fn planted(&self, kernel: &'static KernelDef) -> &'static KernelDef {
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let text = leak(self.text.clone());
        let other = |a: PartVariant| if a.path == self.path { PartVariant { text, ..a } } else { a };
        let part = |p: &Source| {
            let text = if p.path == self.path { text } else { p.text };
            Source { text, variant: p.variant.map(other), ..*p }
        };
        Box::leak(Box::new(KernelDef {
            suffix: leak(format!("{} mutant {}", kernel.suffix, self.index).trim().to_string()),
            parts: Box::leak(kernel.parts.iter().map(part).collect::<Box<[_]>>()),
            alternatives: &[],
            ..*kernel
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNIPPET: &str = "struct Params {\n    n: u32,\n    m: u32,\n}\n@group(0) @binding(0) var<uniform> p: Params;\n\
        @group(0) @binding(1) var<storage, read> a: array<f32>;\n@group(0) @binding(2) var<storage, read> b: array<f32>;\n\
        @group(0) @binding(3) var<storage, read_write> out: array<f32>;\n\n@compute @workgroup_size(64)\n\
        fn k(@builtin(local_invocation_index) lane: u32) {\n    if lane >= p.n {\n        return;\n    }\n    var sum = 0.0;\n\
        \x20   for (var i = lane; i < p.m; i++) {\n        sum += max(a[i], -2.0) * b[i];\n        workgroupBarrier();\n    }\n\
        \x20   out[lane] = select(sum, 1.0, sum <= b[0]);\n}\n";

    /// The changes by all mutants of the snippet with this operator.
    fn changes(operator: &str) -> Vec<String> {
        let of = |e: &Edit| {
            let (line, before, after) = describe(SNIPPET, e);
            format!("{line}: {before} → {after}")
        };
        edits(SNIPPET, SNIPPET).iter().filter(|e| e.operator == operator).map(of).collect()
    }

    #[test]
    fn each_operator_plants_its_fault() {
        let sum = "17: sum += max(a[i], -2.0) * b[i]; → ";
        let product = |new: &str| format!("{sum}{new}");
        assert_eq!(changes("drop a barrier"), ["18: workgroupBarrier(); → "]);
        assert_eq!(changes("overwrite instead of accumulate"), [product("sum = max(a[i], -2.0) * b[i];")]);
        assert_eq!(changes("drop an operand"), [product("sum += max(a[i], -2.0);"), product("sum += b[i];")]);
        assert_eq!(changes("swap min and max"), [product("sum += min(a[i], -2.0) * b[i];")]);
        assert_eq!(changes("drop a clamp"), [product("sum += (a[i]) * b[i];"), product("sum += (-2.0) * b[i];")]);
        assert_eq!(changes("drop a sign"), [product("sum += max(a[i], 2.0) * b[i];")]);
        assert_eq!(
            changes("decide a condition"),
            ["12: if lane >= p.n { → if true {", "12: if lane >= p.n { → if false {"]
        );
        assert_eq!(
            changes("change a step"),
            ["16: for (var i = lane; i < p.m; i++) { → for (var i = lane; i < p.m; i += 2u) {"]
        );
        assert_eq!(
            changes("shift a value"),
            ["16: for (var i = lane; i < p.m; i++) { → for (var i = lane + 1u; i < p.m; i++) {"]
        );
        assert_eq!(changes("take another parameter").len(), 2);
        assert_eq!(changes("shift an index").len(), 4);
        assert_eq!(changes("choose otherwise").len(), 3);
        assert_eq!(changes("move a limit").len(), 3);
        assert_eq!(
            changes("swap bindings"),
            [
                "6: @group(0) @binding(1) var<storage, read> a: array<f32>; / @group(0) @binding(2) var<storage, read> b: array<f32>; \
              → @group(0) @binding(2) var<storage, read> a: array<f32>; / @group(0) @binding(1) var<storage, read> b: array<f32>;"
            ]
        );
        assert_eq!(changes("take another buffer").len(), 3);
        assert_eq!(changes("drop a statement").len(), 2);
    }

    #[test]
    fn mutants_have_fixed_places_and_differ_from_their_file() {
        let all = mutants();
        let files = files();
        assert!(all.iter().enumerate().all(|(i, m)| m.index == i && m.text != files[m.path].0));
        // Parts that declare an operand and read it have little to mutate, and those that declare
        // parameters and buffers alone even less.
        let small = ["common/weight_", "matmul/texels_"];
        let declares_only = |f: &str| !files[f].0.lines().any(|line| line.starts_with("fn "));
        let is_operand = |f: &&&str| small.iter().any(|p| f.starts_with(p)) || declares_only(f);
        let n_mutants = |f: &str| all.iter().filter(|m| m.path == f).count();
        assert!(files.keys().filter(|f| !is_operand(f)).all(|f| n_mutants(f) > 3));
    }
}
