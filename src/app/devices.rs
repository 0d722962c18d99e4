//! State of the device page: the adapters of this machine and the check of one of them.

use super::message::{AdapterLine, CheckLine};

/// Result of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    pub passed: usize,
    pub failed: usize,
    /// False if the user stopped the check.
    pub is_complete: bool,
    /// The report as HTML.
    pub report: String,
}

/// State of the device page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    /// `None` until the worker has listed them.
    pub adapters: Option<Vec<AdapterLine>>,
    /// The device of the current or the last check.
    pub checked: Option<String>,
    pub lines: Vec<CheckLine>,
    pub result: Option<CheckResult>,
}

impl Devices {
    /// Starts a check and drops the result of the last one.
    pub fn begin_check(&mut self, device: &str) {
        self.checked = Some(device.to_string());
        self.lines.clear();
        self.result = None;
    }
}
