//! Two reports of one device, or of two, row by row.

use super::report::{KernelRow, ModelRow, Report};

/// What is compared of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Seconds, the best time.
    Time,
    /// Bytes, the peak on the device.
    Memory,
}

/// A figure that both reports have.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What was measured.
    pub name: String,
    /// Of what.
    pub quantity: Quantity,
    /// The old report's figure.
    pub old: f64,
    /// The new one's.
    pub new: f64,
}

impl Change {
    /// New over old.
    pub fn ratio(&self) -> f64 {
        self.new / self.old
    }

    /// More than a tenth slower, or larger.
    pub fn is_worse(&self) -> bool {
        self.ratio() > 1.1
    }

    /// More than a tenth faster, or smaller.
    pub fn is_better(&self) -> bool {
        self.ratio() < 1.0 / 1.1
    }
}

/// What two reports have in common, and what only one of them has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Device of the old and of the new report.
    pub devices: [String; 2],
    /// Figures of both, in the new one's order.
    pub changes: Vec<Change>,
    /// Names of figures that only the old report has.
    pub only_old: Vec<String>,
    /// Names of figures that only the new report has.
    pub only_new: Vec<String>,
}

/// Names, quantities and figures of a report: best times, the first where there is no other, and peaks of memory.
fn figures(report: &Report) -> Vec<(String, Quantity, f64)> {
    let kernel = |r: &KernelRow| (format!("{} ({})", r.kernel, r.case), Quantity::Time, r.best_seconds);
    let run = |r: &ModelRow| {
        let name = format!("{}: {}, {}, {} tokens", report.model, r.name(), r.attention, r.length);
        let time = r.best_seconds.or(r.first_seconds).map(|seconds| (name.clone(), Quantity::Time, seconds));
        let memory = (r.peak_bytes > 0).then_some((name, Quantity::Memory, r.peak_bytes as f64));
        time.into_iter().chain(memory)
    };
    report.kernels.iter().map(kernel).chain(report.runs.iter().flat_map(run)).collect()
}

/// Compares two reports figure by figure.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let (old_figures, new_figures) = (figures(old), figures(new));
    let mut comparison = Comparison { devices: [old.device.clone(), new.device.clone()], ..Comparison::default() };
    let same = |a: &(String, Quantity, f64), b: &(String, Quantity, f64)| (&a.0, a.1) == (&b.0, b.1);
    for figure in &new_figures {
        let (name, quantity, new) = figure.clone();
        match old_figures.iter().find(|other| same(other, figure)) {
            Some(&(_, _, old)) => comparison.changes.push(Change { name, quantity, old, new }),
            None => comparison.only_new.push(name),
        }
    }
    let is_gone = |figure: &&(String, Quantity, f64)| !new_figures.iter().any(|other| same(other, figure));
    comparison.only_new.dedup(); // a row may miss its time and its memory
    comparison.only_old = old_figures.iter().filter(is_gone).map(|(name, ..)| name.clone()).collect();
    comparison.only_old.dedup();
    comparison
}
