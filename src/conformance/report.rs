//! The report of a check: devices, their rows and the counts, as JSON.

use serde::Serialize;
use serde_json::{Value, json};

use super::row::{Row, Status};
use super::shaders::TranslationRow;
use crate::error::{Context, Result};
use crate::gpu::shader::translate::Target;
use crate::gpu::{AdapterReport, LimitSet};

/// The results of one device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceReport {
    /// Backend and adapter, as in the rows.
    pub name: String,
    /// Driver name and version.
    pub driver: String,
    /// Vendor.
    pub vendor: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub device_type: String,
    /// Optional features of the adapter that Longreach can use.
    pub features: Vec<&'static str>,
    /// Smallest and largest subgroup size.
    pub subgroup_sizes: [u32; 2],
    /// Limits by name, as the device was opened with.
    pub limits: Vec<(&'static str, u64)>,
    /// Whether only WebGPU's default limits and no optional features were used.
    pub webgpu_limits: bool,
    /// Notes for the reader.
    pub notes: Vec<String>,
    /// All rows.
    #[serde(skip)]
    pub rows: Vec<Row>,
    /// Wall time of the check.
    pub seconds: f64,
}

impl DeviceReport {
    /// A report of an adapter, without rows.
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

    /// A report of the CPU executor, without rows.
    pub(super) fn of_cpu() -> Self {
        Self {
            name: "cpu".to_string(),
            driver: format!("f32 references, {} threads", rayon::current_num_threads()),
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
    /// Results by device.
    pub devices: Vec<DeviceReport>,
    /// Rows that need no device: gradients against slopes, translations.
    pub paper: Vec<Row>,
    /// The translations alone.
    pub translations: Vec<TranslationRow>,
}

/// The number of shaders by result of translation to one driver language.
#[derive(Clone, Debug, Serialize)]
pub struct TargetSummary {
    /// The language.
    pub target: &'static str,
    /// Accepted by a validator.
    pub validated: usize,
    /// Translated, but not validated.
    pub translated: usize,
    /// Rejected.
    pub failed: usize,
    /// The devices of the report that run this language; empty if the translations were only made.
    pub run_on: Vec<String>,
}

impl Report {
    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.paper.iter().chain(self.devices.iter().flat_map(|d| &d.rows))
    }

    /// Rows with this status.
    pub fn count(&self, status: Status) -> usize {
        self.rows().filter(|r| r.status == status).count()
    }

    /// The translations by language, and the devices of the report that ran each.
    pub fn targets(&self) -> Vec<TargetSummary> {
        let one = |target: Target| {
            let count =
                |word: &str| self.translations.iter().filter(|t| t.target == target && t.status.word() == word).count();
            let backend = match target {
                Target::SpirV => "vulkan:",
                Target::Msl => "metal:",
                Target::Hlsl => "dx12:",
                Target::GlslEs => "gl:",
            };
            let devices = self.devices.iter().filter(|d| d.name.starts_with(backend));
            TargetSummary {
                target: target.name(),
                validated: count("validated"),
                translated: count("translated"),
                failed: count("failed"),
                run_on: devices.map(|d| d.name.clone()).collect(),
            }
        };
        if self.translations.is_empty() { vec![] } else { Target::ALL.map(one).to_vec() }
    }

    /// One JSON object. `passed`, `known` and `failed` count the `cases`, each with kernel,
    /// variant, direction, case, status, max_abs, max_ulp and reason; `devices` describes the
    /// devices.
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
            "targets": self.targets(),
            "cases": cases,
        }))
    }
}
