//! Device memory of a wgpu executor: persistent buffers by handle, and slots for transients that are kept between runs.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::buffer::Info;
use super::{Buffer, Plan};

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Slots may stay this many times larger than what the last plan needed before they are released.
const KEEP_FACTOR: u64 = 2;

#[derive(Default)]
pub(super) struct Pool {
    persistent: HashMap<u64, (Weak<Info>, wgpu::Buffer)>,
    slots: Vec<wgpu::Buffer>,
}

impl Pool {
    fn create(device: &wgpu::Device, label: &str, size: u64) -> wgpu::Buffer {
        let size = size.next_multiple_of(256);
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: USAGE,
            mapped_at_creation: false,
        })
    }

    /// The storage of a persistent handle, made on first use.
    pub(super) fn persistent(&mut self, device: &wgpu::Device, buffer: &Buffer) -> wgpu::Buffer {
        let make = || (Arc::downgrade(&buffer.0), Self::create(device, buffer.label(), buffer.n_bytes()));
        self.persistent.entry(buffer.id()).or_insert_with(make).1.clone()
    }

    /// Releases the storage of handles that are gone.
    pub(super) fn drop_dead(&mut self) {
        self.persistent.retain(|_, (info, _)| info.strong_count() > 0);
    }

    /// One buffer for each slot of the plan, in its order; earlier runs' slots are used again.
    pub(super) fn slots(&mut self, device: &wgpu::Device, plan: &Plan) -> Vec<wgpu::Buffer> {
        let mut by_need: Vec<usize> = (0..plan.slots().len()).collect();
        by_need.sort_by_key(|&i| std::cmp::Reverse(plan.slots()[i]));
        let held: u64 = self.slots.iter().map(wgpu::Buffer::size).sum();
        if held > plan.peak_bytes().saturating_mul(KEEP_FACTOR).max(1 << 24) {
            self.slots.clear();
        }
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
        let mut keep = taken.iter();
        self.slots.retain(|_| *keep.next().expect("one flag a slot"));
        let fill = |(i, slot): (usize, Option<wgpu::Buffer>)| {
            slot.unwrap_or_else(|| {
                let made = Self::create(device, "transient", plan.slots()[i]);
                self.slots.push(made.clone());
                made
            })
        };
        given.into_iter().enumerate().map(fill).collect()
    }

    /// Bytes of persistent storage whose handles are alive.
    pub(super) fn persistent_bytes(&self) -> u64 {
        self.persistent.values().filter_map(|(info, _)| info.upgrade()).map(|info| Buffer(info).n_bytes()).sum()
    }
}
