//! First step: which devices are there, which one is used, and what it can hold.
//!
//! Everything Longreach computes runs on an executor. There are two: a GPU through wgpu, and the CPU. Both run the same
//! recordings and give the same answers.
//!
//!     cargo run --example 01_device [DEVICE]
//!
//! DEVICE is `auto` (a hardware GPU, else the CPU), `cpu`, an index, or a part of an adapter's name.

use longreach::Result;
use longreach::gpu::{Buffer, Kind, adapters, open_device};

fn main() -> Result<()> {
    // An adapter is what a driver offers. Software adapters (a CPU pretending to be a GPU) are only used when named.
    for a in adapters() {
        println!("adapter {}: {} through {} ({}, driver {})", a.index, a.name, a.backend, a.device_type, a.driver);
    }

    // Opening an adapter makes an executor of it. Where no GPU is found, `auto` is the CPU executor.
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "auto".into());
    let mut device = open_device(&wanted)?;
    println!("opened {wanted}: {}", device.name());

    // A kernel sees a buffer through a binding of limited size; larger tensors are cut into row slices.
    let limits = device.limits();
    println!("largest binding: {} MiB", limits.max_binding_bytes >> 20);

    // A buffer is a handle. It takes memory when an executor first meets it, and gives it back when the handle is dropped.
    let numbers = Buffer::persistent("numbers", Kind::Real, 1 << 18);
    println!("in use before: {} bytes", device.memory().persistent_bytes);
    device.write_real(&numbers.span(), &vec![0.5; 1 << 18])?;
    println!("in use with 2^18 numbers: {} bytes", device.memory().persistent_bytes);
    let sum: f32 = device.read_real(&numbers.span())?.iter().sum();
    println!("their sum, read back: {sum}");
    Ok(())
}
