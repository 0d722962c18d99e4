//! Chooses among alternative kernels: the measured fastest, else the one expected to be fastest.
//!
//! The recorded kernel is the portable one. A measurement applies to all dispatches of about the
//! same size (`Size`). It runs before a recording, never during one. After the time budget is
//! spent, untested dispatches use the expected alternative. `choice_store.rs` saves the
//! measurements for later runs. All alternatives are measured, even if one comes near the roofline:
//! measuring the roofline would take longer than a few alternatives.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::choice_store::{ChoiceStore, text_hash};
use crate::gpu::{Access, Alternatives, Binding, Buffer, Dispatch, Expected, Features, KernelDef, Lifetime, Span};

/// Total time that one device spends on measurements.
const BUDGET: Duration = Duration::from_millis(1500);

/// A key for dispatches that share one measurement: the kernel with its text and alternatives, its
/// constants, and sizes rounded up to powers of two.
fn size_of(d: &Dispatch) -> String {
    let rounded = |n: usize| n.next_power_of_two().ilog2();
    let groups = d.groups.iter().map(|&g| rounded(g as usize));
    let sizes: Vec<u32> = groups.chain(d.spans.iter().map(|s| rounded(s.len))).collect();
    format!("{} {:?} {sizes:?} {:016x}", d.kernel.name(), d.constants, text_hash(d.kernel))
}

/// The kernel choices of one device.
#[derive(Debug)]
pub(super) struct Choice {
    /// Whether the adapter runs on the CPU.
    software: bool,
    alternatives: Alternatives,
    /// Name of the fastest kernel by size.
    measured: HashMap<String, String>,
    /// Names of alternatives that the driver failed to compile.
    refused: HashSet<String>,
    spent: Duration,
    store: Option<ChoiceStore>,
}

impl Choice {
    /// The choices of a device, starting with the measurements that earlier runs saved in `store`.
    pub(super) fn new(software: bool, alternatives: Alternatives, store: Option<ChoiceStore>) -> Self {
        let alternatives =
            if software && alternatives == Alternatives::Best { Alternatives::Expected } else { alternatives };
        let store = store.filter(|_| alternatives == Alternatives::Best);
        let measured = store.as_ref().map(ChoiceStore::load).unwrap_or_default();
        Self { software, alternatives, measured, refused: HashSet::new(), spent: Duration::ZERO, store }
    }

    /// Whether any alternative could replace a dispatch.
    pub(super) fn has_alternatives(&self, d: &Dispatch) -> bool {
        self.alternatives != Alternatives::Never && !d.kernel.alternatives.is_empty()
    }

    /// The dispatch and its alternatives, the one that is expected to be fastest first.
    pub(super) fn candidates(&self, d: &Dispatch, features: Features) -> Vec<Dispatch> {
        let rank = |expected: Expected| match expected {
            Expected::Everywhere => 0,
            Expected::OnSoftware if self.software => 0,
            Expected::OnHardware if !self.software => 0,
            _ => 2,
        };
        let alternatives = d
            .alternatives(features)
            .into_iter()
            .filter(|(alternative, _)| !self.refused.contains(&alternative.kernel.name()));
        let mut all: Vec<_> = alternatives.map(|(alternative, expected)| (rank(expected), alternative)).collect();
        all.push((1, d.clone()));
        all.sort_by_key(|(rank, _)| *rank);
        all.into_iter().map(|(_, d)| d).collect()
    }

    /// The dispatch that the device runs in place of `d`: the fastest measured one, else the
    /// expected one.
    pub(super) fn of(&self, d: &Dispatch, features: Features) -> Dispatch {
        if !self.has_alternatives(d) {
            return d.clone();
        }
        let mut candidates = self.candidates(d, features);
        let measures = self.alternatives != Alternatives::Expected;
        let fastest = measures.then(|| self.measured.get(&size_of(d))).flatten();
        let at = fastest.and_then(|name| candidates.iter().position(|c| c.kernel.name() == *name));
        candidates.swap_remove(at.unwrap_or(0))
    }

    /// Excludes an alternative from now on.
    pub(super) fn refuse(&mut self, alternative: &KernelDef) {
        self.refused.insert(alternative.name());
    }

    /// Whether a dispatch of this size should be measured now.
    pub(super) fn wants(&self, d: &Dispatch) -> bool {
        let measures = self.alternatives != Alternatives::Expected;
        measures && self.has_alternatives(d) && self.spent < BUDGET && !self.measured.contains_key(&size_of(d))
    }

    /// Whether the budget allows further measurements, `elapsed` into one measurement.
    pub(super) fn has_time(&self, elapsed: Duration) -> bool {
        self.spent + elapsed < BUDGET
    }

    /// Records the fastest kernel for dispatches of this size and the time the measurement took.
    pub(super) fn note(&mut self, d: &Dispatch, fastest: &Dispatch, took: Duration) {
        self.measured.insert(size_of(d), fastest.kernel.name());
        self.spent += took;
        if let Some(store) = &self.store {
            store.save(&self.measured);
        }
    }
}

/// The spans of a dispatch, with fresh memory for all that the host did not write; `None` if that
/// is too much memory.
pub(super) fn scratch(d: &Dispatch) -> Option<Vec<Span>> {
    const MOST_BYTES: u64 = 256 << 20;
    let fresh = |(span, binding): (&Span, &Binding)| {
        let given = binding.access == Access::Read && span.buffer.lifetime() == Lifetime::Persistent;
        if given { span.clone() } else { Buffer::persistent("measuring", span.kind(), span.len).span() }
    };
    let spans: Vec<Span> = d.spans.iter().zip(d.kernel.bindings).map(fresh).collect();
    (spans.iter().map(|s| s.buffer.n_bytes()).sum::<u64>() <= MOST_BYTES).then_some(spans)
}
