//! The golden cases: every executor reproduces the float64 results of transformers and PEFT.
//!
//! Four small models, dense and LRSA, with and without an adapter.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::adapter_file::{Adapter, read_adapter};
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::formats::safetensors_file::Checkpoint;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, Executor, OpenOptions};
use longreach::kernels::sample::Sampling;
use longreach::optim::{AdamW, Lion, Sgd, UpdateRule};
use longreach::train::{ProbeRequest, StepSettings, Stepper, probe};

/// Allowed deviation of an executor from float64.
#[derive(Clone, Copy)]
struct Bounds {
    logits: f64,
    loss: f64,
    grad: f64,
    dense_losses: f64,
    lrsa_losses: f64,
}

const F32: Bounds = Bounds { logits: 3e-5, loss: 2e-6, grad: 1e-5, dense_losses: 1e-5, lrsa_losses: 1e-4 };
const F64: Bounds = Bounds { logits: 1e-6, loss: 1e-6, grad: 1e-6, dense_losses: 1e-6, lrsa_losses: 1e-6 };

impl Bounds {
    fn times(self, f: f64) -> Self {
        Self {
            logits: f * self.logits,
            loss: f * self.loss,
            grad: f * self.grad,
            dense_losses: f * self.dense_losses,
            lrsa_losses: f * self.lrsa_losses,
        }
    }
}

struct Golden {
    dir: PathBuf,
    source: WeightSource,
    adapter: Adapter,
    tensors: HashMap<String, Vec<f32>>,
    rows: usize,
    modes: Vec<(String, Attention)>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let source = WeightSource::open(&dir).unwrap();
        let adapter = read_adapter(&dir.join("lora"), source.config()).unwrap();
        let file = Checkpoint::open(&dir.join("golden.safetensors")).unwrap();
        let rows = file.info("input_ids").unwrap().1[0];
        let read = |n: &str| {
            let t = file.read(n).unwrap();
            let values = t.to_f32().unwrap_or_else(|_| t.to_i64().unwrap().into_iter().map(|x| x as f32).collect());
            (n.to_string(), values)
        };
        let tensors = file.names().map(read).collect();
        let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mode = |(name, v): (&String, &serde_json::Value)| {
            let attention = match v["sink"].as_u64() {
                None => Attention::Dense,
                Some(s) => Attention::Lrsa(
                    Lrsa::new(s as usize, v["lag"].as_u64().unwrap() as usize, v["keep"].as_f64().unwrap()).unwrap(),
                ),
            };
            (name.clone(), attention)
        };
        let modes = json["modes"].as_object().unwrap().iter().map(mode).collect();
        Self { dir, source, adapter, tensors, rows, modes }
    }

    fn ids(&self, name: &str, rows: usize) -> Vec<Vec<u32>> {
        let flat = &self.tensors[name];
        flat.chunks(flat.len() / rows).map(|r| r.iter().map(|&x| x as u32).collect()).collect()
    }

    fn labels(&self) -> Vec<Vec<i32>> {
        let flat = &self.tensors["labels"];
        flat.chunks(flat.len() / self.rows).map(|r| r.iter().map(|&x| x as i32).collect()).collect()
    }

    /// Both rows in one batch.
    fn batch(&self) -> [Batch; 1] {
        let rows = self.ids("input_ids", self.rows).into_iter().zip(self.labels());
        let examples: Vec<Example> = rows.map(|(ids, labels)| Example { ids, labels }).collect();
        [Batch::new(&examples)]
    }

    fn load(&self, device: &mut dyn Executor, with_adapter: bool) -> Loaded {
        let (adapter, train) = match with_adapter {
            true => (Some(&self.adapter), Train::Adapter(Decay::All)),
            false => (None, Train::All(Decay::All)),
        };
        load(device, &self.source, adapter, train).unwrap()
    }
}

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

