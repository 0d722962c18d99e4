//! Two reports of one device, or of two, row by row.

use super::report::{KernelRow, ModelRow, Report};

/// A row that both reports have.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What was measured.
    pub name: String,
    /// Best time in the old report, in seconds.
    pub old_seconds: f64,
    /// Best time in the new one.
    pub new_seconds: f64,
}

impl Change {
    /// New time over old.
    pub fn ratio(&self) -> f64 {
        self.new_seconds / self.old_seconds
    }

    /// More than a tenth slower.
    pub fn is_slower(&self) -> bool {
        self.ratio() > 1.1
    }

    /// More than a tenth faster.
    pub fn is_faster(&self) -> bool {
        self.ratio() < 1.0 / 1.1
    }
}

/// What two reports have in common, and what only one of them has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Device of the old and of the new report.
    pub devices: [String; 2],
    /// Rows of both, in the new one's order.
    pub changes: Vec<Change>,
    /// Names of rows that only the old report has.
    pub only_old: Vec<String>,
    /// Names of rows that only the new report has.
    pub only_new: Vec<String>,
}

/// Names and best times of a report, the first time where there is no other.
fn times(report: &Report) -> Vec<(String, f64)> {
    let kernel = |r: &KernelRow| (format!("{} ({})", r.kernel, r.case), r.best_seconds);
    let run = |r: &ModelRow| {
        let name = format!("{}: {}, {}, {} tokens", report.model, r.activity.name(), r.attention, r.length);
        Some((name, r.best_seconds.or(r.first_seconds)?))
    };
    report.kernels.iter().map(kernel).chain(report.runs.iter().filter_map(run)).collect()
}

/// Compares two reports by the best time of each row.
pub fn compare(old: &Report, new: &Report) -> Comparison {
    let (old_times, new_times) = (times(old), times(new));
    let mut comparison = Comparison { devices: [old.device.clone(), new.device.clone()], ..Comparison::default() };
    for (name, new_seconds) in &new_times {
        match old_times.iter().find(|(other, _)| other == name) {
            Some(&(_, old_seconds)) => {
                comparison.changes.push(Change { name: name.clone(), old_seconds, new_seconds: *new_seconds });
            }
            None => comparison.only_new.push(name.clone()),
        }
    }
    let is_gone = |(name, _): &&(String, f64)| !new_times.iter().any(|(other, _)| other == name);
    comparison.only_old = old_times.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
    comparison
}
