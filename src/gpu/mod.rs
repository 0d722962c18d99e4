//! Floor 1: devices and how work reaches them.
//!
//! Ops describe work as a [`Recording`] of commands on [`Buffer`] handles; an [`Executor`] runs it: [`WgpuExecutor`] on a
//! GPU through wgpu, [`CpuExecutor`] through each kernel's Rust twin. Start with `recording.rs`.

mod adapter;
mod buffer;
mod call;
mod choice;
mod choice_store;
mod cooperative_test;
mod cpu_executor;
mod difference;
mod encode;
mod executor;
mod faults;
mod features;
pub mod footprint;
mod host_memory;
mod kernel;
mod memory;
mod open;
mod open_options;
mod pace;
mod pipelines;
mod plan;
mod pool;
mod reading;
mod real;
mod recording;
mod replay;
pub mod shader;
mod subgroup_test;
pub mod texels;
mod timestamps;
pub mod translate;
pub mod trial;
pub mod walk;
mod wgpu_device;
mod wgpu_executor;

pub use adapter::{AdapterReport, adapters, auto_adapter, find_adapter};
pub use buffer::{Buffer, ELEMENT_ALIGNMENT, Kind, Lifetime, Span};
pub use call::{Arg, Call};
pub use cpu_executor::CpuExecutor;
pub use difference::{Difference, Fault};
pub use executor::{Clock, Device, DeviceLimits, Executor, MemoryUse, Timing, upload_words};
pub use features::{Feature, Features};
pub use host_memory::{available_host_bytes, check_host_memory};
pub use kernel::{Access, Alternative, Binding, Expected, Field, KernelDef, Params, Rival, Scalar, Shape, Source};
pub use open::{open_device, open_device_with, software_adapter};
pub use open_options::{LimitSet, OpenOptions, Rivals};
pub use plan::Plan;
pub use reading::Reading;
pub use real::Real;
pub use recording::{Command, Dispatch, Recording, groups_for};
pub use wgpu_executor::WgpuExecutor;
