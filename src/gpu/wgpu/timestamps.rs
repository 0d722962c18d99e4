//! Timestamps of a wgpu device: the time of each command of a submit, by the device's clock.
//!
//! They are written at the beginning and end of passes, which every device with timestamps
//! supports. Some devices claim support and write zeros; the executor then uses the host's clock.

use super::device::WgpuDevice;
use super::pool::create;
use crate::error::Result;

/// Buffers for the timestamps of one submit.
pub(super) struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

impl Timestamps {
    /// Maximum commands of one submit.
    pub(super) const MAX_COMMANDS: usize = 64;

    /// `None` if the device was opened without timestamps.
    pub(super) fn new(gpu: &WgpuDevice) -> Result<Option<Self>> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let count = 2 * Self::MAX_COMMANDS as u32;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = create(&gpu.device, &gpu.faults, "timestamps", u64::from(count) * 8, usage)?;
        let seconds_per_tick = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        Ok(Some(Self { queries, resolved, seconds_per_tick }))
    }

    fn pass(&self, begin: Option<usize>, end: Option<usize>) -> wgpu::ComputePassDescriptor<'_> {
        let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: begin.map(|i| i as u32),
            end_of_pass_write_index: end.map(|i| i as u32),
        });
        wgpu::ComputePassDescriptor { label: None, timestamp_writes }
    }

    /// A pass around command `i` of the submit.
    pub(super) fn around(&self, i: usize) -> wgpu::ComputePassDescriptor<'_> {
        self.pass(Some(2 * i), Some(2 * i + 1))
    }

    /// A pass around the last part of command `i`.
    pub(super) fn at_end_of(&self, i: usize) -> wgpu::ComputePassDescriptor<'_> {
        self.pass(None, Some(2 * i + 1))
    }

    /// An empty pass before command `i`.
    pub(super) fn before(&self, i: usize) -> wgpu::ComputePassDescriptor<'_> {
        self.pass(None, Some(2 * i))
    }

    /// An empty pass after command `i`.
    pub(super) fn after(&self, i: usize) -> wgpu::ComputePassDescriptor<'_> {
        self.pass(Some(2 * i + 1), None)
    }

    /// Ends a submit of `n` commands.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, n: usize) {
        encoder.resolve_query_set(&self.queries, 0..2 * n as u32, &self.resolved, 0);
    }

    /// Seconds of each of the `n` commands of the last submit; `None` if the device wrote only
    /// zeros.
    pub(super) fn read(&self, gpu: &WgpuDevice, n: usize) -> Result<Option<Vec<f64>>> {
        let ticks: Vec<u64> =
            bytemuck::pod_collect_to_vec(&gpu.start_read(&self.resolved, 0, 16 * n as u64, "timestamps")?.wait()?);
        let seconds = |pair: &[u64]| pair[1].saturating_sub(pair[0]) as f64 * self.seconds_per_tick;
        Ok(ticks.iter().any(|&t| t != 0).then(|| ticks.chunks(2).map(seconds).collect()))
    }
}
