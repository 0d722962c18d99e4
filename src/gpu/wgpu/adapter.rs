//! The graphics adapters of this machine in a fixed order, and their choice by name or number.

use super::open_options::{LimitSet, features_of};
use crate::error::{Error, Result};
use crate::gpu::Features;

/// Properties of an adapter, known before it is opened.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// Position in [`adapters`], the INDEX of `--device`.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: &'static str,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub device_type: &'static str,
    /// The vendor's number of the device; 0 if unknown.
    pub device_id: u32,
    /// The vendor: a name for known PCI vendors, else the id in hexadecimal.
    pub vendor: String,
    /// Driver name and version.
    pub driver: String,
    /// Smallest and largest subgroup size; both 0 if unknown.
    pub subgroup_sizes: (u32, u32),
    /// Optional features that Longreach can use.
    pub features: Vec<&'static str>,
    /// Bytes of memory, where the backend tells: its largest heap of its own (Vulkan), or what it
    /// can use with good performance (Metal).
    pub memory_bytes: Option<u64>,
    /// The adapter's own limits.
    pub limits: wgpu::Limits,
    /// What it offers.
    pub(super) offered: wgpu::Features,
    pub(super) adapter: wgpu::Adapter,
}

impl AdapterReport {
    fn new(index: usize, adapter: wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let features = adapter.features();
        let known = [
            ("subgroups", wgpu::Features::SUBGROUP),
            ("shader-f16", wgpu::Features::SHADER_F16),
            ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
        ];
        Self {
            index,
            backend: backend_name(info.backend),
            device_type: type_name(info.device_type, &info.name),
            device_id: info.device,
            vendor: vendor_name(info.vendor),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
            features: known.iter().filter(|(_, f)| features.contains(*f)).map(|(n, _)| *n).collect(),
            memory_bytes: memory_bytes(&adapter),
            limits: adapter.limits(),
            offered: features,
            name: info.name,
            adapter,
        }
    }

    /// The features for which kernels have a variant.
    pub fn kernel_features(&self) -> Features {
        features_of(self.offered, self.subgroup_sizes.1)
    }

    /// The limits relevant to kernels, by their WebGPU names, as a device opened with `limits` has
    /// them.
    pub fn named_limits(&self, limits: LimitSet) -> Vec<(&'static str, u64)> {
        let l = limits.of(&self.limits);
        vec![
            ("maxStorageBufferBindingSize", l.max_storage_buffer_binding_size),
            ("maxBufferSize", l.max_buffer_size),
            ("maxStorageBuffersPerShaderStage", l.max_storage_buffers_per_shader_stage.into()),
            ("maxComputeWorkgroupStorageSize", l.max_compute_workgroup_storage_size.into()),
            ("maxComputeInvocationsPerWorkgroup", l.max_compute_invocations_per_workgroup.into()),
            ("maxComputeWorkgroupsPerDimension", l.max_compute_workgroups_per_dimension.into()),
        ]
    }

    /// The fewest workgroups of attention that are worth a dispatch of their own. A wide GPU would be
    /// idle with a few, and is fast enough for many.
    pub(in crate::gpu) fn fewest_groups(&self) -> usize {
        match self.device_type {
            "discrete" | "virtual" => 256,
            _ => 32,
        }
    }

    /// Whether this adapter runs on the CPU. Such adapters are used only when named.
    pub fn is_software(&self) -> bool {
        self.device_type == "software"
    }
}

#[cfg(not(target_vendor = "apple"))]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    /// VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the guard keeps the physical device alive, and the query only reads its properties.
    let heaps = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    let own = heaps.memory_heaps_as_slice().iter().filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0);
    own.map(|heap| heap.size).max()
}

#[cfg(target_vendor = "apple")]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    use objc2_metal::MTLDevice as _;
    // SAFETY: the guard keeps the device alive, and the call only reads a property.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>()? };
    Some(adapter.raw_device().recommendedMaxWorkingSetSize()).filter(|bytes| *bytes > 0)
}

fn backend_name(backend: wgpu::Backend) -> &'static str {
    match backend {
        wgpu::Backend::Vulkan => "vulkan",
        wgpu::Backend::Metal => "metal",
        wgpu::Backend::Dx12 => "dx12",
        wgpu::Backend::Gl => "gl",
        _ => "other",
    }
}

/// Names of PCI vendor ids, and of the ids that Khronos assigned to software.
fn vendor_name(id: u32) -> String {
    let known = match id {
        0x1002 => "AMD",
        0x1010 => "Imagination",
        0x106b => "Apple",
        0x10de => "NVIDIA",
        0x13b5 => "Arm",
        0x1414 => "Microsoft",
        0x1ae0 => "Google",
        0x5143 => "Qualcomm",
        0x8086 => "Intel",
        0x10005 => "Mesa",
        _ => return format!("{id:#06x}"),
    };
    known.to_string()
}

