//! Benchmark of attention alone, forward and backward, dense and LRSA, at growing lengths.

use std::time::Instant;

use super::measure::time_runs;
use super::report::{Activity, ModelRow};
use crate::attention::{Attention, Heads, TrainingLayout, attend_training};
use crate::error::Result;
use crate::gpu::{Device, Recording};
use crate::kernels::case::random;
use crate::tensor::{Format, Tensor};

/// The measured heads: four query heads of 32 channels, each with its own KV head.
pub const HEADS: Heads = Heads { queries: 4, keys: 4, dim: 32 };

/// Times forward and backward of one layer on one sequence of `length` tokens with random queries,
/// keys, values and output gradients, for about `budget` seconds after the first run. `device` must
/// be newly opened.
pub fn attention_row(mut device: Device, attention: Attention, length: usize, budget: f64) -> Result<ModelRow> {
    let device = device.as_mut();
    let layout = TrainingLayout::upload(device, attention, HEADS, &[(0, length)])?;
    let q_cols = HEADS.queries * HEADS.dim;
    let mut upload = |label, seed, cols| -> Result<Tensor> {
        let tensor = Tensor::persistent(label, Format::F32, length, cols, &device.limits())?;
        tensor.write(device, &random(seed, length * cols, 1.0))?;
        Ok(tensor)
    };
    let (q, kv, dout) = (upload("q", 1, q_cols)?, upload("kv", 2, HEADS.kv_cols())?, upload("dout", 3, q_cols)?);
    let mut recording = Recording::new();
    let ((_, op), _) = attend_training(&mut recording, &q, &kv, &layout, HEADS.scale(), None)?;
    op.backward(&mut recording, &[dout], &[true, true])?;
    device.wait()?;
    let runs = time_runs(budget, || {
        let start = Instant::now();
        device.run(&recording)?;
        device.wait()?;
        Ok(start.elapsed().as_secs_f64())
    })?;
    let mut row = ModelRow::new(Activity::Attention, attention, length, length, Some(&runs));
    row.peak_bytes = device.memory().peak_bytes();
    Ok(row)
}
