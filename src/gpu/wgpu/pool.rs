//! Device memory of a wgpu executor: persistent buffers by handle, and reusable transient slots.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};

use super::faults::Faults;
use crate::error::{Context, Result};
use crate::gpu::buffer::Info;
use crate::gpu::{Buffer, Plan};

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Slots are released when they exceed the largest recent plan by this factor.
const KEEP_FACTOR: u64 = 2;
/// Number of recent plans considered: a training step has three recordings, a generated token two.
const REMEMBERED: usize = 8;

#[derive(Default)]
pub(super) struct Pool {
    persistent: HashMap<u64, (Weak<Info>, wgpu::Buffer)>,
    slots: Vec<wgpu::Buffer>,
    /// Bytes that recent plans needed.
    needs: VecDeque<u64>,
}

/// A zero-filled buffer. wgpu reports a failed allocation to the callback behind `faults` before it
/// returns an unusable buffer, so this checks `faults` and never returns one.
pub(super) fn create(
    device: &wgpu::Device,
    faults: &Faults,
    label: &str,
    size: u64,
    usage: wgpu::BufferUsages,
) -> Result<wgpu::Buffer> {
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    let buffer = device.create_buffer(&descriptor);
    let mib = size as f64 / f64::from(1 << 20);
    faults.check().with_context(|| format!("allocating {mib:.1} MiB on the device for {label}"))?;
    Ok(buffer)
}

impl Pool {
    /// The storage of a persistent handle, created on first use.
    pub(super) fn persistent(
        &mut self,
        device: &wgpu::Device,
        faults: &Faults,
        buffer: &Buffer,
    ) -> Result<wgpu::Buffer> {
        if let Some((_, made)) = self.persistent.get(&buffer.id()) {
            return Ok(made.clone());
        }
        let made = create(device, faults, buffer.label(), buffer.n_bytes().next_multiple_of(256), USAGE)?;
        self.persistent.insert(buffer.id(), (Arc::downgrade(&buffer.0), made.clone()));
        Ok(made)
    }

    /// Whether a persistent handle has storage.
    pub(super) fn has(&self, buffer: &Buffer) -> bool {
        self.persistent.contains_key(&buffer.id())
    }

    /// Releases the storage of dropped handles; returns their ids.
    pub(super) fn drop_dead(&mut self) -> HashSet<u64> {
        let is_dead = |(id, (info, _)): (&u64, &(Weak<Info>, wgpu::Buffer))| (info.strong_count() == 0).then_some(*id);
        let dead: HashSet<u64> = self.persistent.iter().filter_map(is_dead).collect();
        dead.iter().for_each(|id| drop(self.persistent.remove(id)));
        dead
    }

    /// Existing slots for the plan's slots, where large enough. The others stay for recordings that
    /// alternate with this one, unless memory is short or they are large relative to recent needs.
    pub(super) fn claim(&mut self, plan: &Plan) -> Vec<Option<wgpu::Buffer>> {
        let mut by_need: Vec<usize> = (0..plan.slots().len()).collect();
        by_need.sort_by_key(|&i| std::cmp::Reverse(plan.slots()[i]));
        let mut given: Vec<Option<wgpu::Buffer>> = vec![None; by_need.len()];
        let mut taken = vec![false; self.slots.len()];
        for &i in &by_need {
            let need = plan.slots()[i];
            let fits = |&j: &usize| !taken[j] && self.slots[j].size() >= need;
            if let Some(j) = (0..taken.len()).filter(fits).min_by_key(|&j| self.slots[j].size()) {
                taken[j] = true;
                given[i] = Some(self.slots[j].clone());
            }
        }
        let most =
            self.needs.iter().copied().fold(plan.peak_bytes(), u64::max).saturating_mul(KEEP_FACTOR).max(1 << 24);
        if self.slot_bytes() > most {
            self.slots.clear();
            return vec![None; given.len()];
        }
        if given.contains(&None) {
            let mut keep = taken.iter();
            self.slots.retain(|_| *keep.next().expect("one flag a slot"));
        }
        given
    }

    /// Whether a buffer is one of the slots.
    pub(super) fn holds(&self, slot: &wgpu::Buffer) -> bool {
        self.slots.contains(slot)
    }

    /// One buffer for each slot of the plan, in order: the claimed ones, and new ones. If memory
    /// runs out, releases all slots, so that a smaller recording may still run.
    pub(super) fn fill(
        &mut self,
        device: &wgpu::Device,
        faults: &Faults,
        plan: &Plan,
        claimed: Vec<Option<wgpu::Buffer>>,
    ) -> Result<Vec<wgpu::Buffer>> {
        let mut slots = Vec::with_capacity(claimed.len());
        for (slot, &need) in claimed.into_iter().zip(plan.slots()) {
            slots.push(match slot {
                Some(slot) => slot,
                None => {
                    let made = create(device, faults, "activations", need.next_multiple_of(256), USAGE);
                    let made = made.inspect_err(|_| self.release())?;
                    self.slots.push(made.clone());
                    made
                }
            });
        }
        self.needs.push_front(plan.peak_bytes());
        self.needs.truncate(REMEMBERED);
        Ok(slots)
    }

    /// Releases every slot.
    pub(super) fn release(&mut self) {
        self.slots.clear();
        self.needs.clear();
    }

    /// Bytes of all slots.
    pub(super) fn slot_bytes(&self) -> u64 {
        self.slots.iter().map(wgpu::Buffer::size).sum()
    }

    /// Bytes of persistent storage with live handles.
    pub(super) fn persistent_bytes(&self) -> u64 {
        self.persistent.values().filter_map(|(info, _)| info.upgrade()).map(|info| Buffer(info).n_bytes()).sum()
    }
}
