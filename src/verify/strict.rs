//! Strict kernels: behaviour that WGSL leaves undefined and most devices tolerate becomes an error.
//!
//! - `exp` returns NaN instead of infinity, which no kernel may rely on.
//! - A read past the end of a read-only buffer returns poison, where most devices return 0, and
//!   leaves a mark past the end of a written buffer. Shaders run without runtime checks, and not
//!   every driver bounds such reads. Strict kernels therefore need the guards of
//!   [`DispatchCheck::run_guarded`](crate::verify::dispatch_check::DispatchCheck::run_guarded). A
//!   texture does not know where its buffer ends, so there the mark is set when the guards' poison
//!   is read.
//! - The lanes of a workgroup are numbered backwards by their reversed bits, so that lanes that
//!   work on neighbouring elements no longer run side by side or in order. A kernel that relies on
//!   the order of lanes fails. With subgroups, which are aligned runs of lanes, lanes are only
//!   numbered backwards.
//!   runs of lanes, they are numbered backwards only.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use super::mismatch::READ_OUTSIDE;
use super::wgsl_code::{Code, Edit, Kind};
use crate::gpu::{Access, Binding, Features, KernelDef, Kind as Stored, PartVariant, Source};
use crate::verify::dispatch_check::{GUARD, POISON_WORD, READ_POISON};

const EXP: &str = "
fn strict_exp(x: f32) -> f32 {
    return select(exp(x), bitcast<f32>(strict_poison), x > 88.0);
}
fn strict_exp4(x: vec4<f32>) -> vec4<f32> {
    return select(exp(x), vec4<f32>(bitcast<f32>(strict_poison)), x > vec4<f32>(88.0));
}
var<private> strict_poison: u32 = 0x7fc0beefu;
";

/// A WGSL element type of 4-byte scalars or vectors, its number of scalars, and the expression that
/// makes one of a word.
const ELEMENTS: [(&str, usize, &str); 4] = [
    ("f32", 1, "bitcast<f32>(WORD)"),
    ("vec2<f32>", 2, "vec2<f32>(bitcast<f32>(WORD))"),
    ("vec4<f32>", 4, "vec4<f32>(bitcast<f32>(WORD))"),
    ("u32", 1, "WORD"),
];

/// Length and value of an element of this type with `word` in every component.
fn element(of: &str, word: &str) -> Option<(usize, String)> {
    let &(_, len, value) = ELEMENTS.iter().find(|(name, ..)| *name == of)?;
    Some((len, value.replace("WORD", word)))
}