fn check_forward_backward(
    device: &mut dyn Executor,
    golden: &Golden,
    bounds: Bounds,
    with_adapter: bool,
    recompute: bool,
) {
    let ids = golden.ids("input_ids", golden.rows);
    let labels = golden.labels();
    for (mode, attention) in &golden.modes {
        let at = format!("{} {mode} adapter {with_adapter}", golden.dir.display());
        let mut loaded = golden.load(device, with_adapter);
        let request = ProbeRequest { ids: &ids, labels: Some(&labels), grads: true, recompute, attention: *attention };
        let found = probe(device, &mut loaded, &request).unwrap();
        let prefix = if with_adapter { format!("lora.{mode}") } else { mode.clone() };
        let mut n_grads = 0;
        for (name, tensor) in &found {
            let Some(want) = golden.tensors.get(&format!("{prefix}.{name}")) else {
                assert!(with_adapter && !name.starts_with("grad"), "{at}: {name} is not in the golden file");
                continue; // transformers' logits and selections are stored for the plain model only
            };
            let want = want.iter().map(|&x| f64::from(x));
            if name.starts_with("kept") {
                let got: Vec<f64> = tensor.to_i64().unwrap().into_iter().map(|x| x as f64).collect();
                assert_eq!(got, want.collect::<Vec<_>>(), "{at}: {name}");
                continue;
            }
            let got = tensor.to_f32().unwrap();
            assert_eq!(got.len(), want.len(), "{at}: size of {name}");
            let errors: Vec<f64> = got.iter().zip(want.clone()).map(|(&g, w)| f64::from(g) - w).collect();
            if name == "logits" {
                let worst = errors.iter().fold(0.0f64, |m, e| m.max(e.abs()));
                assert!(worst < bounds.logits, "{at}: logits differ by {worst:e}");
            } else {
                let error = norm(errors.into_iter()) / norm(want);
                let (bound, is_grad) = if name == "loss" { (bounds.loss, 0) } else { (bounds.grad, 1) };
                n_grads += is_grad;
                assert!(error < bound, "{at}: {name} differs by {error:e}");
            }
        }
        let wanted = golden.tensors.keys().filter(|k| k.starts_with(&format!("{prefix}.grad."))).count();
        assert_eq!(n_grads, wanted, "{at}: number of gradients");
    }
}

fn check_training(device: &mut dyn Executor, golden: &Golden, bounds: Bounds, with_adapter: bool) {
    let batch = golden.batch();
    for (mode, attention) in &golden.modes {
        let mut loaded = golden.load(device, with_adapter);
        let rule = Box::new(AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 });
        let mut stepper = Stepper::new(device, &loaded, rule, StepSettings::default()).unwrap();
        let prefix = if with_adapter { "lora." } else { "" };
        let want = &golden.tensors[&format!("{prefix}{mode}.losses")];
        let bound = if *attention == Attention::Dense { bounds.dense_losses } else { bounds.lrsa_losses };
        for (step, &want) in want.iter().enumerate() {
            let got = stepper.step(device, &mut loaded, &batch, *attention, 1e-3).unwrap().loss;
            let error = (got - f64::from(want)).abs() / f64::from(want);
            let at = format!("{} {prefix}{mode} step {step}", golden.dir.display());
            assert!(error < bound, "{at}: loss {got}, golden {want}, relative {error:e}");
        }
    }
}

