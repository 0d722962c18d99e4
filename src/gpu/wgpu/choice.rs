//! Chooses among alternative kernels: the measured fastest, else the one expected to be fastest.
//!
//! The recorded kernel is the portable one. A measurement applies to all dispatches of about the
//! same size (`size_of`). It runs before a recording, never during one, on a part of the grid if the
//! whole is long. After the time budget is spent, and where memory is short, dispatches use the
//! expected alternative. `choice_store.rs` saves both for later runs, which then give the same bits.
//! All alternatives that are expected to be fast on this kind of device are measured, even if one
//! comes near the roofline: measuring the roofline would take longer than a few alternatives.
//!
//! A kernel may reset the device or end the program when it first runs. So its name is saved before
//! that, and taken away after. Runs that find the name do without the kernel.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::choice_store::{ChoiceStore, text_hash};
use crate::gpu::{Access, Alternatives, Binding, Buffer, Dispatch, Expected, Features, KernelDef, Lifetime, Span};

/// Total time that one device spends on measurements.
const BUDGET: Duration = Duration::from_millis(1500);
/// Operations of the longest dispatch that is timed whole.
const MOST_FLOPS: u64 = 5_000_000_000;
/// Before the name of a kernel that is being measured; no key of a size begins like this.
const BEING_MEASURED: &str = "being measured: ";

