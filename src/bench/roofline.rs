//! The device's peak rates, measured in the same run: arithmetic in registers, and a memory copy.
//!
//! No kernel can be faster than the slower of the two allows (Williams, Waterman and Patterson,
//! "Roofline", CACM 52(4), 2009).

use serde::{Deserialize, Serialize};

use super::measure::{Samples, time_command};
use crate::error::Result;
use crate::gpu::{Buffer, Command, Executor, Kind, Recording, Span, Work};
use crate::kernels::bench::{chains, chains_flops, copy};

/// The two peak rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// f32 multiply-adds in registers, two operations each, in 10^9 operations per second.
    pub gflop_per_s: f64,
    /// A large copy, bytes read plus written, in 10^9 bytes per second.
    pub gb_per_s: f64,
}

/// Elements of the copy: 128 MiB with its source, larger than most caches.
const COPY_ELEMENTS: usize = 1 << 24;
/// Minimum duration of a dispatch of multiply-add chains, so that launch overhead is negligible.
const LONG_ENOUGH: f64 = 2e-3;
/// Maximum iterations, so that one dispatch stays short on any device.
const MOST_TURNS: u32 = 1 << 13;

impl Roofline {
    /// Measures both rates, for about `budget` seconds each.
    pub fn measure(device: &mut dyn Executor, budget: f64) -> Result<Self> {
        Ok(Self { gflop_per_s: arithmetic(device, budget)? / 1e9, gb_per_s: memory(device, budget)? / 1e9 })
    }

    /// The shortest possible time for some work on this device, in seconds.
    pub fn shortest(&self, work: Work) -> f64 {
        (work.flops as f64 / (self.gflop_per_s * 1e9)).max(work.bytes as f64 / (self.gb_per_s * 1e9))
    }
}

fn only_command(recording: &Recording) -> &Command {
    &recording.commands()[0]
}

/// Operations per second.
fn arithmetic(device: &mut dyn Executor, budget: f64) -> Result<f64> {
    let n = if device.runs_references() { 1 << 14 } else { 1 << 18 };
    let out = Buffer::persistent("chains", Kind::Real, n).span();
    let time = |device: &mut dyn Executor, turns: u32, budget: f64| -> Result<Samples> {
        let mut rec = Recording::new();
        chains(&mut rec, &out, turns);
        time_command(device, only_command(&rec), budget)
    };
    let mut turns = 8;
    while turns < MOST_TURNS && time(device, turns, 0.0)?.best() < LONG_ENOUGH {
        turns *= 2;
    }
    Ok(chains_flops(n, turns) as f64 / time(device, turns, budget)?.best())
}

/// Bytes per second.
fn memory(device: &mut dyn Executor, budget: f64) -> Result<f64> {
    let n = COPY_ELEMENTS.min(device.limits().max_elements());
    let [x, out]: [Span; 2] = ["copy source", "copy"].map(|label| Buffer::persistent(label, Kind::Real, n).span());
    let mut rec = Recording::new();
    rec.clear(&x);
    device.run(&rec)?;
    let mut rec = Recording::new();
    copy(&mut rec, &x, &out);
    Ok(8.0 * n as f64 / time_command(device, only_command(&rec), budget)?.best())
}
