//! The device page's state: the adapters of this machine, and a check of one.

use super::message::{AdapterLine, CheckLine};

/// How a check ended.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    pub passed: usize,
    pub failed: usize,
    /// Not where it was stopped.
    pub is_complete: bool,
    /// The report as HTML.
    pub report: String,
}

/// The page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    /// None until they are listed.
    pub adapters: Option<Vec<AdapterLine>>,
    /// Which device is being checked, or was.
    pub checked: Option<String>,
    pub lines: Vec<CheckLine>,
    pub result: Option<CheckResult>,
}

impl Devices {
    /// A check begins.
    pub fn begin_check(&mut self, device: &str) {
        self.checked = Some(device.to_string());
        self.lines.clear();
        self.result = None;
    }
}