/// Ranks of candidates.
mod rank {
    /// An alternative that is expected to be fast here.
    pub(super) const EXPECTED: u8 = 0;
    /// The recorded kernel.
    pub(super) const RECORDED: u8 = 1;
    /// An alternative for the other kind of device.
    pub(super) const ELSEWHERE: u8 = 2;
    /// An alternative during whose measurement an earlier run ended.
    pub(super) const SUSPECT: u8 = 3;
}

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
    /// Name of the kernel to run by size, and the marks of those being measured.
    measured: HashMap<String, String>,
    /// Whether `measured` has more than the file.
    has_more: bool,
    /// Names of alternatives that the driver failed to compile.
    refused: HashSet<String>,
    /// Names of alternatives during whose measurement an earlier run ended.
    suspects: HashSet<String>,
    /// Names of alternatives that have run.
    proven: HashSet<String>,
    /// The name of the alternative being measured.
    marked: Option<String>,
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
        let suspects = measured.keys().filter_map(|key| key.strip_prefix(BEING_MEASURED)).map(String::from).collect();
        Self {
            software,
            alternatives,
            measured,
            has_more: false,
            refused: HashSet::new(),
            suspects,
            proven: HashSet::new(),
            marked: None,
            spent: Duration::ZERO,
            store,
        }
    }

    /// Whether any alternative could replace a dispatch.
    pub(super) fn has_alternatives(&self, d: &Dispatch) -> bool {
        self.alternatives != Alternatives::Never && !d.kernel.alternatives.is_empty()
    }

    /// The dispatch and its alternatives with their ranks, the one that is expected to be fastest
    /// first.
    fn ranked(&self, d: &Dispatch, features: Features) -> Vec<(u8, Dispatch)> {
        let rank = |alternative: &Dispatch, expected: Expected| match expected {
            _ if self.suspects.contains(&alternative.kernel.name()) => rank::SUSPECT,
            Expected::Everywhere => rank::EXPECTED,
            Expected::OnSoftware if self.software => rank::EXPECTED,
            Expected::OnHardware if !self.software => rank::EXPECTED,
            _ => rank::ELSEWHERE,
        };
        let alternatives = d
            .alternatives(features)
            .into_iter()
            .filter(|(alternative, _)| !self.refused.contains(&alternative.kernel.name()));
        let mut all: Vec<_> =
            alternatives.map(|(alternative, expected)| (rank(&alternative, expected), alternative)).collect();
        all.push((rank::RECORDED, d.clone()));
        all.sort_by_key(|(rank, _)| *rank);
        all
    }

    /// The dispatch and the alternatives that are measured against each other. A GPU runs none that
    /// is meant for software adapters: these can take so long on it that the system resets it.
    pub(super) fn rivals(&self, d: &Dispatch, features: Features) -> Vec<Dispatch> {
        let most = if self.software { rank::ELSEWHERE } else { rank::RECORDED };
        self.ranked(d, features).into_iter().filter(|(rank, _)| *rank <= most).map(|(_, d)| d).collect()
    }

    /// The dispatch that the device runs in place of `d`: the fastest measured one, else the
    /// expected one.
    pub(super) fn of(&self, d: &Dispatch, features: Features) -> Dispatch {
        if !self.has_alternatives(d) {
            return d.clone();
        }
        let mut candidates = self.ranked(d, features);
        let fastest = self.measures().then(|| self.measured.get(&size_of(d))).flatten();
        let at = fastest.and_then(|name| candidates.iter().position(|(_, c)| c.kernel.name() == *name));
        candidates.swap_remove(at.unwrap_or(0)).1
    }

    /// Excludes an alternative from now on.
    pub(super) fn refuse(&mut self, alternative: &KernelDef) {
        self.refused.insert(alternative.name());
    }

    fn measures(&self) -> bool {
        self.alternatives != Alternatives::Expected
    }

    /// Whether a dispatch of this size has alternatives, and none is chosen yet.
    pub(super) fn wants(&self, d: &Dispatch, features: Features) -> bool {
        let is_open = self.measures() && self.has_alternatives(d) && !self.measured.contains_key(&size_of(d));
        is_open && self.rivals(d, features).len() > 1
    }

    /// Whether the budget allows further measurements, `elapsed` into one measurement.
    pub(super) fn has_time(&self, elapsed: Duration) -> bool {
        self.spent + elapsed < BUDGET
    }

    /// Marks a rival of `d` before it runs for the first time.
    pub(super) fn mark(&mut self, d: &Dispatch, rival: &Dispatch) {
        let name = rival.kernel.name();
        if std::ptr::eq(rival.kernel, d.kernel) || self.proven.contains(&name) {
            return;
        }
        self.measured.insert(format!("{BEING_MEASURED}{name}"), size_of(d));
        self.marked = Some(name);
        self.has_more = true;
        self.save();
    }

    /// Takes the mark away: the rival did no harm. The file follows with the next save.
    pub(super) fn unmark(&mut self) {
        if let Some(name) = self.marked.take() {
            self.measured.remove(&format!("{BEING_MEASURED}{name}"));
            self.proven.insert(name);
            self.has_more = true;
        }
    }

    /// Records the fastest kernel for dispatches of this size and the time the measurement took.
    pub(super) fn note(&mut self, d: &Dispatch, fastest: &Dispatch, took: Duration) {
        self.spent += took;
        self.measured.insert(size_of(d), fastest.kernel.name());
        self.has_more = true;
        self.save();
    }

    /// Settles an unmeasured size on the expected kernel, so that a later run takes it too. The file
    /// follows with the next save.
    pub(super) fn settle(&mut self, d: &Dispatch, features: Features) {
        let expected = self.of(d, features).kernel.name();
        self.measured.insert(size_of(d), expected);
        self.has_more = true;
    }

    /// Saves the choices if there are new ones.
    pub(super) fn save(&mut self) {
        if let Some(store) = self.store.as_ref().filter(|_| self.has_more) {
            store.save(&self.measured);
        }
        self.has_more = false;
    }
}

/// A dispatch cut to a part of its grid if it has more than [`MOST_FLOPS`] operations, and the share
/// that is left. Workgroups do not depend on each other, so that any part of a grid can run.
pub(super) fn cut(d: &Dispatch, flops: u64) -> (Dispatch, f64) {
    let axis = (0..3).max_by_key(|&axis| d.groups[axis]).expect("three axes");
    let all = d.groups[axis];
    let left = (u64::from(all) * MOST_FLOPS).div_ceil(flops.max(MOST_FLOPS)) as u32;
    let mut cut = d.clone();
    cut.groups[axis] = left;
    (cut, f64::from(left) / f64::from(all))
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

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
