//! Shared by the tests: the adapter that they run on.

#![allow(dead_code)] // each test file uses its own part

pub mod equality;
pub mod golden;
pub mod layered;
pub mod pairs;
pub mod stories;

use longreach::gpu::{AdapterReport, LimitSet, OpenOptions, WgpuExecutor, adapters, find_adapter, software_adapter};

/// Environment variable that selects another adapter, like `--device`: `gl:llvmpipe`, `nvidia`,
/// `0`.
const DEVICE_VARIABLE: &str = "LONGREACH_TEST_DEVICE";

/// The value of the variable.
pub fn named_device() -> Option<String> {
    std::env::var(DEVICE_VARIABLE).ok()
}

fn test_adapter() -> Option<AdapterReport> {
    match named_device() {
        Some(name) => Some(find_adapter(&adapters(), &name).expect(DEVICE_VARIABLE).clone()),
        None => software_adapter(),
    }
}

/// The software Vulkan device, or the one that the variable selects. Without one, fails in CI and
/// prints a skip elsewhere.
pub fn software_device() -> Option<WgpuExecutor> {
    open(&OpenOptions::default())
}

/// The same adapter with WebGPU's default limits, no optional features and naga's runtime checks.
pub fn minimal_device() -> Option<WgpuExecutor> {
    open(&OpenOptions { limits: LimitSet::WebGpu, checked: true, ..OpenOptions::default() })
}

/// Opens the adapter with the given options.
pub fn open(options: &OpenOptions) -> Option<WgpuExecutor> {
    test_adapter_or_skip().map(|adapter| WgpuExecutor::open(&adapter, options).expect("the adapter opens"))
}

/// The adapter, unopened.
pub fn test_adapter_or_skip() -> Option<AdapterReport> {
    let adapter = test_adapter();
    if adapter.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no software Vulkan adapter: install mesa-vulkan-drivers");
        eprintln!("SKIPPED: no software Vulkan adapter; on Debian: apt-get install mesa-vulkan-drivers");
    }
    adapter
}
