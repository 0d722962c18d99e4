//! Commands of a recording as a command buffer of wgpu: bind groups, passes, and timestamps where they are asked for.

use std::collections::HashMap;

use super::pipelines::Pipelines;
use super::timestamps::Timestamps;
use super::{Command, Dispatch, Recording};

/// Parameter blocks lie this many bytes apart in the uniform buffer (WebGPU's uniform offset alignment).
const PARAM_STRIDE: usize = 256;

/// The parameter blocks of all dispatches of a recording, as [`Encoding::encode`] finds them. Never empty.
pub(super) fn param_bytes(recording: &Recording) -> Vec<u8> {
    let mut bytes = Vec::new();
    for d in recording.dispatches() {
        let start = bytes.len();
        bytes.extend_from_slice(&d.params);
        bytes.resize(start + PARAM_STRIDE, 0);
    }
    bytes.resize(bytes.len().max(PARAM_STRIDE), 0);
    bytes
}

/// What encoding needs: everything is compiled, allocated and uploaded before.
pub(super) struct Encoding<'a> {
    pub(super) device: &'a wgpu::Device,
    pub(super) pipelines: &'a Pipelines,
    pub(super) params: &'a wgpu::Buffer,
    /// Of every buffer that the recording names, by id.
    pub(super) buffers: &'a HashMap<u64, wgpu::Buffer>,
}

impl Encoding<'_> {
    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None })
    }

    /// Encodes commands of which the first dispatch is number `first_dispatch` of its recording. Neighbouring dispatches
    /// share a pass.
    pub(super) fn encode(&self, commands: &[Command], first_dispatch: usize) -> wgpu::CommandBuffer {
        let mut encoder = self.encoder();
        let mut index = first_dispatch;
        let mut rest = commands;
        while let Some(command) = rest.first() {
            if !matches!(command, Command::Dispatch(_)) {
                self.transfer(&mut encoder, command);
                rest = &rest[1..];
                continue;
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            while let Some(Command::Dispatch(d)) = rest.first() {
                self.dispatch(&mut pass, d, index);
                index += 1;
                rest = &rest[1..];
            }
        }
        encoder.finish()
    }

    /// As [`Encoding::encode`], with a pass and two timestamps for each command.
    pub(super) fn encode_timed(
        &self,
        commands: &[Command],
        first_dispatch: usize,
        timestamps: &Timestamps,
    ) -> wgpu::CommandBuffer {
        let mut encoder = self.encoder();
        let mut index = first_dispatch;
        for (i, command) in commands.iter().enumerate() {
            if let Command::Dispatch(d) = command {
                let mut pass = encoder.begin_compute_pass(&timestamps.around(i));
                self.dispatch(&mut pass, d, index);
                index += 1;
            } else {
                // Timestamps are portable only at the ends of passes: a transfer stands between two empty ones.
                drop(encoder.begin_compute_pass(&timestamps.before(i)));
                self.transfer(&mut encoder, command);
                drop(encoder.begin_compute_pass(&timestamps.after(i)));
            }
        }
        timestamps.resolve(&mut encoder, commands.len());
        encoder.finish()
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, d: &Dispatch, index: usize) {
        let pipeline = self.pipelines.get(d);
        pass.set_pipeline(&pipeline.pipeline);
        pass.set_bind_group(0, &self.bind(d, &pipeline.layout), &[(index * PARAM_STRIDE) as u32]);
        pass.dispatch_workgroups(d.groups[0], d.groups[1], d.groups[2]);
    }

    fn bind(&self, d: &Dispatch, layout: &wgpu::BindGroupLayout) -> wgpu::BindGroup {
        let part = |buffer, offset: usize, size: usize| {
            let size = std::num::NonZeroU64::new(size as u64);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: offset as u64, size })
        };
        let params = std::iter::once(part(self.params, 0, d.params.len()));
        let spans = d.spans.iter().map(|s| part(&self.buffers[&s.buffer.id()], s.offset * 4, s.len * 4));
        let resources = params.chain(spans).zip(0..);
        let entries: Vec<_> = resources.map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource }).collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(d.kernel.label),
            layout,
            entries: &entries,
        })
    }

    /// A copy or a clear.
    fn transfer(&self, encoder: &mut wgpu::CommandEncoder, command: &Command) {
        let at = |n: usize| n as u64 * 4;
        match command {
            Command::Copy { from, to } => {
                let (a, b) = (&self.buffers[&from.buffer.id()], &self.buffers[&to.buffer.id()]);
                encoder.copy_buffer_to_buffer(a, at(from.offset), b, at(to.offset), at(from.len));
            }
            Command::Clear(s) => {
                encoder.clear_buffer(&self.buffers[&s.buffer.id()], at(s.offset), Some(at(s.len)));
            }
            Command::Dispatch(_) => unreachable!("a dispatch needs a pass"),
        }
    }
}
