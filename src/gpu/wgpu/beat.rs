//! A count on the device to which every submit adds one, so that the host notices dropped work.
//!
//! A driver may drop a command buffer: its watchdog kills a kernel, or memory runs out when the work
//! begins. wgpu 30 takes such a command buffer for a finished one on Metal
//! (<https://github.com/gfx-rs/wgpu/issues/9545>), so results would be zeros or what memory held
//! before. Every command buffer ends with a dispatch that adds one to a word, and every read-back
//! copies that word beside the data. The host counts submits too and compares. All results leave
//! the device through read-backs, so nothing wrong gets out.

use std::sync::atomic::{AtomicU32, Ordering};

use super::faults::Faults;
use super::pool::create;
use crate::error::{Context, Result};

/// Adds one. The largest count is followed by 1, so that zeroed memory is never a right count.
const WGSL: &str = "
@group(0) @binding(0) var<storage, read_write> beat: u32;

@compute @workgroup_size(1)
fn count() {
    beat = select(beat + 1u, 1u, beat == 0xffffffffu);
}
";

/// The count after `count`, as the shader computes it.
fn after(count: u32) -> u32 {
    count.checked_add(1).unwrap_or(1)
}

/// The count of one device, there and here.
pub(super) struct Beat {
    buffer: wgpu::Buffer,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    submitted: AtomicU32,
    /// Whether a test has the driver drop the next submit.
    #[cfg(any(test, feature = "testing"))]
    drops_next: std::sync::atomic::AtomicBool,
}

impl Beat {
    /// Bytes of the count.
    pub(super) const BYTES: u64 = 4;

    /// A count that starts at 0 in fresh memory.
    pub(super) fn new(device: &wgpu::Device, faults: &Faults) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = create(device, faults, "beat", Self::BYTES, usage)?;
        let label = Some("beat");
        let source = wgpu::ShaderSource::Wgsl(WGSL.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: None,
            module: &module,
            entry_point: Some("count"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
        });
        faults.check().context("preparing the count of submits")?;
        Ok(Self {
            buffer,
            pipeline,
            group,
            submitted: AtomicU32::new(0),
            #[cfg(any(test, feature = "testing"))]
            drops_next: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Appends the dispatch that adds one.
    pub(super) fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }

    /// Appends a copy of the count to `offset` of a buffer.
    pub(super) fn copy(&self, encoder: &mut wgpu::CommandEncoder, to: &wgpu::Buffer, offset: u64) {
        encoder.copy_buffer_to_buffer(&self.buffer, 0, to, offset, Self::BYTES);
    }

    /// Counts a submit on the host; returns the count that the device has after it.
    pub(super) fn submitted(&self) -> u32 {
        let count = after(self.submitted.load(Ordering::Relaxed));
        self.submitted.store(count, Ordering::Relaxed);
        count
    }

    /// Marks the device as lost if it counted otherwise than the host.
    pub(super) fn compare(counted: u32, submitted: u32, faults: &Faults) -> Result<()> {
        if counted != submitted {
            faults.set_lost(format!(
                "the driver dropped work: it counted {counted} submits of {submitted}, so what it computed is wrong"
            ));
        }
        faults.check()
    }
}

#[cfg(any(test, feature = "testing"))]
impl Beat {
    /// Has the driver drop the next submit.
    pub(super) fn drop_next(&self) {
        self.drops_next.store(true, Ordering::Relaxed);
    }

    /// Whether the submit at hand is to be dropped.
    pub(super) fn takes_drop(&self) -> bool {
        self.drops_next.swap(false, Ordering::Relaxed)
    }

    /// Continues from another count, on the device and on the host.
    pub(super) fn continue_from(&self, count: u32, queue: &wgpu::Queue) {
        queue.write_buffer(&self.buffer, 0, &count.to_le_bytes());
        self.submitted.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn no_count_is_zero() {
        assert_eq!(after(0), 1);
        assert_eq!(after(u32::MAX - 1), u32::MAX);
        assert_eq!(after(u32::MAX), 1);
    }

    #[test]
    fn another_count_loses_the_device() {
        let faults = Faults::default();
        Beat::compare(7, 7, &faults).unwrap();
        let e = Beat::compare(6, 7, &faults).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::DeviceLost);
        let text = e.to_string();
        assert!(text.contains("dropped work: it counted 6 submits of 7") && text.contains("`device` cpu"), "{text}");
        Beat::compare(7, 7, &faults).expect_err("a lost device stays lost");
    }
}
