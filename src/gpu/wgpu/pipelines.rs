//! Kernels compiled for one wgpu device: one pipeline per kernel and constant values.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::faults::Faults;
use crate::error::{Error, ErrorKind};
use crate::gpu::{Access, Binding, Dispatch, Features, KernelDef, shader, texels};

/// A compiled kernel and its bind group layout.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Why kernels failed to compile, and the kernel that caused it, if known.
pub(super) struct NotCompiled {
    pub(super) kernel: Option<&'static KernelDef>,
    pub(super) error: Error,
}

/// Label, suffix and constants of a kernel.
type Key = (&'static str, &'static str, Vec<u32>);

fn key(d: &Dispatch) -> Key {
    (d.kernel.label, d.kernel.suffix, d.constants.clone())
}

/// The pipeline cache of one device.
pub(super) struct Pipelines {
    made: HashMap<Key, Pipeline>,
    /// Keep naga's bounds checks and loop bounding.
    checked: bool,
}

impl Pipelines {
    /// An empty cache.
    pub(super) fn new(checked: bool) -> Self {
        Self { made: HashMap::new(), checked }
    }

    /// The pipeline of a dispatch that `prepare` has seen.
    pub(super) fn get(&self, d: &Dispatch) -> &Pipeline {
        &self.made[&key(d)]
    }

    /// Compiles the kernels that are not in the cache, in the variant for `features`. It compiles
    /// in parallel, since drivers compile on the calling thread. A device's features are fixed once
    /// a kernel with a variant for them has been compiled.
    pub(super) fn prepare<'d>(
        &mut self,
        device: &wgpu::Device,
        faults: &Faults,
        dispatches: impl Iterator<Item = &'d Dispatch>,
        features: Features,
    ) -> std::result::Result<(), NotCompiled> {
        let mut seen = HashSet::new();
        let new: Vec<&Dispatch> =
            dispatches.filter(|d| !self.made.contains_key(&key(d)) && seen.insert(key(d))).collect();
        let compile = |d: &Dispatch| self.compile(device, d.kernel, &d.constants, features);
        let made = new.par_iter().map(|d| compile(d)).collect::<Vec<_>>();
        if let Err(error) = faults.check() {
            return Err(match error.kind() {
                ErrorKind::Failed => culprit(&new, &compile, faults, features, error),
                _ => NotCompiled { kernel: None, error },
            });
        }
        self.made.extend(new.into_iter().map(key).zip(made));
        Ok(())
    }

    fn compile(
        &self,
        device: &wgpu::Device,
        kernel: &'static KernelDef,
        constants: &[u32],
        features: Features,
    ) -> Pipeline {
        let label = Some(kernel.label);
        let layout = layout(device, kernel);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let text = shader::link(kernel, constants, features);
        let descriptor = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(text.into()) };
        let module = if self.checked {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: kernels guard their own accesses; `checked` devices run the same tests with
            // naga's checks in place.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    }
}

/// Compiles kernels again, one at a time, to find the one that caused `error`.
fn culprit(
    dispatches: &[&Dispatch],
    compile: &dyn Fn(&Dispatch) -> Pipeline,
    faults: &Faults,
    features: Features,
    error: Error,
) -> NotCompiled {
    for d in dispatches {
        compile(d);
        if let Err(e) = faults.check() {
            if e.kind() != ErrorKind::Failed {
                return NotCompiled { kernel: None, error: e };
            }
            let by_driver = || e.context(format!("compiling kernel {}", d.kernel.name()));
            let error = shader::check(d.kernel, &d.constants, features).err().unwrap_or_else(by_driver);
            return NotCompiled { kernel: Some(d.kernel), error };
        }
    }
    NotCompiled { kernel: None, error: error.context("compiling kernels side by side") }
}

/// Binding 0 is the parameter block, at a dynamic offset; buffers and textures follow.
fn layout(device: &wgpu::Device, kernel: &KernelDef) -> wgpu::BindGroupLayout {
    let buffer = |ty, has_dynamic_offset| wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None };
    let storage = |b: &Binding| match b.texels {
        true => texels::binding_type(b.kind),
        false => buffer(wgpu::BufferBindingType::Storage { read_only: b.access == Access::Read }, false),
    };
    let types = std::iter::once(buffer(wgpu::BufferBindingType::Uniform, true));
    let entry = |(binding, ty)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty,
        count: None,
    };
    let entries: Vec<_> = (0..).zip(types.chain(kernel.bindings.iter().map(storage))).map(entry).collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.label), entries: &entries })
}
