//! Opens the device that `--device` names.

use super::wgpu::adapter::{adapters, auto_adapter, find_adapter, primary_adapters};
use super::wgpu::executor::WgpuExecutor;
use super::{AdapterReport, CpuExecutor, Device, OpenOptions};
use crate::error::Result;

/// Opens `auto` (a hardware GPU, else the CPU), `cpu`, an adapter by number or by part of its name.
pub fn open_device(wanted: &str) -> Result<Device> {
    open_device_with(wanted, &OpenOptions::default())
}

/// [`open_device`] with options for a GPU adapter.
pub fn open_device_with(wanted: &str, options: &OpenOptions) -> Result<Device> {
    let cpu = || Box::new(CpuExecutor::<f32>::new().unpoisoned());
    match wanted {
        "cpu" => Ok(cpu()),
        "auto" => match auto_adapter(&primary_adapters()) {
            Some(adapter) => Ok(Box::new(WgpuExecutor::open(adapter, options)?)),
            None => Ok(cpu()),
        },
        name => {
            let list = adapters();
            Ok(Box::new(WgpuExecutor::open(find_adapter(&list, name)?, options)?))
        }
    }
}

/// A software Vulkan adapter, if there is one; the tests ask for it by name.
pub fn software_adapter() -> Option<AdapterReport> {
    primary_adapters().into_iter().find(|a| a.is_software() && a.backend == "vulkan")
}
