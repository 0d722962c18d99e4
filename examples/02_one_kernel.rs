//! Step 2: records one matrix product, runs it on a device and compares it with the f64 reference.
//!
//! A `Recording` is a list of commands, independent of any device, and an executor runs it. So the
//! same code below runs on a GPU and on the oracle.
//!
//!     cargo run --example 02_one_kernel [DEVICE]

use longreach::Result;
use longreach::gpu::{CpuExecutor, Executor, Recording, open_device};
use longreach::kernels::case::random;
use longreach::kernels::matmul::matmul_nt;
use longreach::tensor::{Format, Tensor};
use longreach::verify::walk;

const TOKENS: usize = 100;
const N_IN: usize = 64;
const N_OUT: usize = 48;

/// Uploads x and w, records y = x wᵀ, runs it; returns the recording and y.
fn product(device: &mut dyn Executor) -> Result<(Recording, Vec<f32>)> {
    // Tensors are matrices on a device: activations are [tokens, channels], weights [out, in].
    let limits = device.limits();
    let x = Tensor::persistent("x", Format::F32, TOKENS, N_IN, &limits)?;
    let w = Tensor::persistent("w", Format::F32, N_OUT, N_IN, &limits)?;
    let y = Tensor::persistent("y", Format::F32, TOKENS, N_OUT, &limits)?;
    x.write(device, &random(1, x.len(), 1.0))?;
    w.write(device, &random(2, w.len(), 1.0))?;

    // This computes nothing: it appends a dispatch to the list.
    let mut rec = Recording::new();
    matmul_nt(&mut rec, &x, &w, &y, 1.0, 0.0);

    // This runs it.
    device.run(&rec)?;
    let values = y.read(device)?;
    Ok((rec, values))
}

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "auto".into());
    let mut device = open_device(&wanted)?;
    let (rec, ours) = product(device.as_mut())?;
    println!("{}: {} command, y[0] = {}", device.name(), rec.commands().len(), ours[0]);

    // Every kernel has a reference in Rust. Its f64 run is the oracle for all devices.
    let (_, exact) = product(&mut CpuExecutor::<f64>::new())?;
    let largest = exact.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let error = ours.iter().zip(&exact).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("largest error: {:.1e} of the largest element", error / largest);
    assert!(error < 1e-5 * largest, "the device and the reference disagree");

    // The same comparison works for any recording: it checks each dispatch alone, on the device's
    // own inputs.
    for difference in walk::compare(device.as_mut(), &rec)? {
        println!("{difference}");
    }
    println!("device and reference agree");
    Ok(())
}
