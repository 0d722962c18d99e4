//! Times Meganeura in f32: matrix products, dense causal attention, a training step of a small Llama.
//!
//! `longreach-peer-meganeura ADAPTER matmul|attention|train LENGTH SECONDS`
//!
//! `ADAPTER` is part of the name of a Vulkan adapter, such as `llvmpipe`. `LENGTH` is the size of
//! the matrices, or the number of tokens. The first run, reported separately, builds the session
//! (differentiates, rewrites, compiles) and uploads weights and inputs; the best of the runs that
//! follow within `SECONDS` (at least three) counts. Prints one line of JSON.
//!
//! The model, attention, loss, differentiation, rewrites, kernels and optimiser are Meganeura's
//! own. Its defaults are kept except for precision: everything is f32, and a product uses
//! cooperative matrices only if the adapter has them for f32. By default Meganeura does not tune.
//! Adam with weight decay has the default settings of burn's AdamW. Meganeura does not initialise
//! weights, so random ones are made here; its cross-entropy takes one-hot targets.

mod llama;
#[path = "../../timing.rs"]
mod timing;

use std::sync::Arc;

use blade_graphics::Context;
use meganeura::{
    CompileOptions, CoopPolicy, GpuOptions, Graph, Mode, Session, SessionConfig, SessionOptions, init_gpu_context_with,
};

use llama::VOCABULARY;
use timing::{Result, Runs, time_runs};

/// Heads of the separately timed attention, and their channels.
const HEADS: usize = 4;
const HEAD_DIM: usize = 32;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [adapter, what, length, seconds] = &args[..] else {
        return Err("usage: longreach-peer-meganeura ADAPTER matmul|attention|train LENGTH SECONDS".into());
    };
    let (length, seconds) = (length.parse()?, seconds.parse()?);
    let gpu = open(adapter)?;
    let (runs, more) = match what.as_str() {
        "matmul" => time_matmul(&gpu, length, seconds)?,
        "attention" => time_attention(&gpu, length, seconds)?,
        "train" => time_training(&gpu, length, seconds)?,
        _ => {
            return Err(format!("there is nothing called {what} to time; matmul, attention and train there are").into());
        }
    };
    let name = &gpu.device_information().device_name;
    println!(
        "{{\"program\":\"meganeura\",\"adapter\":\"{name}\",\"what\":\"{what}\",\"length\":{length},\
         \"first_seconds\":{:.6},\"best_seconds\":{:.6},\"later_runs\":{}{more}}}",
        runs.first, runs.best, runs.later
    );
    Ok(())
}

/// The first Vulkan adapter whose name contains `part`.
fn open(part: &str) -> Result<Arc<Context>> {
    let reports = Context::enumerate()?;
    let fits = |name: &str| name.to_lowercase().contains(&part.to_lowercase());
    let Some(report) = reports.iter().find(|report| fits(&report.information.device_name)) else {
        let seen: Vec<_> = reports.iter().map(|report| &report.information.device_name).collect();
        return Err(format!("no Vulkan adapter's name contains {part}; there is {seen:?}").into());
    };
    let options = GpuOptions { device_id: Some(report.device_id), ..Default::default() };
    Ok(Arc::new(init_gpu_context_with(options)?))
}

/// A session that runs `graph` in f32.
fn build(gpu: &Arc<Context>, graph: &Graph, mode: Mode) -> Session {
    let has_f32_tiles = gpu.capabilities().cooperative_matrix.f32_tile > 0;
    let config = SessionConfig {
        mode,
        gpu: Some(gpu.clone()),
        options: CompileOptions { flash_forward_coop: false, ..Default::default() }, // it needs f16
        runtime: SessionOptions {
            coop: if has_f32_tiles { CoopPolicy::Auto } else { CoopPolicy::Disabled },
            ..Default::default()
        },
        ..Default::default()
    };
    meganeura::build(graph, config).0
}

/// Reproducible random values.
struct Random(u64);

impl Random {
    /// The next `count` values between -`bound` and `bound`.
    fn values(&mut self, count: usize, bound: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (2.0 * (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 1.0) * bound
        };
        (0..count).map(|_| next()).collect()
    }
}

