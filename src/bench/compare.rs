//! Compares two benchmark reports, of one device or two, row by row.

use super::report::{KernelRow, ModelRow, Report};

/// The compared quantity of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Best time in seconds.
    Time,
    /// Peak device memory in bytes.
    Memory,
}

/// A figure that both reports contain.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Name of the measurement.
    pub name: String,
    /// The quantity.
    pub quantity: Quantity,
    /// The old report's figure.
    pub old: f64,
    /// The new report's figure.
    pub new: f64,
}

impl Change {
    /// New divided by old.
    pub fn ratio(&self) -> f64 {
        self.new / self.old
    }

    /// Whether it is more than 10 % slower or larger.
    pub fn is_worse(&self) -> bool {
        self.ratio() > 1.1
    }

    /// Whether it is more than 10 % faster or smaller.
    pub fn is_better(&self) -> bool {
        self.ratio() < 1.0 / 1.1
    }
}

/// The figures that two reports share, and the names of those that only one contains.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Devices of the old and the new report.
    pub devices: [String; 2],
    /// Shared figures, in the new report's order.
    pub changes: Vec<Change>,
    /// Names of figures that are only in the old report.
    pub only_old: Vec<String>,
    /// Names of figures that are only in the new report.
    pub only_new: Vec<String>,
}

/// Names, quantities and figures of a report: best times (the first time if there is no other) and
/// memory peaks.
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
    comparison.only_new.dedup(); // both the time and the memory of a row may be new
    comparison.only_old = old_figures.iter().filter(is_gone).map(|(name, ..)| name.clone()).collect();
    comparison.only_old.dedup();
    comparison
}