fn type_name(device_type: wgpu::DeviceType, name: &str) -> &'static str {
    let software = ["llvmpipe", "swiftshader", "softpipe", "basic render driver"];
    let lower = name.to_lowercase();
    if software.iter().any(|s| lower.contains(s)) {
        return "software"; // the GL backend guesses its type from strings
    }
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

/// Every adapter of the machine that can run compute shaders: hardware before software, discrete
/// before integrated, GL last; otherwise in driver order.
pub fn adapters() -> Vec<AdapterReport> {
    adapters_of(wgpu::Backends::all())
}

/// The adapters among which `auto` chooses: without GL, since probing it is slow and opens the
/// window system.
pub(in crate::gpu) fn primary_adapters() -> Vec<AdapterReport> {
    adapters_of(wgpu::Backends::PRIMARY)
}

/// The adapters of these backends, which refuse a buffer or a texture that would take them beyond so
/// many percent of the memory that the system grants (wgpu asks on DX12 and Vulkan).
fn found_by(backends: wgpu::Backends, percent: Option<u8>) -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.flags = wgpu::InstanceFlags::empty();
    descriptor.backends = backends;
    descriptor.memory_budget_thresholds.for_resource_creation = percent;
    let instance = wgpu::Instance::new(descriptor);
    pollster::block_on(instance.enumerate_adapters(backends))
}

fn adapters_of(backends: wgpu::Backends) -> Vec<AdapterReport> {
    // DirectX grants more than there is and moves the rest to the disk. Vulkan has no percentage:
    // there wgpu applies it also to its staging buffers, for which it expects the small window of
    // device memory that the host can write, and it gives the device up when one does not fit.
    let mut found = found_by(backends - wgpu::Backends::DX12, None);
    if cfg!(windows) {
        found.extend(found_by(backends & wgpu::Backends::DX12, Some(95)));
    }
    let compute = wgpu::DownlevelFlags::COMPUTE_SHADERS;
    found.retain(|a| a.get_downlevel_capabilities().flags.contains(compute));
    let mut reports: Vec<_> = found.into_iter().map(|a| AdapterReport::new(0, a)).collect();
    let rank = |r: &AdapterReport| {
        let kind = ["discrete", "integrated", "virtual", "other", "software"];
        (r.backend == "gl", kind.iter().position(|k| *k == r.device_type))
    };
    reports.sort_by_key(rank);
    reports.iter_mut().enumerate().for_each(|(i, r)| r.index = i);
    reports
}

/// The adapter that `auto` uses: the first hardware one, or `None` (then the CPU executor runs).
pub fn auto_adapter(adapters: &[AdapterReport]) -> Option<&AdapterReport> {
    let hardware = |a: &&AdapterReport| matches!(a.device_type, "discrete" | "integrated" | "virtual");
    adapters.iter().find(|a| hardware(a) && a.backend != "gl")
}

/// The adapter with this index, or whose name contains this text; a prefix `vulkan:`, `gl:`,
/// `metal:` or `dx12:` narrows it.
pub fn find_adapter<'a>(adapters: &'a [AdapterReport], wanted: &str) -> Result<&'a AdapterReport> {
    let refuse = |why: &str| {
        let list: Vec<_> = adapters.iter().map(|a| format!("{}: {}:{}", a.index, a.backend, a.name)).collect();
        let list = if list.is_empty() { "none".to_string() } else { list.join("; ") };
        Error::usage(format!("`device` {wanted}: {why}; this machine has: {list}. `auto` and `cpu` always work"))
    };
    if let Ok(index) = wanted.parse::<usize>() {
        return adapters.get(index).ok_or_else(|| refuse("no adapter has this number"));
    }
    let (backend, name) = match wanted.split_once(':') {
        Some((b, rest)) if ["vulkan", "gl", "metal", "dx12"].contains(&b.to_lowercase().as_str()) => {
            (Some(b.to_lowercase()), rest)
        }
        _ => (None, wanted),
    };
    let name = name.to_lowercase();
    if name.is_empty() && backend.is_none() {
        return Err(refuse("an empty name would fit any adapter"));
    }
    let fits =
        |a: &&AdapterReport| backend.as_deref().is_none_or(|b| b == a.backend) && a.name.to_lowercase().contains(&name);
    adapters.iter().find(fits).ok_or_else(|| refuse("no adapter fits this name"))
}
