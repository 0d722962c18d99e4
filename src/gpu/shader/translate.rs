//! Translates a linked kernel to the drivers' languages, with the options that wgpu passes to naga.
//!
//! A device runs the output of one of naga's back ends on our WGSL, and a machine has one or two of
//! them. Running all four without a device finds a kernel that Metal or DX12 would reject on any
//! machine. Nothing here validates the output: see `conformance/validator.rs`.

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

use super::Linked;
use super::footprint::Footprint;
use crate::error::{Error, Result};
use crate::gpu::{Access, Binding, Features, KernelDef};

/// A target language of naga, as a driver takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// SPIR-V 1.3, for Vulkan.
    SpirV,
    /// Metal Shading Language 2.4.
    Msl,
    /// HLSL for DX12: shader model 6.0, or 6.2 where f16 is used.
    Hlsl,
    /// GLSL ES 3.10, for GL. It has neither subgroups nor f16.
    GlslEs,
}

impl Target {
    /// Every target.
    pub const ALL: [Target; 4] = [Target::SpirV, Target::Msl, Target::Hlsl, Target::GlslEs];

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Target::SpirV => "SPIR-V",
            Target::Msl => "MSL",
            Target::Hlsl => "HLSL",
            Target::GlslEs => "GLSL ES",
        }
    }

    /// One sentence for each limit of the language's drivers that a kernel exceeds. WebGPU's own
    /// limits: [`Footprint::excesses`].
    fn excesses(self, needs: &Footprint) -> Vec<String> {
        let buffers = needs.uniform_buffers + needs.storage_buffers;
        let limits: &[(&str, u32, u32)] = match self {
            // 31 slots; wgpu uses one for buffer sizes and one for immediates.
            Target::Msl => {
                &[("buffers", buffers, 29), ("bytes of threadgroup memory", needs.workgroup_bytes, 32 << 10)]
            }
            // Feature level 11 has 8 unordered access views.
            Target::Hlsl => &[
                ("writable buffers", needs.writable_buffers, 8),
                ("bytes of group-shared memory", needs.workgroup_bytes, 32 << 10),
            ],
            Target::SpirV | Target::GlslEs => &[],
        };
        let over = limits.iter().filter(|(_, n, most)| n > most);
        over.map(|(what, n, most)| format!("{n} {what}; {} has at most {most}", self.name())).collect()
    }
}

/// Whether naga adds bounds checks, loop bounds and checked division, as wgpu does for untrusted
/// shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// As our executor runs kernels.
    Off,
    /// As a checked device and browsers run them.
    On,
}

/// The kernel in a target's language: SPIR-V words in little-endian order, or text. None where the
/// language lacks what the kernel needs (subgroups or f16 on GLSL ES).
///
/// Errors name the kernel and the target, and the limit that it exceeds or naga's message.
pub fn translate(linked: &Linked, target: Target, checks: Checks) -> Result<Option<Vec<u8>>> {
    let kernel = linked.kernel();
    let features = linked.features();
    if target == Target::GlslEs && features != Features::NONE {
        return Ok(None);
    }
    let fail = |what: String| Error::new(format!("kernel {} for {}: {what}", kernel.name(), target.name()));
    let (module, info) = linked.resolved()?;
    let source = Source { kernel, module: &module, info: &info, features, checks };
    let needs = Footprint::of(&module).map_err(|e| fail(e.to_string()))?;
    if let Some(excess) = needs.excesses().into_iter().chain(target.excesses(&needs)).next() {
        return Err(fail(excess));
    }
    let code = match target {
        Target::SpirV => to_spirv(&source),
        Target::Msl => to_msl(&source),
        Target::Hlsl => to_hlsl(&source),
        Target::GlslEs => to_glsl(&source),
    };
    code.map(Some).map_err(fail)
}

/// The input of the back ends.
struct Source<'a> {
    kernel: &'a KernelDef,
    module: &'a naga::Module,
    info: &'a naga::valid::ModuleInfo,
    features: Features,
    checks: Checks,
}

/// Vulkan and Metal: restrict indices, or check nothing.
fn policies(checks: Checks) -> BoundsCheckPolicies {
    let policy = match checks {
        Checks::Off => BoundsCheckPolicy::Unchecked,
        Checks::On => BoundsCheckPolicy::Restrict,
    };
    BoundsCheckPolicies {
        index: policy,
        buffer: policy,
        image_load: policy,
        binding_array: BoundsCheckPolicy::Unchecked,
    }
}

/// The resources of a kernel in order; the first, without a binding, is the parameter block.
fn resources(kernel: &KernelDef) -> impl Iterator<Item = (naga::ResourceBinding, Option<&Binding>)> {
    let numbered = std::iter::once(None).chain(kernel.bindings.iter().map(Some)).enumerate();
    numbered.map(|(i, binding)| (naga::ResourceBinding { group: 0, binding: i as u32 }, binding))
}