/// The strict variant of a kernel, for the parts that `features` select. It is never freed; each is
/// made once.
pub fn strict(kernel: &'static KernelDef, features: Features) -> &'static KernelDef {
    type Made = Mutex<HashMap<(usize, Features), &'static KernelDef>>;
    static MADE: LazyLock<Made> = LazyLock::new(Made::default);
    let key = (std::ptr::from_ref(kernel) as usize, features);
    MADE.lock().expect("making a kernel does not panic").entry(key).or_insert_with(|| make(kernel, features))
}

fn make(kernel: &'static KernelDef, features: Features) -> &'static KernelDef {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let picked = |p: &Source| p.variant.filter(|a| features.has(a.needs));
    let texts: Vec<&str> = kernel.parts.iter().map(|p| picked(p).map_or(p.text, |a| a.text)).collect();
    let all = texts.concat();
    let binding = |name: &str| kernel.bindings.iter().find(|b| b.name == name);
    let read = |name: &str| binding(name).is_some_and(|b| b.access == Access::Read);
    let written = |name: &str| binding(name).is_some_and(|b| b.access != Access::Read);
    let of_textures = kernel.bindings.iter().filter(|b| b.texels).map(texture_reader);
    let readers: Vec<String> = texts.iter().flat_map(|text| readers(text, &read)).chain(of_textures).collect();
    let marker =
        texts.iter().find_map(|text| marker(text, &written)).expect("every kernel writes a buffer of known elements");
    let backwards = kernel.features().and(features).subgroups;
    let made = |p: &Source| match picked(p) {
        Some(a) => {
            let text = leak(strict_text(a.text, &all, &read, backwards));
            Source { variant: Some(PartVariant { text, ..a }), ..*p }
        }
        None => Source { text: leak(strict_text(p.text, &all, &read, backwards)), ..*p },
    };
    let mut parts: Vec<Source> = kernel.parts.iter().map(made).collect();
    parts.push(Source::new("strict", leak(EXP.to_string() + &marker + &readers.concat())));
    Box::leak(Box::new(KernelDef {
        suffix: leak(format!("{} strict", kernel.suffix).trim().to_string()),
        parts: Vec::leak(parts),
        alternatives: &[],
        ..*kernel
    }))
}

/// Name and element type of each array that the text declares and `wanted` accepts.
fn arrays(text: &str, wanted: &dyn Fn(&str) -> bool) -> Vec<(String, String)> {
    let code = Code::new(text);
    let declared = |&i: &usize| code.at(i + 1) == ":" && code.at(i + 2) == "array" && wanted(code.at(i));
    let array = |i: usize| {
        let end = (i..code.tokens.len()).find(|&j| code.at(j) == ";")?;
        Some((code.at(i).to_string(), code.source(i + 4..end - 1).to_string()))
    };
    (0..code.tokens.len()).filter(declared).filter_map(array).collect()
}

/// A function that writes the mark of an out-of-bounds read to the first written array.
fn marker(text: &str, written: &dyn Fn(&str) -> bool) -> Option<String> {
    arrays(text, written).into_iter().find_map(|(name, of)| {
        let (_, mark) = element(&of, "strict_mark")?;
        Some(format!(
            "var<private> strict_mark: u32 = {READ_OUTSIDE}u;\nfn strict_outside() {{\n    {name}[arrayLength(&{name}) - 1u] = {mark};\n}}\n"
        ))
    })
}

/// One function per read-only array of the text that reads it.
fn readers(text: &str, read: &dyn Fn(&str) -> bool) -> Vec<String> {
    let reader = |(name, of): (String, String)| {
        let (len, poison) = element(&of, if of == "u32" { "65537u" } else { "strict_poison" })?;
        Some(format!(
            "fn strict_{name}(i: u32) -> {of} {{\n    if i >= arrayLength(&{name}) - {}u {{\n        strict_outside();\n        \
             return {poison};\n    }}\n    return {name}[i];\n}}\n",
            GUARD / len
        ))
    };
    arrays(text, read).into_iter().filter_map(reader).collect()
}

/// A function that reads a texture and sets the mark if it reads the poison past the copied buffer.
fn texture_reader(binding: &Binding) -> String {
    let name = binding.name;
    let (of, bits, poison) = match binding.kind {
        Stored::Real => ("f32", "bitcast<vec4<u32>>(texel)", READ_POISON),
        _ => ("u32", "texel.xyxy", POISON_WORD),
    };
    format!(
        "fn strict_{name}(at: vec2<i32>) -> vec4<{of}> {{\n    let texel = textureLoad({name}, at);\n    \
         if any({bits} == vec4<u32>({poison}u)) {{\n        strict_outside();\n    }}\n    return texel;\n}}\n"
    )
}

fn strict_text(text: &str, all: &str, read: &dyn Fn(&str) -> bool, backwards: bool) -> String {
    let code = Code::new(text);
    let mut changes: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    for i in code.live().filter(|&i| code.tokens[i].kind == Kind::Word) {
        let (name, next) = (code.at(i), code.at(i + 1));
        if name == "exp" && next == "(" {
            let wide = code.source(i + 2..code.partner(i + 1)).contains("vec4");
            changes.push((code.bytes(i..i + 1), if wide { "strict_exp4" } else { "strict_exp" }.to_string()));
        } else if name == "textureLoad" && next == "(" && read(code.at(i + 2)) {
            changes.push((code.bytes(i..i + 4), format!("strict_{}(", code.at(i + 2))));
        } else if next == "[" && read(name) && !readers(all, &|n| n == name).is_empty() {
            changes.push((code.bytes(i..i + 2), format!("strict_{name}((")));
            let close = code.partner(i + 1);
            changes.push((code.bytes(close..close + 1), "))".to_string()));
        }
    }
    changes.extend(renumbered_lanes(&code, backwards));
    changes.sort_by_key(|(range, _)| range.start);
    Edit { operator: "strict", replacements: changes }.apply(text)
}

/// Renames the lane parameter of a one-dimensional entry point and starts the body with the
/// renumbered lane. Workgroup sizes are powers of two.
fn renumbered_lanes(code: &Code, backwards: bool) -> Vec<(std::ops::Range<usize>, String)> {
    let Some(size) = (0..code.tokens.len()).find(|&i| code.at(i) == "workgroup_size") else { return Vec::new() };
    let body = (size..code.tokens.len()).find(|&i| code.at(i) == "{");
    let (Some(body), true) = (body, code.partner(size + 1) == size + 3) else { return Vec::new() };
    let n = code.at(size + 2);
    let lane = |given: &str| match backwards {
        true => format!("u32({n}) - 1u - {given}"),
        false => format!("u32({n}) - 1u - (reverseBits({given}) >> countLeadingZeros(u32({n}) - 1u))"),
    };
    let (mut changes, mut start) = (Vec::new(), String::new());
    for i in size..body {
        let (kind, name) = (code.at(i + 2), code.at(i + 4));
        let renumbered = match (code.at(i), kind) {
            ("builtin", "local_invocation_index") => lane(&format!("{name}_given")),
            ("builtin", "global_invocation_id") => {
                let (first, local) =
                    (format!("{name}_given.x & ~(u32({n}) - 1u)"), format!("({name}_given.x & (u32({n}) - 1u))"));
                format!("vec3<u32>(({first}) | ({}), {name}_given.yz)", lane(&local))
            }
            _ => continue,
        };
        changes.push((code.bytes(i + 4..i + 5), format!("{name}_given")));
        start += &format!(" let {name} = {renumbered};");
    }
    changes.push((code.bytes(body..body + 1), "{".to_string() + &start));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::shader;

    #[test]
    fn every_strict_kernel_compiles_and_differs() {
        for (kernel, constants) in crate::attention::kernels().into_iter().chain(crate::kernels::all()) {
            for features in kernel.variants() {
                let strict = strict(kernel, features);
                shader::check(strict, &constants, features).unwrap();
                let text = |k: &'static KernelDef| shader::link(k, &constants, features);
                assert!(!text(strict).starts_with(&text(kernel)), "{}: no read is strict", kernel.name());
            }
        }
    }
}
