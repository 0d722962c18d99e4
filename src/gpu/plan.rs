//! The memory plan of a recording: which transients share which slot.
//!
//! Each transient lives from its first to its last command. Walking the commands in order, a buffer takes the smallest free
//! slot of at least its size (or grows the largest free one), and gives it back after its last use. The sum of the slots
//! is the recording's high-water mark.

use std::collections::HashMap;

use super::{Lifetime, Recording};

/// Slot of every transient, and the size of every slot.
#[derive(Debug, Default)]
pub struct Plan {
    slot_of: HashMap<u64, usize>,
    slots: Vec<u64>,
}

impl Plan {
    /// Plans `recording`. Sizes are rounded up to 256 bytes.
    pub fn new(recording: &Recording) -> Self {
        let mut last_use: HashMap<u64, usize> = HashMap::new();
        for (i, command) in recording.commands().iter().enumerate() {
            for (span, _) in command.uses() {
                last_use.insert(span.buffer.id(), i);
            }
        }
        let mut plan = Plan::default();
        let mut free: Vec<usize> = Vec::new();
        for (i, command) in recording.commands().iter().enumerate() {
            let uses = command.uses();
            for (span, _) in &uses {
                let b = &span.buffer;
                if b.lifetime() == Lifetime::Transient && !plan.slot_of.contains_key(&b.id()) {
                    let slot = plan.take(&mut free, b.n_bytes().next_multiple_of(256));
                    plan.slot_of.insert(b.id(), slot);
                }
            }
            for (span, _) in &uses {
                let id = span.buffer.id();
                if let Some(&slot) = plan.slot_of.get(&id)
                    && last_use[&id] == i
                    && !free.contains(&slot)
                {
                    free.push(slot);
                }
            }
        }
        plan
    }

    fn take(&mut self, free: &mut Vec<usize>, n_bytes: u64) -> usize {
        let fits = |&i: &usize| self.slots[free[i]] >= n_bytes;
        let best = (0..free.len()).filter(fits).min_by_key(|&i| self.slots[free[i]]);
        let largest = || (0..free.len()).max_by_key(|&i| self.slots[free[i]]);
        match best.or_else(largest) {
            Some(i) => {
                let slot = free.swap_remove(i);
                self.slots[slot] = self.slots[slot].max(n_bytes);
                slot
            }
            None => {
                self.slots.push(n_bytes);
                self.slots.len() - 1
            }
        }
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
