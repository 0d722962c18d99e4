//! Timestamps of a wgpu device: what each command of a submit took by the device's own clock.
//!
//! They are written at the beginning and the end of passes, which all devices that have timestamps can do. Some say that
//! they have them and write zeros; the executor then goes by the host's clock.

use super::device::WgpuDevice;
use super::pool::create;
use crate::error::Result;

/// Room for the timestamps of one submit.
pub(super) struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

impl Timestamps {
    /// The most commands of one submit.
    pub(super) const MAX_COMMANDS: usize = 64;

    /// None where the device was opened without them.
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

    /// A pass that holds command `i` of the submit.
    pub(super) fn around(&self, i: usize) -> wgpu::ComputePassDescriptor<'_> {
        self.pass(Some(2 * i), Some(2 * i + 1))
    }

    /// A pass that holds the last part of command `i`.
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

    /// Seconds of each of the `n` commands of the last submit; none where the device wrote zeros only.
    pub(super) fn read(&self, gpu: &WgpuDevice, n: usize) -> Result<Option<Vec<f64>>> {
        let ticks: Vec<u64> =
            bytemuck::pod_collect_to_vec(&gpu.start_read(&self.resolved, 0, 16 * n as u64, "timestamps")?.wait()?);
        let seconds = |pair: &[u64]| pair[1].saturating_sub(pair[0]) as f64 * self.seconds_per_tick;
        Ok(ticks.iter().any(|&t| t != 0).then(|| ticks.chunks(2).map(seconds).collect()))
    }
}
