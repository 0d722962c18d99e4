//! The report of a check: devices, their rows and the counts, as JSON.

use serde::Serialize;
use serde_json::{Value, json};

use super::row::{Row, Status};
use crate::error::{Context, Result};
use crate::gpu::{AdapterReport, LimitSet};

/// What was checked on one device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceReport {
    /// Backend and adapter, as the rows name it.
    pub name: String,
    /// Driver and its version.
    pub driver: String,
    /// Vendor.
    pub vendor: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub device_type: String,
    /// Optional features of the adapter that Longreach can use.
    pub features: Vec<&'static str>,
    /// Subgroup sizes, smallest and largest.
    pub subgroup_sizes: [u32; 2],
    /// Limits by name; those that the device was opened with.
    pub limits: Vec<(&'static str, u64)>,
    /// Whether only WebGPU's default limits and no optional features were used.
    pub webgpu_limits: bool,
    /// What the reader should know besides the rows.
    pub notes: Vec<String>,
    /// Everything that was checked.
    #[serde(skip)]
    pub rows: Vec<Row>,
    /// Wall time of the check.
    pub seconds: f64,
}

impl DeviceReport {
    /// A report without rows.
    pub(super) fn of_adapter(adapter: &AdapterReport, name: String, limits: LimitSet) -> Self {
        Self {
            name,
            driver: adapter.driver.clone(),
            vendor: adapter.vendor.clone(),
            device_type: adapter.device_type.to_string(),
            features: if limits == LimitSet::WebGpu { vec![] } else { adapter.features.clone() },
            subgroup_sizes: [adapter.subgroup_sizes.0, adapter.subgroup_sizes.1],
            limits: adapter.named_limits(limits),
            webgpu_limits: limits == LimitSet::WebGpu,
            notes: vec![],
            rows: vec![],
            seconds: 0.0,
        }
    }

    /// The same of the CPU executor.
    pub(super) fn of_cpu() -> Self {
        Self {
            name: "cpu".to_string(),
            driver: format!("f32 twins, {} threads", rayon::current_num_threads()),
            vendor: String::new(),
            device_type: "cpu".to_string(),
            features: vec![],
            subgroup_sizes: [0, 0],
            limits: vec![],
            webgpu_limits: false,
            notes: vec![],
            rows: vec![],
            seconds: 0.0,
        }
    }
}

/// A whole report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was checked on devices.
    pub devices: Vec<DeviceReport>,
    /// What needs no device: gradients against slopes.
    pub slopes: Vec<Row>,
}

impl Report {
    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.slopes.iter().chain(self.devices.iter().flat_map(|d| &d.rows))
    }

    /// Rows with this status.
    pub fn count(&self, status: Status) -> usize {
        self.rows().filter(|r| r.status == status).count()
    }

    /// One object: `passed`, `known` and `failed` count the `cases`, each with kernel, variant, direction, case, status, max_abs, max_ulp
    /// and reason; `devices` says what they were made on.
    pub fn to_json(&self) -> Result<Value> {
        let cases: Vec<&Row> = self.rows().collect();
        let cases = serde_json::to_value(cases).context("writing the report as JSON")?;
        let devices = serde_json::to_value(&self.devices).context("writing the report as JSON")?;
        Ok(json!({
            "passed": self.count(Status::Passed),
            "known": self.count(Status::Known),
            "failed": self.count(Status::Failed),
            "version": env!("CARGO_PKG_VERSION"),
            "devices": devices,
            "cases": cases,
        }))
    }
}