/// Lion and SGD on dense attention, as `make_optimizer_losses.py` ran them in PyTorch.
fn check_other_optimizers(device: &mut dyn Executor, bounds: Bounds) {
    let golden = Golden::open("llama-gqa");
    let text = std::fs::read_to_string(golden.dir.join("optimizer-losses.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rule = |name: &str| -> Box<dyn UpdateRule> {
        let number = |key: &str| json[name][key].as_f64().unwrap();
        let weight_decay = number("weight_decay");
        match name {
            "lion" => {
                let betas = [0, 1].map(|i| json[name]["betas"][i].as_f64().unwrap());
                Box::new(Lion { betas: betas.into(), weight_decay })
            }
            _ => Box::new(Sgd { momentum: number("momentum"), weight_decay }),
        }
    };
    for name in ["lion", "sgd"] {
        for (which, with_adapter) in [("full", false), ("lora", true)] {
            let mut loaded = golden.load(device, with_adapter);
            let mut stepper = Stepper::new(device, &loaded, rule(name), StepSettings::default()).unwrap();
            let want = json[name][which].as_array().unwrap();
            assert_eq!(want.len(), 10);
            let lr = json[name]["lr"].as_f64().unwrap();
            for (step, want) in want.iter().map(|w| w.as_f64().unwrap()).enumerate() {
                let got = stepper.step(device, &mut loaded, &golden.batch(), Attention::Dense, lr).unwrap().loss;
                let error = (got - want).abs() / want;
                assert!(
                    error < bounds.dense_losses,
                    "{name} {which} step {step}: {got} for {want}, relative {error:e}"
                );
            }
        }
    }
}

fn check_generation(device: &mut dyn Executor, golden: &Golden) {
    let prompt = golden.ids("prompt_ids", 1).remove(0);
    for (mode, attention) in &golden.modes {
        let mut loaded = load(device, &golden.source, None, Train::Nothing).unwrap();
        let want: Vec<u32> = golden.tensors[&format!("{mode}.generated")].iter().map(|&x| x as u32).collect();
        let capacity = prompt.len() + want.len();
        let mut session =
            Session::new(device, &mut loaded.model, *attention, capacity, 64, Sampling::default(), 0).unwrap();
        session.feed(device, &loaded.model, &prompt).unwrap();
        let mut got = Vec::new();
        while got.len() < want.len() {
            let id = session.draw(device).unwrap();
            got.push(id);
            session.feed(device, &loaded.model, &[id]).unwrap();
            assert_eq!(session.cache.n_entries(), attention.cache_length(session.cache.n_tokens()), "{mode}");
        }
        assert_eq!(got, want, "{} {mode}", golden.dir.display());
    }
}

const CASES: [&str; 4] = ["llama-gqa", "qwen2-bias-tied", "qwen3-qknorm", "llama3-rope"];

fn check_all(device: &mut dyn Executor, bounds: Bounds) {
    for case in CASES {
        let golden = Golden::open(case);
        for with_adapter in [false, true] {
            check_forward_backward(device, &golden, bounds, with_adapter, with_adapter);
            check_training(device, &golden, bounds, with_adapter);
        }
        check_generation(device, &golden);
    }
    check_other_optimizers(device, bounds);
}

#[test]
fn cpu_in_f32() {
    check_all(&mut CpuExecutor::<f32>::new(), F32);
}

#[test]
fn cpu_in_f64() {
    check_all(&mut CpuExecutor::<f64>::new(), F64);
}

#[test]
fn cpu_with_tensors_cut_into_slices_of_64_kib() {
    let golden = Golden::open("llama-gqa");
    let mut device = CpuExecutor::<f32>::with_binding_limit(64 << 10);
    check_forward_backward_short(&mut device, &golden);
}

#[test]
fn device_with_tensors_cut_into_slices_of_64_kib() {
    let options = OpenOptions { max_binding_bytes: Some(64 << 10), ..OpenOptions::default() };
    let Some(mut device) = common::open(&options) else { return };
    check_forward_backward_short(&mut device, &Golden::open("llama-gqa"));
}

/// The first 40 tokens of one row with and without slices: equal logits and gradients.
fn check_forward_backward_short(sliced: &mut dyn Executor, golden: &Golden) {
    let ids = vec![golden.ids("input_ids", golden.rows)[0][..40].to_vec()];
    let labels = vec![ids[0].iter().map(|&x| x as i32).collect()];
    let attention = Attention::Lrsa(Lrsa::new(3, 10, 0.4).unwrap());
    let request = ProbeRequest { ids: &ids, labels: Some(&labels), grads: true, recompute: true, attention };
    let run = |device: &mut dyn Executor| {
        let mut loaded = golden.load(device, false);
        let is_cut = loaded.trainables.iter().any(|t| t.value.pieces().len() > 1);
        (probe(device, &mut loaded, &request).unwrap(), is_cut)
    };
    let (whole, _) = run(&mut CpuExecutor::<f32>::new());
    let (cut, is_cut) = run(sliced);
    assert!(is_cut, "the limit cuts nothing");
    for ((name, a), (_, b)) in whole.iter().zip(&cut) {
        let (Ok(a), Ok(b)) = (a.to_f32(), b.to_f32()) else { continue };
        let error = norm(a.iter().zip(&b).map(|(&x, &y)| f64::from(x - y)));
        assert!(error <= 1e-5 * norm(a.iter().map(|&x| f64::from(x))), "{name} differs by {error:e}");
    }
}

#[test]
fn device_in_f32() {
    let Some(mut device) = common::software_device() else { return };
    check_all(&mut device, F32.times(3.0));
}
