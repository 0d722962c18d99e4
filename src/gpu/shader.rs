//! Linking WGSL parts, mapping errors back to files, and proving that a shader and its Rust description agree.
//!
//! Linking is concatenation: WGSL declarations may stand in any order. Generated constants come first, then the parts.

use super::{Access, KernelDef, Kind, Scalar};
use crate::error::{Error, Result};

/// The linked WGSL of a kernel for the given values of its constants.
pub fn link(kernel: &KernelDef, constants: &[u32]) -> String {
    let mut text = String::new();
    for (name, value) in kernel.constants.iter().zip(constants) {
        text.push_str(&format!("const {name}: u32 = {value}u;\n"));
    }
    for part in kernel.parts {
        text.push_str(part.text);
        text.push('\n');
    }
    text
}

/// File and line of a line (from 1) of the linked text.
fn locate(kernel: &KernelDef, linked_line: usize) -> String {
    let mut first = kernel.constants.len() + 1;
    for part in kernel.parts {
        let n = part.text.lines().count() + usize::from(part.text.ends_with('\n'));
        if linked_line >= first && linked_line < first + n {
            return format!("shaders/{}.wgsl:{}", part.path, linked_line - first + 1);
        }
        first += n;
    }
    "generated constants".to_string()
}

/// Parses and validates a linked kernel. What is wrong is an error with file and line where naga gives one.
pub fn compile(kernel: &KernelDef, constants: &[u32]) -> Result<naga::Module> {
    let text = link(kernel, constants);
    let fail = |what: String| Error::new(format!("kernel {}: {what}", kernel.name()));
    let own_file = format!("shaders/{}.wgsl", kernel.label);
    let place = |l: Option<naga::SourceLocation>| {
        l.map_or_else(|| own_file.clone(), |l| locate(kernel, l.line_number as usize))
    };
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| {
        let at = place(e.location(&text));
        fail(format!("{at}: {}", e.message()))
    })?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    validator.validate(&module).map_err(|e| {
        let at = place(e.location(&text));
        fail(format!("{at}: {}", e.emit_to_string(&text)))
    })?;
    Ok(module)
}

/// Compiles a linked kernel and compares it with its description: entry point, bindings, access and parameters. Any
/// difference is an error with file and line.
pub fn check(kernel: &KernelDef, constants: &[u32]) -> Result<()> {
    let module = compile(kernel, constants)?;
    let text = link(kernel, constants);
    let fail = |what: String| Error::new(format!("kernel {}: {what}", kernel.name()));
    let own_file = format!("shaders/{}.wgsl", kernel.label);
    if !module.entry_points.iter().any(|e| e.name == kernel.entry_point()) {
        return Err(fail(format!("{own_file}: no entry point named {}", kernel.entry_point())));
    }
    let mut seen = vec![false; kernel.bindings.len() + 1];
    for (handle, variable) in module.global_variables.iter() {
        check_variable(kernel, &module, variable, &mut seen).map_err(|what| {
            let line = module.global_variables.get_span(handle).location(&text).line_number;
            fail(format!("{}: {what}", locate(kernel, line as usize)))
        })?;
    }
    match seen.iter().position(|s| !s) {
        Some(missing) => Err(fail(format!("{own_file}: binding {missing} of the description is not in the shader"))),
        None => Ok(()),
    }
}

/// Compares one variable of the shader with its description and marks its binding as seen.
fn check_variable(
    kernel: &KernelDef,
    module: &naga::Module,
    variable: &naga::GlobalVariable,
    seen: &mut [bool],
) -> std::result::Result<(), String> {
    let Some(at) = &variable.binding else { return Ok(()) };
    let name = variable.name.as_deref().unwrap_or("?");
    let index = at.binding as usize;
    if at.group != 0 || index >= seen.len() {
        return Err(format!("{name} at group {} binding {index} is not described", at.group));
    }
    seen[index] = true;
    if index == 0 {
        return check_params(kernel, module, variable);
    }
    let binding = &kernel.bindings[index - 1];
    let naga::AddressSpace::Storage { access } = variable.space else {
        return Err(format!("{name} is not in storage"));
    };
    let writes = access.contains(naga::StorageAccess::STORE);
    if name != binding.name {
        return Err(format!("binding {index} is called {name} in WGSL and {} in Rust", binding.name));
    }
    if writes != (binding.access != Access::Read) {
        return Err(format!("{name} is {access:?} in WGSL and {:?} in Rust", binding.access));
    }
    let scalar = element_scalar(module, variable.ty);
    let expected = match binding.kind {
        Kind::Real => naga::ScalarKind::Float,
        Kind::I32 => naga::ScalarKind::Sint,
        Kind::U32 | Kind::Packed => naga::ScalarKind::Uint,
    };
    if scalar != Some(expected) {
        return Err(format!("{name} holds {scalar:?} in WGSL and {:?} in Rust", binding.kind));
    }
    Ok(())
}

fn element_scalar(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Option<naga::ScalarKind> {
    match module.types[ty].inner {
        naga::TypeInner::Array { base, .. } => element_scalar(module, base),
        naga::TypeInner::Scalar(s) | naga::TypeInner::Vector { scalar: s, .. } => Some(s.kind),
        naga::TypeInner::Struct { ref members, .. } => element_scalar(module, members.first()?.ty),
        _ => None,
    }
}

fn check_params(
    kernel: &KernelDef,
    module: &naga::Module,
    variable: &naga::GlobalVariable,
) -> std::result::Result<(), String> {
    let naga::TypeInner::Struct { ref members, .. } = module.types[variable.ty].inner else {
        return Err("binding 0 is not the struct Params".into());
    };
    if variable.space != naga::AddressSpace::Uniform || members.len() != kernel.params.len() {
        return Err(format!("Params has {} members in WGSL and {} in Rust", members.len(), kernel.params.len()));
    }
    for (i, (member, field)) in members.iter().zip(kernel.params).enumerate() {
        let scalar = match field.scalar {
            Scalar::U32 => naga::ScalarKind::Uint,
            Scalar::I32 => naga::ScalarKind::Sint,
            Scalar::F32 => naga::ScalarKind::Float,
        };
        let same = member.name.as_deref() == Some(field.name)
            && element_scalar(module, member.ty) == Some(scalar)
            && member.offset as usize == 4 * i;
        if !same {
            return Err(format!("member {i} of Params is {:?} in WGSL and {field:?} in Rust", member.name));
        }
    }
    Ok(())
}
