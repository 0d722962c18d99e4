//! The memory plan of a recording: which transients share which slot.
//!
//! Each transient lives from its first to its last command. The planner places the largest first
//! (greedy by size, arXiv 2001.03288): into the smallest slot whose transients have disjoint
//! lifetimes, else into a new slot. A slot is as large as its first transient, so small buffers
//! fill the gaps between large ones and no slot grows. The sum of the slots is the recording's
//! high-water mark.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::buffer::ById;
use super::{Lifetime, Recording};

/// Slot of every transient, and the size of every slot.
#[derive(Debug, Default)]
pub struct Plan {
    slot_of: ById<usize>,
    slots: Vec<u64>,
}

/// A transient: the first and last command that use it, both included, and its size.
struct Tenant {
    id: u64,
    first: usize,
    last: usize,
    n_bytes: u64,
}

/// The transients in order of first use. Sizes are rounded up to 256 bytes.
fn tenants(recording: &Recording) -> Vec<Tenant> {
    let mut found: Vec<Tenant> = Vec::new();
    let mut place: ById<usize> = ById::default();
    for (i, command) in recording.commands().iter().enumerate() {
        for (span, _) in command.uses() {
            let b = &span.buffer;
            if b.lifetime() != Lifetime::Transient {
                continue;
            }
            let at = *place.entry(b.id()).or_insert_with(|| {
                found.push(Tenant { id: b.id(), first: i, last: i, n_bytes: b.n_bytes().next_multiple_of(256) });
                found.len() - 1
            });
            found[at].last = i;
        }
    }
    found
}

impl Plan {
    /// Plans `recording`.
    pub fn new(recording: &Recording) -> Self {
        let mut tenants = tenants(recording);
        tenants.sort_by_key(|t| Reverse(t.n_bytes)); // stable: equal sizes keep the order of first use
        let mut plan = Plan::default();
        // For each slot, the lifetimes of its transients: first command → last command.
        let mut lives: Vec<BTreeMap<usize, usize>> = Vec::new();
        for t in &tenants {
            let is_free = |lives: &BTreeMap<usize, usize>| {
                let before = lives.range(..=t.last).next_back();
                before.is_none_or(|(_, &last)| last < t.first)
            };
            // Slots are created in descending order of size, so the first free one from the end is
            // the smallest.
            let slot = lives.iter().rposition(is_free).unwrap_or_else(|| {
                plan.slots.push(t.n_bytes);
                lives.push(BTreeMap::new());
                lives.len() - 1
            });
            lives[slot].insert(t.first, t.last);
            plan.slot_of.insert(t.id, slot);
        }
        plan
    }

    /// The slot of a transient buffer.
    pub fn slot(&self, buffer_id: u64) -> usize {
        self.slot_of[&buffer_id]
    }

    /// Sizes of all slots in bytes.
    pub fn slots(&self) -> &[u64] {
        &self.slots
    }

    /// High-water mark of the transients in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.slots.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Kind;

    #[test]
    fn a_chain_of_copies_needs_two_slots() {
        let mut r = Recording::new();
        let mut last = r.transient("0", Kind::Real, 100);
        r.clear(&last);
        for i in 1..10 {
            let next = r.transient(&i.to_string(), Kind::Real, 100);
            r.copy(&last, &next);
            last = next;
        }
        let plan = Plan::new(&r);
        assert_eq!(plan.peak_bytes(), 2 * 512);
    }

    #[test]
    fn a_small_buffer_does_not_keep_a_large_one_out_of_its_slot() {
        let mut r = Recording::new();
        let [first, second] = ["first", "second"].map(|l| r.transient(l, Kind::Real, 6400));
        let small = r.transient("small", Kind::Real, 64);
        for span in [&first, &small, &second, &small] {
            r.clear(span);
        }
        assert_eq!(Plan::new(&r).peak_bytes(), 25_600 + 256);
    }

    #[test]
    fn tenants_of_a_slot_never_meet() {
        let mut r = Recording::new();
        let mut alive: Vec<crate::gpu::Span> = Vec::new();
        for i in 0..200usize {
            let next = r.transient("t", Kind::Real, 64 * (1 + i * i % 13));
            r.clear(&next);
            alive.push(next);
            if alive.len() > 3 + i % 5 {
                let gone = alive.remove(i * 7 % alive.len());
                r.clear(&gone);
            }
        }
        let (plan, tenants) = (Plan::new(&r), tenants(&r));
        for (i, a) in tenants.iter().enumerate() {
            assert!(plan.slots()[plan.slot(a.id)] >= a.n_bytes);
            for b in &tenants[i + 1..] {
                let meet = a.first <= b.last && b.first <= a.last;
                assert!(!(meet && plan.slot(a.id) == plan.slot(b.id)));
            }
        }
    }

    #[test]
    fn buffers_alive_together_never_share() {
        let mut r = Recording::new();
        let [a, b, c] = ["a", "b", "c"].map(|l| r.transient(l, Kind::Real, 64));
        for s in [&a, &b] {
            r.clear(s);
        }
        r.copy(&a, &c);
        r.copy(&b, &a);
        let plan = Plan::new(&r);
        let [sa, sb, sc] = [&a, &b, &c].map(|s| plan.slot(s.buffer.id()));
        assert!(sa != sb && sa != sc && sb != sc);
    }
}
