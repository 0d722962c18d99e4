//! Links WGSL parts, maps errors back to files, and checks a shader against its Rust description.
//!
//! Linking concatenates: WGSL allows declarations in any order. `enable` lines come first, as WGSL
//! requires, then generated constants, then each part in the variant for the device.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::gpu::{Access, Binding, Feature, Features, Field, KernelDef, Kind, Scalar, StructDef};

/// Path and text of each part in the variant that `features` select.
fn picked(kernel: &KernelDef, features: Features) -> impl Iterator<Item = (&'static str, &'static str)> {
    kernel.parts.iter().map(move |part| match part.variant {
        Some(other) if features.has(other.needs) => (other.path, other.text),
        _ => (part.path, part.text),
    })
}

/// The names, out of `names`, of the features that the selected variants of a kernel use.
fn enabled(kernel: &KernelDef, features: Features, names: &[(Feature, &'static str)]) -> Vec<&'static str> {
    let used = kernel.features().and(features);
    names.iter().filter(|(feature, _)| used.has(*feature)).map(|(_, name)| *name).collect()
}

/// `enable` names for naga. It accepts subgroup operations if the device has them, and rejects an
/// `enable` line for them.
const NAGA_NAMES: &[(Feature, &str)] = &[(Feature::F16, "f16")];
/// `enable` names of the WGSL standard.
const STANDARD_NAMES: &[(Feature, &str)] = &[(Feature::F16, "f16"), (Feature::Subgroups, "subgroups")];

fn link_with(enables: &[&str], kernel: &KernelDef, constants: &[u32], features: Features) -> String {
    let mut text: String = enables.iter().map(|name| format!("enable {name};\n")).collect();
    for (name, value) in kernel.constants.iter().zip(constants) {
        text.push_str(&format!("const {name}: u32 = {value}u;\n"));
    }
    for (_, part) in picked(kernel, features) {
        text.push_str(part);
        text.push('\n');
    }
    text
}

/// The linked WGSL of a kernel, as wgpu takes it, for the given constants and device features.
pub fn link(kernel: &KernelDef, constants: &[u32], features: Features) -> String {
    link_with(&enabled(kernel, features, NAGA_NAMES), kernel, constants, features)
}

/// As [`link`], with the `enable` lines of the standard: for browsers and other compilers than
/// naga.
pub fn standard_wgsl(kernel: &KernelDef, constants: &[u32], features: Features) -> String {
    link_with(&enabled(kernel, features, STANDARD_NAMES), kernel, constants, features)
}

/// The source file and line of a line (from 1) of the text that [`link`] returns.
fn locate(kernel: &KernelDef, features: Features, linked_line: usize) -> String {
    let mut first = enabled(kernel, features, NAGA_NAMES).len() + kernel.constants.len() + 1;
    for (path, text) in picked(kernel, features) {
        let n = text.lines().count() + usize::from(text.ends_with('\n'));
        if linked_line >= first && linked_line < first + n {
            return format!("shaders/{path}.wgsl:{}", linked_line - first + 1);
        }
        first += n;
    }
    "generated constants".to_string()
}

/// A linked kernel, parsed and validated by naga.
pub struct Linked {
    kernel: &'static KernelDef,
    features: Features,
    /// The linked WGSL.
    pub text: String,
    /// The parsed module.
    pub module: naga::Module,
    /// The result of validation.
    pub info: naga::valid::ModuleInfo,
}

impl Linked {
    /// The kernel.
    pub fn kernel(&self) -> &'static KernelDef {
        self.kernel
    }

    /// The optional features that this variant of the kernel uses.
    pub fn features(&self) -> Features {
        self.kernel.features().and(self.features)
    }

    /// File and line of a span of the module.
    pub fn place(&self, span: naga::Span) -> String {
        locate(self.kernel, self.features, span.location(&self.text).line_number as usize)
    }

    /// The module with its overrides replaced by their default values.
    pub fn resolved(&self) -> Result<(Cow<'_, naga::Module>, Cow<'_, naga::valid::ModuleInfo>)> {
        let entry = (naga::ShaderStage::Compute, self.kernel.entry_point());
        let constants = naga::back::PipelineConstants::default();
        naga::back::pipeline_constants::process_overrides(&self.module, &self.info, Some(entry), &constants)
            .map_err(|e| Error::new(format!("kernel {}: an override has no value: {e}", self.kernel.name())))
    }
}

/// Links, parses and validates a kernel. Errors name the file and line where naga reports one.
pub fn parse(kernel: &'static KernelDef, constants: &[u32], features: Features) -> Result<Linked> {
    let text = link(kernel, constants, features);
    let fail = |what: String| Error::new(format!("kernel {}: {what}", kernel.name()));
    let place = |l: Option<naga::SourceLocation>| {
        l.map_or_else(|| own_file(kernel), |l| locate(kernel, features, l.line_number as usize))
    };
    let module = naga::front::wgsl::parse_str(&text).map_err(|e| {
        let at = place(e.location(&text));
        fail(format!("{at}: {}", e.message()))
    })?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let info = validator.validate(&module).map_err(|e| {
        let at = place(e.location(&text));
        fail(format!("{at}: {}", e.emit_to_string(&text)))
    })?;
    Ok(Linked { kernel, features, text, module, info })
}

/// The file that the kernel's label names.
fn own_file(kernel: &KernelDef) -> String {
    format!("shaders/{}.wgsl", kernel.label)
}

/// Parses and validates a linked kernel and compares it with its description: entry point,
/// bindings, access and parameters. Any mismatch is an error with file and line where naga reports
/// one.
pub fn check(kernel: &'static KernelDef, constants: &[u32], features: Features) -> Result<()> {
    let linked = parse(kernel, constants, features)?;
    let module = &linked.module;
    let fail = |what: String| Error::new(format!("kernel {}: {what}", kernel.name()));
    let own_file = own_file(kernel);
    if !module.entry_points.iter().any(|e| e.name == kernel.entry_point()) {
        return Err(fail(format!("{own_file}: no entry point named {}", kernel.entry_point())));
    }
    let mut seen = vec![false; kernel.bindings.len() + 1];
    for (handle, variable) in module.global_variables.iter() {
        check_variable(kernel, module, variable, &mut seen)
            .map_err(|what| fail(format!("{}: {what}", linked.place(module.global_variables.get_span(handle)))))?;
    }
    match seen.iter().position(|s| !s) {
        Some(missing) => Err(fail(format!("{own_file}: binding {missing} of the description is not in the shader"))),
        None => Ok(()),
    }
}

/// Compares one shader variable with its description and marks its binding as found.
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
    if name != binding.name {
        return Err(format!("binding {index} is called {name} in WGSL and {} in Rust", binding.name));
    }
    if binding.texels {
        return check_texels(binding, &module.types[variable.ty].inner);
    }
    let naga::AddressSpace::Storage { access } = variable.space else {
        return Err(format!("{name} is not in storage"));
    };
    let writes = access.contains(naga::StorageAccess::STORE);
    if writes != (binding.access != Access::Read) {
        return Err(format!("{name} is {access:?} in WGSL and {:?} in Rust", binding.access));
    }
    if let Some(row) = &binding.row {
        return check_rows(row, name, module, variable.ty);
    }
    let scalar = element_scalar(module, variable.ty);
    let agrees = match binding.kind {
        Kind::Real => scalar == Some(naga::Scalar::F32),
        Kind::I32 => scalar == Some(naga::Scalar::I32),
        Kind::U32 => scalar == Some(naga::Scalar::U32),
        // Words that the WGSL unpacks, or the 16-bit floats in them.
        Kind::Packed => scalar == Some(naga::Scalar::U32) || scalar == Some(naga::Scalar::F16),
    };
    if !agrees {
        return Err(format!("{name} holds {scalar:?} in WGSL and {:?} in Rust", binding.kind));
    }
    Ok(())
}

/// Compares the type of a binding that is read as a texture with its description.
fn check_texels(binding: &Binding, found: &naga::TypeInner) -> std::result::Result<(), String> {
    let (format, name) = match binding.kind {
        Kind::Real => (naga::StorageFormat::Rgba32Float, "rgba32float"),
        _ => (naga::StorageFormat::Rg32Uint, "rg32uint"),
    };
    let class = naga::ImageClass::Storage { format, access: naga::StorageAccess::LOAD };
    if *found != (naga::TypeInner::Image { dim: naga::ImageDimension::D2, arrayed: false, class }) {
        return Err(format!("{} is not a texture_storage_2d<{name}, read> in WGSL, as in Rust", binding.name));
    }
    Ok(())
}

fn element_scalar(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Option<naga::Scalar> {
    match module.types[ty].inner {
        naga::TypeInner::Array { base, .. } => element_scalar(module, base),
        naga::TypeInner::Scalar(s) | naga::TypeInner::Vector { scalar: s, .. } => Some(s),
        _ => None,
    }
}

/// Compares a table of structs with the description of its elements: name, members and the distance
/// between elements.
fn check_rows(
    row: &StructDef,
    variable: &str,
    module: &naga::Module,
    ty: naga::Handle<naga::Type>,
) -> std::result::Result<(), String> {
    let naga::TypeInner::Array { base, stride, .. } = module.types[ty].inner else {
        return Err(format!("{variable} is no array in WGSL and a table of {} in Rust", row.name));
    };
    let element = &module.types[base];
    let naga::TypeInner::Struct { ref members, .. } = element.inner else {
        return Err(format!("elements of {variable} are no structs in WGSL and {} in Rust", row.name));
    };
    let name = element.name.as_deref().unwrap_or("?");
    if name != row.name {
        return Err(format!("elements of {variable} are called {name} in WGSL and {} in Rust", row.name));
    }
    check_members(name, module, members, row.fields)?;
    let size = 4 * row.fields.len();
    if stride as usize != size {
        return Err(format!("a {name} takes {stride} bytes in WGSL and {size} in Rust"));
    }
    Ok(())
}

/// Compares the members of a struct with their description: names, types and places.
fn check_members(
    name: &str,
    module: &naga::Module,
    members: &[naga::StructMember],
    fields: &[Field],
) -> std::result::Result<(), String> {
    if members.len() != fields.len() {
        return Err(format!("{name} has {} members in WGSL and {} in Rust", members.len(), fields.len()));
    }
    for (i, (member, field)) in members.iter().zip(fields).enumerate() {
        let scalar = match field.scalar {
            Scalar::U32 => naga::Scalar::U32,
            Scalar::I32 => naga::Scalar::I32,
            Scalar::F32 => naga::Scalar::F32,
        };
        let same = member.name.as_deref() == Some(field.name)
            && module.types[member.ty].inner == naga::TypeInner::Scalar(scalar)
            && member.offset as usize == 4 * i;
        if !same {
            return Err(format!("member {i} of {name} is {:?} in WGSL and {field:?} in Rust", member.name));
        }
    }
    Ok(())
}

fn check_params(
    kernel: &KernelDef,
    module: &naga::Module,
    variable: &naga::GlobalVariable,
) -> std::result::Result<(), String> {
    let naga::TypeInner::Struct { ref members, .. } = module.types[variable.ty].inner else {
        return Err("binding 0 is not the struct Params".into());
    };
    if variable.space != naga::AddressSpace::Uniform {
        return Err("Params is not in uniform memory".into());
    }
    check_members("Params", module, members, kernel.params)
}
