//! Applies the shader rules that no compiler checks to every shader and kernel.
//!
//! Fix a finding, or add it to `ALLOWED` with a reason. `uniformity.rs` (control flow) and
//! `floats.rs` (arithmetic) hold the analyses; this file holds the rules on kernels and their
//! descriptions.

use std::collections::BTreeSet;

use longreach::conformance::every_case;
use longreach::conformance::shaders::{self, Shader};
use longreach::error::Result;
use longreach::gpu::shader::Linked;
use longreach::gpu::shader::footprint::Footprint;
use longreach::gpu::{CpuExecutor, Features, KernelDef};
use longreach::kernels::case::Case;

use super::floats::float_violations;
use super::rule::Rule;
use super::uniformity::divergences;

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The kernel; if several link the place, the first.
    pub kernel: String,
    /// `shaders/x.wgsl:12`, or a name if there is no line.
    pub place: String,
    /// Description of the violation.
    pub what: String,
    /// The reason of the exception, if there is one.
    pub allowed: Option<&'static str>,
}

/// An exception: a rule, its place (a file for all of its lines, or a kernel's name) and the
/// reason.
pub(super) struct Exception {
    pub(super) rule: Rule,
    pub(super) place: &'static str,
    pub(super) reason: &'static str,
}

/// The exceptions. There are none; every finding so far was fixed.
const ALLOWED: &[Exception] = &[];

/// All findings about the program's shaders and kernels, by rule and place.
pub fn lints() -> Vec<Finding> {
    let shaders = shaders::all();
    let mut found: Vec<Finding> = shaders.iter().flat_map(of_shader).collect();
    found.extend(shaders.iter().flat_map(|s| of_description(s.kernel)));
    let kernels: Vec<&KernelDef> = shaders.iter().map(|s| s.kernel).collect();
    found.extend(of_cases(&kernels, every_case()));
    settle(found, ALLOWED)
}

/// The files in `files` (`shaders/family/kernel.wgsl`) that no kernel links. The caller lists the
/// files, because the program only contains linked ones.
pub fn unused_files(files: &[String]) -> Vec<Finding> {
    let shaders = shaders::all();
    let linked: BTreeSet<&str> = shaders.iter().flat_map(|s| s.kernel.files().map(|(path, _)| path)).collect();
    let is_linked = |file: &str| {
        let path = file.strip_prefix("shaders/").and_then(|f| f.strip_suffix(".wgsl"));
        path.is_some_and(|path| linked.contains(path))
    };
    let unused = files.iter().filter(|file| !is_linked(file));
    unused.map(|file| finding(Rule::UnusedFile, "", file.clone(), "no kernel links it: link it or delete it")).collect()
}

/// One finding per place and rule, with the reason of its exception; plus one for each unused
/// exception.
pub(super) fn settle(mut found: Vec<Finding>, allowed: &'static [Exception]) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    found.retain(|f| seen.insert((f.rule, f.place.clone(), f.what.clone())));
    let mut needed = vec![false; allowed.len()];
    for f in &mut found {
        let file = f.place.rsplit_once(':').map_or(f.place.as_str(), |(file, _)| file);
        let exception = allowed.iter().position(|a| a.rule == f.rule && (a.place == f.place || a.place == file));
        if let Some(i) = exception {
            needed[i] = true;
            f.allowed = Some(allowed[i].reason);
        }
    }
    for (exception, _) in allowed.iter().zip(needed).filter(|(_, needed)| !needed) {
        let what = format!("nothing here breaks the rule: {}", exception.rule.name());
        found.push(finding(Rule::StaleException, "", exception.place.to_string(), what));
    }
    found.sort();
    found
}

fn finding(rule: Rule, kernel: &str, place: String, what: impl Into<String>) -> Finding {
    Finding { rule, kernel: kernel.to_string(), place, what: what.into(), allowed: None }
}

/// The findings about a linked shader.
pub fn of_shader(shader: &Shader) -> Vec<Finding> {
    let name = shader.kernel.name();
    match shader.parse().and_then(|linked| of_linked(&linked, &name)) {
        Ok(found) => found,
        Err(e) => vec![finding(Rule::Broken, &name, name.clone(), e.to_string())],
    }
}

pub(super) fn of_linked(linked: &Linked, name: &str) -> Result<Vec<Finding>> {
    let (module, _) = linked.resolved()?;
    let mut found = Vec::new();
    for d in divergences(&module) {
        found.push(finding(Rule::Uniformity, name, linked.place(d.span), d.what));
    }
    for (rule, span, what) in float_violations(&module) {
        found.push(finding(rule, name, linked.place(span), what));
    }
    for excess in Footprint::of(&module)?.excesses() {
        found.push(finding(Rule::Limit, name, name.to_string(), excess));
    }
    Ok(found)
}

/// Bindings without shapes, in a kernel's WGSL files and in its description.
pub(super) fn of_description(kernel: &KernelDef) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in kernel.files() {
        for (i, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            if code.contains("var<storage") && !line[code.len()..].starts_with("// [") {
                let place = format!("shaders/{path}.wgsl:{}", i + 1);
                found.push(finding(Rule::NoShape, &kernel.name(), place, "a binding without // [its shape]"));
            }
        }
    }
    for binding in kernel.bindings.iter().filter(|b| b.shape.is_empty()) {
        let what = format!("the description of {} has no shape", binding.name);
        found.push(finding(Rule::NoShape, &kernel.name(), kernel.name(), what));
    }
    found
}

/// Kernels that no case dispatches, and dispatched kernels that are not listed.
pub(super) fn of_cases(kernels: &[&KernelDef], cases: impl Iterator<Item = Case>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut dispatched = BTreeSet::new();
    for case in cases {
        match case.record(&mut CpuExecutor::<f32>::new()) {
            Ok(recorded) => dispatched.extend(recorded.recording.dispatches().flat_map(|d| {
                // An alternative counts if it suits the dispatch, because the case then runs with
                // it too.
                let alternatives = d.alternatives(Features::ALL).into_iter().map(|(alternative, _)| alternative.kernel);
                std::iter::once(d.kernel).chain(alternatives).map(KernelDef::name).collect::<Vec<_>>()
            })),
            Err(e) => {
                found.push(finding(Rule::NoCase, "", case.name.clone(), format!("the case is not recorded: {e}")))
            }
        }
    }
    let listed: BTreeSet<String> = kernels.iter().map(|k| k.name()).collect();
    for name in listed.difference(&dispatched) {
        found.push(finding(
            Rule::NoCase,
            name,
            name.clone(),
            "no quick case dispatches it: add one to its family's cases()",
        ));
    }
    for name in dispatched.difference(&listed) {
        found.push(finding(
            Rule::NoCase,
            name,
            name.clone(),
            "cases dispatch it, but kernels() of its family does not list it",
        ));
    }
    found
}
