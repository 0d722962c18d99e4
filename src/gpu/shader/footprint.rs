//! The resources a linked kernel needs, read from its WGSL by reflection, and WebGPU's default
//! limits.
//!
//! It looks at no device: [`crate::gpu::DeviceLimits`] holds the limits of one.

use crate::error::Result;

/// Maximum workgroup memory of our kernels: WebGPU's default limit.
pub const MAX_WORKGROUP_BYTES: u32 = 16 << 10;
/// Maximum invocations of a workgroup: WebGPU's default limit.
pub const MAX_INVOCATIONS: u32 = 256;
/// Maximum invocations along the z axis: WebGPU's default limit.
pub const MAX_INVOCATIONS_Z: u32 = 64;
/// Maximum storage buffers of a kernel: WebGPU's default limit.
pub const MAX_STORAGE_BUFFERS: u32 = 8;

/// The resources that a kernel needs for one workgroup and one dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of all `var<workgroup>`, each rounded up to 16 as devices may lay them out.
    pub workgroup_bytes: u32,
    /// Size of a workgroup along each axis.
    pub workgroup_size: [u32; 3],
    /// Uniform buffers.
    pub uniform_buffers: u32,
    /// Storage buffers, read-only and writable.
    pub storage_buffers: u32,
    /// Writable storage buffers.
    pub writable_buffers: u32,
}

impl Footprint {
    /// The footprint of a module with a compute entry point and no open overrides: see
    /// [`Linked::resolved`](super::Linked::resolved).
    pub fn of(module: &naga::Module) -> Result<Self> {
        let Some(entry) = module.entry_points.first() else { crate::bail!("the shader has no entry point") };
        let mut needs = Self { workgroup_size: entry.workgroup_size, ..Self::default() };
        for (_, variable) in module.global_variables.iter() {
            match variable.space {
                naga::AddressSpace::WorkGroup => {
                    let size = module.types[variable.ty].inner.try_size(module.to_ctx());
                    let Some(size) = size else { crate::bail!("a workgroup variable has no fixed size") };
                    needs.workgroup_bytes += size.next_multiple_of(16);
                }
                naga::AddressSpace::Uniform => needs.uniform_buffers += 1,
                naga::AddressSpace::Storage { access } => {
                    needs.storage_buffers += 1;
                    needs.writable_buffers += u32::from(access.contains(naga::StorageAccess::STORE));
                }
                _ => {}
            }
        }
        Ok(needs)
    }

    /// Invocations of a workgroup.
    pub fn invocations(&self) -> u32 {
        self.workgroup_size.iter().product()
    }

    /// One sentence for each of WebGPU's default limits that it exceeds.
    pub fn excesses(&self) -> Vec<String> {
        let Self { workgroup_bytes, storage_buffers, .. } = *self;
        let limits = [
            ("bytes of workgroup memory", workgroup_bytes, MAX_WORKGROUP_BYTES),
            ("invocations in a workgroup", self.invocations(), MAX_INVOCATIONS),
            ("invocations along z", self.workgroup_size[2], MAX_INVOCATIONS_Z),
            ("storage buffers", storage_buffers, MAX_STORAGE_BUFFERS),
        ];
        limits
            .into_iter()
            .filter(|(_, n, most)| n > most)
            .map(|(what, n, most)| format!("{n} {what}; at most {most}"))
            .collect()
    }
}
