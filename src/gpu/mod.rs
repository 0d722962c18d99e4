//! Floor 1: devices, and the recordings of commands that they run.
//!
//! Ops describe work as a [`Recording`] of commands on [`Buffer`] handles. An [`Executor`] runs it:
//! [`WgpuExecutor`] on a GPU through wgpu, [`CpuExecutor`] through each kernel's Rust reference.
//! Start with `recording.rs`.

mod activations;
mod breakable;
mod buffer;
mod cpu;
mod executor;
mod features;
mod kernel;
mod kernel_args;
mod open;
mod params;
mod plan;
mod reading;
mod recording;
pub mod shader;
mod wgpu;
mod work;

pub use self::cpu::executor::CpuExecutor;
pub use self::cpu::host_memory::{available_host_bytes, check_host_memory};
pub use self::wgpu::adapter::{AdapterReport, adapters, auto_adapter, find_adapter};
pub use self::wgpu::executor::WgpuExecutor;
pub use self::wgpu::open_options::{Alternatives, LimitSet, OpenOptions};
pub use self::wgpu::texels;
pub use crate::real::Real;
pub use activations::Activations;
pub use breakable::Breakable;
pub use buffer::{Buffer, ELEMENT_ALIGNMENT, Kind, Lifetime, Span};
pub use executor::{Clock, Device, DeviceLimits, Executor, MemoryUse, Timing, WordFill, upload_words};
pub use features::{Feature, Features};
pub use kernel::{Access, Alternative, Binding, Dispatch, Expected, KernelDef, PartVariant, Shape, Source};
pub use kernel_args::{Arg, Host, KernelArgs, Scratch};
pub use open::{open_device, open_device_with, software_adapter};
pub use params::{Field, Params, Scalar, StructDef, TableRow};
pub use plan::Plan;
pub use reading::Reading;
pub use recording::{Command, Recording, groups_for};
pub use work::{DISPATCH_FLOPS, DispatchView, ReadWords, Work, WorkFn};
