//! Times burn on wgpu in f32: matrix products, dense causal attention, a training step of a small Llama.
//!
//! `longreach-peer-burn ADAPTER matmul|attention|train LENGTH SECONDS`
//!
//! `ADAPTER` is part of the name of a Vulkan adapter, such as `llvmpipe`. `LENGTH` is the size of
//! the matrices, or the number of tokens. The first run, which compiles and tunes, is reported
//! separately; the best of the runs that follow within `SECONDS` (at least three) counts. Prints
//! one line of JSON. Layers, attention, loss, optimiser, tuning and fusion are burn's own; only
//! RoPE, by halves as in Llama, is written here.

mod llama;
#[path = "../../timing.rs"]
mod timing;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::wgpu::WgpuBackend;
use burn::tensor::{Device, DeviceKind, Distribution, Int, Tensor, TensorData};

use llama::{Llama, VOCABULARY};
use timing::{Result, Runs, time_runs};

/// Heads of the separately timed attention, and their channels.
const HEADS: usize = 4;
const HEAD_DIM: usize = 32;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [adapter, what, length, seconds] = &args[..] else {
        return Err("usage: longreach-peer-burn ADAPTER matmul|attention|train LENGTH SECONDS".into());
    };
    let (length, seconds) = (length.parse()?, seconds.parse()?);
    let (device, name) = open(adapter)?;
    let (runs, more) = match what.as_str() {
        "matmul" => time_matmul(&device, length, seconds)?,
        "attention" => time_attention(&device.autodiff(), length, seconds)?,
        "train" => time_training(&device.autodiff(), length, seconds)?,
        _ => {
            return Err(format!("there is nothing called {what} to time; matmul, attention and train there are").into());
        }
    };
    println!(
        "{{\"program\":\"burn\",\"adapter\":\"{name}\",\"what\":\"{what}\",\"length\":{length},\"first_seconds\":{:.6},\
         \"best_seconds\":{:.6},\"later_runs\":{}{more}}}",
        runs.first, runs.best, runs.later
    );
    Ok(())
}

/// The device of the first Vulkan adapter of any type whose name contains `part`, and its name.
fn open(part: &str) -> Result<(Device, String)> {
    let mut seen = vec![];
    for kind in [DeviceKind::DiscreteGpu(0), DeviceKind::IntegratedGpu(0), DeviceKind::VirtualGpu(0), DeviceKind::Cpu] {
        let options = Device::wgpu_options().device_kind(kind).graphics_api(WgpuBackend::Vulkan);
        let Ok((device, setup)) = options.init_with_setup() else { continue };
        let name = setup.adapter.get_info().name;
        if name.to_lowercase().contains(&part.to_lowercase()) {
            return Ok((device, name));
        }
        seen.push(name);
    }
    Err(format!("no Vulkan adapter's name contains {part}; there is {seen:?}").into())
}

/// Waits for the device.
fn wait(device: &Device) -> Result<()> {
    device.sync().map_err(|error| format!("{error:?}").into())
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), device)
}

fn time_matmul(device: &Device, n: usize, seconds: f64) -> Result<(Runs, String)> {
    let (a, b) = (random([n, n], device), random([n, n], device));
    wait(device)?;
    let runs = time_runs(seconds, || {
        let product = a.clone().matmul(b.clone());
        wait(device)?;
        drop(product);
        Ok(())
    })?;
    let gflop_per_s = 2.0 * (n as f64).powi(3) / runs.best / 1e9;
    Ok((runs, format!(",\"gflop_per_s\":{gflop_per_s:.3}")))
}

fn time_attention(device: &Device, length: usize, seconds: f64) -> Result<(Runs, String)> {
    let shape = [1, HEADS, length, HEAD_DIM];
    let leaf = || random(shape, device).require_grad();
    let (q, k, v) = (leaf(), leaf(), leaf());
    let gradient = random(shape, device);
    wait(device)?;
    let runs = time_runs(seconds, || {
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let out = attention(q.clone(), k.clone(), v.clone(), None, None, options);
        let gradients = (out * gradient.clone()).sum().backward();
        let wanted = [q.grad(&gradients), k.grad(&gradients), v.grad(&gradients)];
        if wanted.iter().any(Option::is_none) {
            return Err("a gradient is missing".into());
        }
        wait(device)
    })?;
    Ok((runs, String::new()))
}

/// Steps of AdamW on one sequence of `length` tokens: forward, cross-entropy, backward, update.
fn time_training(device: &Device, length: usize, seconds: f64) -> Result<(Runs, String)> {
    let model = Llama::new(length, device);
    let parameters = model.num_params();
    let mut model = Some(model); // the optimiser takes ownership to update in place
    let mut optimizer = AdamWConfig::new().init();
    let criterion = CrossEntropyLossConfig::new().init(device);
    let ids: Vec<i32> = (0..=length).map(|i| ((i * 7919 + 11) % VOCABULARY) as i32).collect();
    let tokens = |ids: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(ids.to_vec(), [length]), device);
    let (inputs, targets) = (tokens(&ids[..length]), tokens(&ids[1..]));
    let mut losses: Vec<f32> = vec![];
    wait(device)?;
    let runs = time_runs(seconds, || {
        let current = model.take().ok_or("an earlier step failed")?;
        let logits = current.forward(inputs.clone().unsqueeze());
        let loss = criterion.forward(logits.reshape([length, VOCABULARY]), targets.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &current);
        model = Some(optimizer.step(1e-3, current, gradients));
        losses.push(loss.into_scalar());
        wait(device)
    })?;
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    Ok((runs, format!(",\"parameters\":{parameters},\"first_loss\":{first:.4},\"last_loss\":{last:.4}")))
}
