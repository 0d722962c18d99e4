//! Memory of a wgpu device: persistent buffers, transient slots, prepared recordings and
//! parameters.

use super::device::WgpuDevice;
use super::encode::ParamBuffer;
use super::part::Part;
use super::pool::Pool;
use super::replay::{Prepared, RecordingKey, Replays};
use super::room::{Need, Room};
use crate::error::{Context, ErrorKind, Result};
use crate::gpu::texels::Texels;
use crate::gpu::{Buffer, MemoryUse, Plan, Recording};

#[derive(Default)]
pub(super) struct Memory {
    room: Room,
    pool: Pool,
    pub(super) replays: Replays,
    params: ParamBuffer,
    texels: Texels,
    transient_peak_bytes: u64,
    run_peak_bytes: u64,
}

impl Memory {
    /// Nothing yet, in this room.
    pub(super) fn of(room: Room) -> Self {
        Self { room, ..Self::default() }
    }

    /// Fails if a recording is known not to fit: the persistent buffers that are there, those it
    /// makes, and its transients.
    pub(super) fn check(&self, recording: &Recording) -> Result<()> {
        if self.room == Room::Unknown {
            return Ok(());
        }
        let new = recording.new_bytes(|b| self.pool.has(b));

        let transient = Plan::new(recording).peak_bytes();
        self.room.check(Need { new, transient, ..self.held() })
    }

    fn held(&self) -> Need {
        Need { held: self.pool.persistent_bytes(), slots: self.pool.slot_bytes(), ..Need::default() }
    }

    /// Gives a prepared recording its memory and parameters.
    pub(super) fn provide(
        &mut self,
        gpu: &WgpuDevice,
        prepared: &mut Prepared,
        shape: &RecordingKey,
        recording: &Recording,
    ) -> Result<()> {
        let dead = self.pool.drop_dead();
        self.replays.forget_dead(&dead);
        prepared.forget_dead(&dead);
        match self.bind(gpu, prepared, shape, recording) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory => {
                prepared.forget_texels();
                self.release_slots(gpu)?;
                self.bind(gpu, prepared, shape, recording)?;
            }
            bound => bound?,
        }
        let transient_bytes = prepared.plan.peak_bytes();
        self.transient_peak_bytes = self.transient_peak_bytes.max(transient_bytes);
        self.run_peak_bytes = self.run_peak_bytes.max(self.pool.persistent_bytes() + transient_bytes);
        Ok(())
    }

    fn bind(
        &mut self,
        gpu: &WgpuDevice,
        prepared: &mut Prepared,
        shape: &RecordingKey,
        recording: &Recording,
    ) -> Result<()> {
        let claimed = self.pool.claim(&prepared.plan);
        self.replays.forget_slots(&self.pool);
        prepared.forget_slots(&self.pool);
        let slots = self.pool.fill(&gpu.device, &gpu.faults, &prepared.plan, claimed)?;
        let params = self.params.upload(gpu, recording)?;
        let pool = &mut self.pool;
        let persistent = |buffer: &Buffer| pool.persistent(&gpu.device, &gpu.faults, buffer);
        let texels = &mut self.texels;
        let texture = |binding, part: Part| texels.texture(&gpu.device, &gpu.faults, binding, part);
        prepared.bind(&gpu.device, &shape.buffers, persistent, &slots, &params, texture)
    }

    /// The storage of a persistent handle. If memory runs out, releases the slots and tries again.
    pub(super) fn storage(&mut self, gpu: &WgpuDevice, buffer: &Buffer) -> Result<wgpu::Buffer> {
        if !self.pool.has(buffer) {
            let need = Need { new: buffer.n_bytes(), ..self.held() };
            self.room.check(need).with_context(|| format!("allocating {}", buffer.label()))?;
        }
        match self.pool.persistent(&gpu.device, &gpu.faults, buffer) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory => {
                self.release_slots(gpu)?;
                self.pool.persistent(&gpu.device, &gpu.faults, buffer)
            }
            made => made,
        }
    }

    /// Frees the memory of all slots and textures, after the queued work has finished.
    fn release_slots(&mut self, gpu: &WgpuDevice) -> Result<()> {
        self.pool.release();
        self.texels.release();
        self.replays.forget_slots(&self.pool);
        self.replays.forget_texels();
        gpu.poll(None)
    }

    /// Memory in use now, and the peak of transients and textures.
    pub(super) fn usage(&self) -> MemoryUse {
        MemoryUse {
            mapped_bytes: 0,
            persistent_bytes: self.pool.persistent_bytes(),
            transient_peak_bytes: self.transient_peak_bytes + self.texels.n_bytes(),
            run_peak_bytes: self.run_peak_bytes + self.texels.n_bytes(),
        }
    }

    /// Forgets the peak.
    pub(super) fn reset_peak(&mut self) {
        self.transient_peak_bytes = 0;
        self.run_peak_bytes = 0;
    }
}
