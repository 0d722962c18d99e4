//! What the tests share: the software adapter that they name.

#![allow(dead_code)] // each test file uses its own part

pub mod golden;

use longreach::gpu::{LimitSet, OpenOptions, WgpuExecutor, software_adapter};

/// The software Vulkan device. Where there is none: a failure in CI, a printed skip elsewhere.
pub fn software_device() -> Option<WgpuExecutor> {
    open(&OpenOptions::default())
}

/// The same adapter with WebGPU's default limits, no optional features and naga's runtime checks.
pub fn minimal_device() -> Option<WgpuExecutor> {
    open(&OpenOptions { limits: LimitSet::WebGpu, checked: true, max_binding_bytes: None })
}

/// Opens the software adapter with the given options.
pub fn open(options: &OpenOptions) -> Option<WgpuExecutor> {
    match software_adapter() {
        Some(adapter) => Some(WgpuExecutor::open(&adapter, options).expect("the software adapter opens")),
        None if std::env::var_os("CI").is_some() => panic!("no software Vulkan adapter: install mesa-vulkan-drivers"),
        None => {
            eprintln!("SKIPPED: no software Vulkan adapter; on Debian: apt-get install mesa-vulkan-drivers");
            None
        }
    }
}