fn time_matmul(gpu: &Arc<Context>, n: usize, seconds: f64) -> Result<(Runs, String)> {
    let mut graph = Graph::new();
    let (a, b) = (graph.input("a", &[n, n]), graph.parameter("b", &[n, n]));
    let product = graph.matmul(a, b);
    graph.set_outputs(vec![product]);
    let mut random = Random(1);
    let [a, b] = [(); 2].map(|()| random.values(n * n, 1.0));
    let mut session = None;
    let runs = time_runs(seconds, || {
        let session = session.get_or_insert_with(|| {
            let mut session = build(gpu, &graph, Mode::Inference);
            session.set_input("a", &a);
            session.set_parameter("b", &b);
            session
        });
        session.step();
        session.wait();
        Ok(())
    })?;
    let last = session.ok_or("nothing ran")?.read_output(n * n)[n * n - 1];
    let expected: f32 = (0..n).map(|k| a[(n - 1) * n + k] * b[k * n + n - 1]).sum();
    if (last - expected).abs() > 1e-3 {
        return Err(format!("the product's last value is {last}, not {expected}").into());
    }
    let gflop_per_s = 2.0 * (n as f64).powi(3) / runs.best / 1e9;
    Ok((runs, format!(",\"gflop_per_s\":{gflop_per_s:.3}")))
}

fn time_attention(gpu: &Arc<Context>, length: usize, seconds: f64) -> Result<(Runs, String)> {
    let shape = [length, HEADS * HEAD_DIM];
    let mut graph = Graph::new();
    let names = ["q", "k", "v"];
    let [q, k, v] = names.map(|name| graph.parameter(name, &shape));
    let gradient = graph.input("gradient", &shape);
    let (heads, head_dim) = (HEADS as u32, HEAD_DIM as u32);
    let out = graph.causal_attention(q, k, v, heads, heads, head_dim);
    let weighted = graph.mul(out, gradient);
    let loss = graph.sum_all(weighted);
    graph.set_outputs(vec![loss]);
    let mut random = Random(1);
    let values = [(); 4].map(|()| random.values(length * HEADS * HEAD_DIM, 1.0));
    let mut session = None;
    let runs = time_runs(seconds, || {
        let session = session.get_or_insert_with(|| {
            let mut session = build(gpu, &graph, Mode::Training);
            for (name, values) in names.into_iter().zip(&values) {
                session.set_parameter(name, values);
            }
            session.set_input("gradient", &values[3]);
            session
        });
        if names.iter().any(|name| !session.has_param_grad(name)) {
            return Err("a gradient is missing".into());
        }
        session.step();
        session.wait();
        Ok(())
    })?;
    Ok((runs, String::new()))
}

/// Steps of AdamW on one sequence of `length` tokens: forward, cross-entropy, backward, update.
fn time_training(gpu: &Arc<Context>, length: usize, seconds: f64) -> Result<(Runs, String)> {
    let graph = llama::graph(length);
    let weights = llama::random_weights(&graph);
    let parameters: usize = weights.iter().map(|(_, values)| values.len()).sum();
    let ids: Vec<u32> = (0..=length).map(|i| ((i * 7919 + 11) % VOCABULARY) as u32).collect();
    let mut labels = vec![0.0; length * VOCABULARY];
    for (row, &id) in labels.chunks_mut(VOCABULARY).zip(&ids[1..]) {
        row[id as usize] = 1.0;
    }
    let mut session = None;
    let mut losses: Vec<f32> = vec![];
    let runs = time_runs(seconds, || {
        let session = session.get_or_insert_with(|| {
            let mut session = build(gpu, &graph, Mode::Training);
            for (name, values) in &weights {
                session.set_parameter(name, values);
            }
            session.set_input_u32("token_ids", &ids[..length]);
            session.set_input("labels", &labels);
            session.set_adam(1e-3, 0.9, 0.999, 1e-5);
            session.set_weight_decay(1e-4);
            session
        });
        session.step();
        session.wait();
        losses.push(session.read_loss());
        Ok(())
    })?;
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    Ok((runs, format!(",\"parameters\":{parameters},\"first_loss\":{first:.4},\"last_loss\":{last:.4}")))
}
