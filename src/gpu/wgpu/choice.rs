//! Which of alternative kernels a device runs: the expected one, until both were measured.
//!
//! The recorded kernel is the portable one. A measurement holds for dispatches of about the same size (`Size`): it is taken before a
//! recording runs, never in the middle, and once its time is spent what is left goes by expectation. `choice_store.rs` keeps it for the
//! next run. All alternatives are measured, also behind one that comes near the roofline: to measure that would take longer than a few alternatives.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::choice_store::{ChoiceStore, text_hash};
use crate::gpu::{Access, Alternatives, Binding, Buffer, Dispatch, Expected, Features, KernelDef, Lifetime, Span};

/// The most time that one device spends on measurements.
const BUDGET: Duration = Duration::from_millis(1500);

/// Names the dispatches for which one measurement stands: kernel with its text and alternatives, constants, and sizes rounded up to powers
/// of two.
fn size_of(d: &Dispatch) -> String {
    let rounded = |n: usize| n.next_power_of_two().ilog2();
    let groups = d.groups.iter().map(|&g| rounded(g as usize));
    let sizes: Vec<u32> = groups.chain(d.spans.iter().map(|s| rounded(s.len))).collect();
    format!("{} {:?} {sizes:?} {:016x}", d.kernel.name(), d.constants, text_hash(d.kernel))
}

/// The choices of one device.
#[derive(Debug)]
pub(super) struct Choice {
    /// Whether the adapter is a program.
    software: bool,
    alternatives: Alternatives,
    /// Name of the fastest kernel by size.
    measured: HashMap<String, String>,
    /// Names of the alternatives that the driver does not compile.
    refused: HashSet<String>,
    spent: Duration,
    store: Option<ChoiceStore>,
}

impl Choice {
    /// The choices of a device, with what earlier runs measured and kept in `store`.
    pub(super) fn new(software: bool, alternatives: Alternatives, store: Option<ChoiceStore>) -> Self {
        let alternatives =
            if software && alternatives == Alternatives::Best { Alternatives::Expected } else { alternatives };
        let store = store.filter(|_| alternatives == Alternatives::Best);
        let measured = store.as_ref().map(ChoiceStore::load).unwrap_or_default();
        Self { software, alternatives, measured, refused: HashSet::new(), spent: Duration::ZERO, store }
    }

    /// Whether a dispatch may be replaced at all.
    pub(super) fn has_alternatives(&self, d: &Dispatch) -> bool {
        self.alternatives != Alternatives::Never && !d.kernel.alternatives.is_empty()
    }

    /// The dispatch and its alternatives, the one that is expected to win first.
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

    /// What the device runs in place of a dispatch: the fastest of those measured, else the expected one.
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

    /// Leaves an alternative out from now on.
    pub(super) fn refuse(&mut self, alternative: &KernelDef) {
        self.refused.insert(alternative.name());
    }

    /// Whether a dispatch like this one should be measured now.
    pub(super) fn wants(&self, d: &Dispatch) -> bool {
        let measures = self.alternatives != Alternatives::Expected;
        measures && self.has_alternatives(d) && self.spent < BUDGET && !self.measured.contains_key(&size_of(d))
    }

    /// Whether there is time to measure more, `elapsed` into one measurement.
    pub(super) fn has_time(&self, elapsed: Duration) -> bool {
        self.spent + elapsed < BUDGET
    }

    /// Notes which kernel was the fastest for dispatches like this one, and what finding out took.
    pub(super) fn note(&mut self, d: &Dispatch, fastest: &Dispatch, took: Duration) {
        self.measured.insert(size_of(d), fastest.kernel.name());
        self.spent += took;
        if let Some(store) = &self.store {
            store.save(&self.measured);
        }
    }
}

/// The spans of a dispatch with memory of its own for all that the host did not write; none where that is a lot.
pub(super) fn scratch(d: &Dispatch) -> Option<Vec<Span>> {
    const MOST_BYTES: u64 = 256 << 20;
    let fresh = |(span, binding): (&Span, &Binding)| {
        let given = binding.access == Access::Read && span.buffer.lifetime() == Lifetime::Persistent;
        if given { span.clone() } else { Buffer::persistent("measuring", span.kind(), span.len).span() }
    };
    let spans: Vec<Span> = d.spans.iter().zip(d.kernel.bindings).map(fresh).collect();
    (spans.iter().map(|s| s.buffer.n_bytes()).sum::<u64>() <= MOST_BYTES).then_some(spans)
}
