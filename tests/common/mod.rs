//! What the tests share: the adapter that they name.

#![allow(dead_code)] // each test file uses its own part

pub mod golden;

use longreach::gpu::{AdapterReport, LimitSet, OpenOptions, WgpuExecutor, adapters, find_adapter, software_adapter};

/// Names another adapter for the tests, as `--device` does: `gl:llvmpipe`, `nvidia`, `0`.
const DEVICE_VARIABLE: &str = "LONGREACH_TEST_DEVICE";

fn test_adapter() -> Option<AdapterReport> {
    match std::env::var(DEVICE_VARIABLE) {
        Ok(name) => Some(find_adapter(&adapters(), &name).expect(DEVICE_VARIABLE).clone()),
        Err(_) => software_adapter(),
    }
}

/// The software Vulkan device, or the one that the variable names. Where there is none: a failure in CI, a printed skip elsewhere.
pub fn software_device() -> Option<WgpuExecutor> {
    open(&OpenOptions::default())
}

/// The same adapter with WebGPU's default limits, no optional features and naga's runtime checks.
pub fn minimal_device() -> Option<WgpuExecutor> {
    open(&OpenOptions { limits: LimitSet::WebGpu, checked: true, ..OpenOptions::default() })
}

/// Opens that adapter with the given options.
pub fn open(options: &OpenOptions) -> Option<WgpuExecutor> {
    match test_adapter() {
        Some(adapter) => Some(WgpuExecutor::open(&adapter, options).expect("the adapter opens")),
        None if std::env::var_os("CI").is_some() => panic!("no software Vulkan adapter: install mesa-vulkan-drivers"),
        None => {
            eprintln!("SKIPPED: no software Vulkan adapter; on Debian: apt-get install mesa-vulkan-drivers");
            None
        }
    }
}