fn to_spirv(source: &Source) -> std::result::Result<Vec<u8>, String> {
    use spv::Capability as C;
    let mut capabilities = vec![C::Shader, C::Matrix, C::Sampled1D, C::Image1D, C::ImageQuery, C::DerivativeControl];
    capabilities.push(C::StorageImageExtendedFormats);
    if source.features.subgroups {
        let vote = [C::GroupNonUniform, C::GroupNonUniformVote, C::GroupNonUniformArithmetic, C::GroupNonUniformBallot];
        capabilities.extend(vote);
        capabilities.extend([C::GroupNonUniformShuffle, C::GroupNonUniformShuffleRelative, C::GroupNonUniformQuad]);
    }
    if source.features.f16 {
        capabilities.push(C::Float16);
    }
    let place = |(r, _): (naga::ResourceBinding, _)| {
        (r, spv::BindingInfo { descriptor_set: r.group, binding: r.binding, binding_array_size: None })
    };
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        capabilities: Some(capabilities.into_iter().collect()),
        bounds_check_policies: policies(source.checks),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: source.checks == Checks::On,
        emit_int_div_checks: source.checks == Checks::On,
        binding_map: resources(source.kernel).map(place).collect(),
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: source.kernel.entry_point().to_string(),
    };
    let words = spv::write_vec(source.module, source.info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

fn to_msl(source: &Source) -> std::result::Result<Vec<u8>, String> {
    let entry = source.kernel.entry_point().to_string();
    let place = |(r, binding): (naga::ResourceBinding, Option<&Binding>)| {
        let slot = Some(r.binding as u8);
        let texels = binding.is_some_and(|b| b.texels);
        let (buffer, texture) = if texels { (None, slot) } else { (slot, None) };
        let mutable = binding.is_some_and(|b| b.access != Access::Read);
        (r, msl::BindTarget { buffer, texture, mutable, ..msl::BindTarget::default() })
    };
    let slots = msl::EntryPointResources {
        resources: resources(source.kernel).map(place).collect(),
        sizes_buffer: Some(source.kernel.bindings.len() as u8 + 1),
        immediates_buffer: None,
    };
    let options = msl::Options {
        lang_version: (2, 4),
        per_entry_point_map: [(entry.clone(), slots)].into_iter().collect(),
        fake_missing_bindings: false,
        bounds_check_policies: policies(source.checks),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: source.checks == Checks::On,
        emit_int_div_checks: source.checks == Checks::On,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, entry)),
        vertex_pulling_transform: true,
        ..msl::PipelineOptions::default()
    };
    let (text, found) =
        msl::write_string(source.module, source.info, &options, &pipeline).map_err(|e| e.to_string())?;
    found.entry_point_names.into_iter().collect::<std::result::Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    Ok(text.into_bytes())
}

/// Registers as wgpu numbers them: the parameter block is a root descriptor, read-only buffers are
/// t, others u.
fn to_hlsl(source: &Source) -> std::result::Result<Vec<u8>, String> {
    let (mut n_read, mut n_written) = (0, 0);
    let mut next = |binding: Option<&Binding>| {
        let counter = match binding.map(|b| b.access) {
            None => return 0,
            Some(Access::Read) => &mut n_read,
            Some(_) => &mut n_written,
        };
        *counter += 1;
        *counter - 1
    };
    let binding_map = resources(source.kernel)
        .map(|(r, binding)| {
            let restrict_indexing = binding.is_none();
            (r, hlsl::BindTarget { register: next(binding), restrict_indexing, ..hlsl::BindTarget::default() })
        })
        .collect();
    let options = hlsl::Options {
        shader_model: if source.features.f16 { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V6_0 },
        binding_map,
        fake_missing_bindings: false,
        special_constants_binding: Some(hlsl::BindTarget { register: 1, ..hlsl::BindTarget::default() }),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: source.checks == Checks::On,
        force_loop_bounding: source.checks == Checks::On,
        ..hlsl::Options::default()
    };
    let pipeline = hlsl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, source.kernel.entry_point().to_string())),
    };
    let mut text = String::new();
    let found = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(source.module, source.info, None)
        .map_err(|e| e.to_string())?;
    found.entry_point_names.into_iter().collect::<std::result::Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    Ok(text.into_bytes())
}

/// GL itself bounds accesses, so wgpu never asks naga to. Uniform and storage buffers are numbered
/// separately.
fn to_glsl(source: &Source) -> std::result::Result<Vec<u8>, String> {
    let slot =
        |(r, binding): (naga::ResourceBinding, Option<&Binding>)| (r, binding.map_or(0, |_| r.binding as u8 - 1));
    let options = glsl::Options {
        version: glsl::Version::Embedded { version: 310, is_webgl: false },
        writer_flags: glsl::WriterFlags::ADJUST_COORDINATE_SPACE | glsl::WriterFlags::FORCE_POINT_SIZE,
        binding_map: resources(source.kernel).map(slot).collect(),
        zero_initialize_workgroup_memory: false,
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: source.kernel.entry_point().to_string(),
        multiview: None,
    };

    let mut text = String::new();
    let mut writer =
        glsl::Writer::new(&mut text, source.module, source.info, &options, &pipeline, policies(Checks::Off))
            .map_err(|e| e.to_string())?;
    writer.write().map_err(|e| e.to_string())?;
    Ok(text.into_bytes())
}
