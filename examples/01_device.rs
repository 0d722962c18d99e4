//! Step 1: lists the devices, opens one, and shows its limits and memory.
//!
//! An executor runs everything that Longreach computes. There are two: a GPU through wgpu, and the
//! CPU. Both run the same recordings and give the same results.
//!
//!     cargo run --example 01_device [DEVICE]
//!
//! DEVICE is `auto` (a hardware GPU, else the CPU), `cpu`, an index, or part of an adapter's name.

use longreach::Result;
use longreach::gpu::{Buffer, Kind, adapters, open_device};

fn main() -> Result<()> {
    // A driver offers adapters. Software adapters, which run on the CPU, are only used when named.
    for a in adapters() {
        println!("adapter {}: {} through {} ({}, driver {})", a.index, a.name, a.backend, a.device_type, a.driver);
    }

    // Opening an adapter creates an executor. Without a GPU, `auto` is the CPU executor.
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "auto".into());
    let mut device = open_device(&wanted)?;
    println!("opened {wanted}: {}", device.name());

    // A kernel accesses a buffer through a binding of limited size; larger tensors are split into
    // row slices.
    let limits = device.limits();
    println!("largest binding: {} MiB", limits.max_binding_bytes >> 20);

    // A buffer is a handle. The executor allocates its memory on first use and frees it when the
    // handle is dropped.
    let numbers = Buffer::persistent("numbers", Kind::Real, 1 << 18);
    println!("in use before: {} bytes", device.memory().persistent_bytes);
    device.write_real(&numbers.span(), &vec![0.5; 1 << 18])?;
    println!("in use with 2^18 numbers: {} bytes", device.memory().persistent_bytes);
    let sum: f32 = device.read_real(&numbers.span())?.iter().sum();
    println!("their sum, read back: {sum}");
    Ok(())
}
