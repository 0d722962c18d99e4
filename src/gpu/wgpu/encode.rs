//! Encodes commands for one wgpu submit: parameters, passes and, on request, timestamps.

use std::ops::Range;

use super::device::WgpuDevice;
use super::pool::create;
use super::replay::{Prepared, Ready};
use super::timestamps::Timestamps;
use crate::error::Result;
use crate::gpu::{Recording, texels};

/// Distance between parameter blocks in the uniform buffer (WebGPU's uniform offset alignment), in
/// bytes.
const PARAM_STRIDE: usize = 256;

/// The parameter blocks of all dispatches of a recording, laid out for [`Encoding::encode`]. Never
/// empty.
fn param_bytes(recording: &Recording) -> Vec<u8> {
    let mut bytes = Vec::new();
    for d in recording.dispatches() {
        let start = bytes.len();
        bytes.extend_from_slice(&d.params);
        bytes.resize(start + PARAM_STRIDE, 0);
    }
    bytes.resize(bytes.len().max(PARAM_STRIDE), 0);
    bytes
}

/// The uniform buffer of a device. It grows with the longest recording.
#[derive(Default)]
pub(super) struct ParamBuffer(Option<wgpu::Buffer>);

impl ParamBuffer {
    /// Writes the parameter blocks of a recording; commands queued earlier still read their own.
    pub(super) fn upload(&mut self, gpu: &WgpuDevice, recording: &Recording) -> Result<wgpu::Buffer> {
        let bytes = param_bytes(recording);
        let need = bytes.len() as u64;
        let buffer = match self.0.take().filter(|b| b.size() >= need) {
            Some(buffer) => buffer,
            None => {
                let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
                create(&gpu.device, &gpu.faults, "parameters", need.next_power_of_two(), usage)?
            }
        };
        gpu.queue.write_buffer(&buffer, 0, &bytes);
        self.0 = Some(buffer.clone());
        Ok(buffer)
    }
}

/// The inputs of encoding: everything is already compiled, allocated, bound and uploaded.
pub(super) struct Encoding<'a> {
    pub(super) gpu: &'a WgpuDevice,
    pub(super) prepared: &'a Prepared,
}

impl Encoding<'_> {
    /// Encodes a range of the commands. Adjacent dispatches share a pass, unless textures are
    /// filled between them.
    pub(super) fn encode(&self, commands: Range<usize>) -> wgpu::CommandEncoder {
        let mut encoder = self.gpu.encoder();
        let mut at = commands.start;
        while at < commands.end {
            if !self.is_dispatch(at) {
                self.transfer(&mut encoder, at);
                at += 1;
                continue;
            }
            self.copy_texels(&mut encoder, at);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let first = at;
            while at < commands.end && self.is_dispatch(at) && (at == first || !self.reads_texels(at)) {
                self.dispatch(&mut pass, at);
                at += 1;
            }
        }
        encoder
    }

    /// Like [`Encoding::encode`], with one pass and two timestamps per command.
    pub(super) fn encode_timed(&self, commands: Range<usize>, timestamps: &Timestamps) -> wgpu::CommandEncoder {
        let mut encoder = self.gpu.encoder();
        let n = commands.len();
        for (i, at) in commands.enumerate() {
            if self.is_dispatch(at) && self.reads_texels(at) {
                drop(encoder.begin_compute_pass(&timestamps.before(i)));
                self.copy_texels(&mut encoder, at);
                let mut pass = encoder.begin_compute_pass(&timestamps.at_end_of(i));
                self.dispatch(&mut pass, at);
            } else if self.is_dispatch(at) {
                let mut pass = encoder.begin_compute_pass(&timestamps.around(i));
                self.dispatch(&mut pass, at);
            } else {
                // Timestamps are portable only at the ends of passes, so a copy or clear is placed
                // between two empty passes.
                drop(encoder.begin_compute_pass(&timestamps.before(i)));
                self.transfer(&mut encoder, at);
                drop(encoder.begin_compute_pass(&timestamps.after(i)));
            }
        }
        timestamps.resolve(&mut encoder, n);
        encoder
    }

    fn is_dispatch(&self, at: usize) -> bool {
        matches!(self.prepared.commands[at], Ready::Dispatch { .. })
    }

    /// Whether dispatch `at` reads textures, which are filled between passes.
    fn reads_texels(&self, at: usize) -> bool {
        !self.prepared.bound(at).texels.is_empty()
    }

    /// Fills the textures that dispatch `at` reads, if any.
    fn copy_texels(&self, encoder: &mut wgpu::CommandEncoder, at: usize) {
        for (part, texture) in &self.prepared.bound(at).texels {
            texels::copy(encoder, self.prepared.storage(*part), *part, texture);
        }
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, at: usize) {
        let Ready::Dispatch { number, pipeline, groups: [x, y, z], .. } = &self.prepared.commands[at] else {
            unreachable!("asked for by is_dispatch")
        };
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &self.prepared.bound(at).group, &[(number * PARAM_STRIDE) as u32]);
        pass.dispatch_workgroups(*x, *y, *z);
    }

    /// Encodes a copy or a clear.
    fn transfer(&self, encoder: &mut wgpu::CommandEncoder, at: usize) {
        let storage = |part| self.prepared.storage(part);
        match self.prepared.commands[at] {
            Ready::Copy { from, to } => {
                encoder.copy_buffer_to_buffer(storage(from), from.offset, storage(to), to.offset, from.len);
            }
            Ready::Clear(part) => encoder.clear_buffer(storage(part), part.offset, Some(part.len)),
            Ready::Dispatch { .. } => unreachable!("a dispatch needs a pass"),
        }
    }
}
