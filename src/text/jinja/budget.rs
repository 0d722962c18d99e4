//! The budget of one render: the work, the memory and the nesting that a template may use.
//!
//! Templates come from strangers. Every operation pays for its work before it starts, and every
//! value pays for its memory as long as it lives. So a template ends within seconds and within a
//! few hundred megabytes, whatever it says.

use crate::error::Result;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Units of work: a node of the program, an element of a list, or 16 bytes of text. A conversation
/// of thousands of turns takes a few million.
const MAX_WORK: usize = 20_000_000;
/// Bytes of all living values together.
const MAX_MEMORY: usize = 128 << 20;
/// Bytes of one text, the output included.
pub const MAX_TEXT: usize = 32 << 20;
/// Elements of one list.
pub const MAX_ITEMS: usize = 1 << 20;
/// Nodes of the program that run inside each other.
const MAX_NESTING: usize = 2000;
/// Bytes of text for one unit of work.
const BYTES_PER_UNIT: usize = 16;

/// What a render has used so far.
#[derive(Default)]
pub struct Budget {
    work: Cell<usize>,
    nesting: Cell<usize>,
    memory: Arc<AtomicUsize>,
}

impl Budget {
    /// Pays for `units` of work.
    pub fn spend(&self, units: usize) -> Result<()> {
        let work = self.work.get().saturating_add(units);
        self.work.set(work);
        crate::ensure!(work <= MAX_WORK, "the template did not finish within the allowed number of steps");
        Ok(())
    }

    /// Pays for going through `bytes` of text.
    pub fn scan(&self, bytes: usize) -> Result<()> {
        self.spend(1 + bytes / BYTES_PER_UNIT)
    }

    /// Enters a node of the program; [`Budget::leave`] leaves it.
    pub fn enter(&self) -> Result<()> {
        self.nesting.set(self.nesting.get() + 1);
        crate::ensure!(
            self.nesting.get() <= MAX_NESTING,
            "the template nests too deeply: more than {MAX_NESTING} of its parts run inside each other"
        );
        self.spend(1)
    }

    /// Leaves a node of the program.
    pub fn leave(&self) {
        self.nesting.set(self.nesting.get() - 1);
    }

    /// Takes `bytes` of memory for a value.
    pub fn hold(&self, bytes: usize) -> Result<Held> {
        let held = Held { bytes, memory: Some(self.memory.clone()) };
        let total = self.memory.fetch_add(bytes, Ordering::Relaxed) + bytes;
        crate::ensure!(
            total <= MAX_MEMORY,
            "the values of the template need more than {} MB of memory",
            MAX_MEMORY >> 20
        );
        Ok(held)
    }

    /// Fails for a text of more than [`MAX_TEXT`] bytes.
    pub fn check_text(&self, bytes: usize) -> Result<()> {
        crate::ensure!(bytes <= MAX_TEXT, "the template makes a string of more than {} MB", MAX_TEXT >> 20);
        Ok(())
    }

    /// Fails for a list of too many items.
    pub fn check_items(&self, n: usize) -> Result<()> {
        crate::ensure!(n <= MAX_ITEMS, "the template makes a list of more than {MAX_ITEMS} items");
        Ok(())
    }
}

/// Memory of a value, given back when it is dropped.
#[derive(Debug, Default)]
pub struct Held {
    bytes: usize,
    memory: Option<Arc<AtomicUsize>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_memory_and_nesting_end() {
        let budget = Budget::default();
        assert!(budget.spend(MAX_WORK).is_ok());
        assert!(budget.scan(0).unwrap_err().to_string().contains("steps"));
        let held = budget.hold(MAX_MEMORY).unwrap();
        assert!(budget.hold(1).is_err());
        drop(held);
        assert!(budget.hold(MAX_MEMORY).is_ok(), "dropped values give their memory back");
        let nested = Budget::default();
        for _ in 0..MAX_NESTING {
            nested.enter().unwrap();
        }
        assert!(nested.enter().is_err());
    }
}
