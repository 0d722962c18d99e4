//! The golden cases: every executor reproduces the float64 results of transformers and PEFT.
//!
//! Small models of every family, dense and LRSA, with and without an adapter.

mod common;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::adapter_file::{Adapter, read_adapter};
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::formats::safetensors_file::Checkpoint;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, Executor, OpenOptions};
use longreach::kernels::sample::Sampling;
use longreach::model::config::ModelConfig;
use longreach::optim::{AdamW, OptimizerKind, OptimizerSettings};
use longreach::train::{Distill, ProbeRequest, StepSettings, Stepper, Teacher, probe, save};

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

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

impl Golden {
    fn open(name: &str) -> Self {
        Self::with_answers(name, "golden.safetensors")
    }

    fn with_answers(name: &str, answers: &str) -> Self {
        let dir = folder(name);
        let source = WeightSource::open(&dir).unwrap();
        let adapter = read_adapter(&dir.join("lora"), source.config()).unwrap();
        let file = Checkpoint::open(&dir.join(answers)).unwrap();
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

    /// Whether the file has gradients of a run. Those of the whole model may be left out.
    fn has_grads(&self, prefix: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(&format!("{prefix}.grad.")))
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
        let examples: Vec<Example> = rows.map(|(ids, labels)| Example { ids, labels, rejected: None }).collect();
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
        let prefix = if with_adapter { format!("lora.{mode}") } else { mode.clone() };
        let grads = golden.has_grads(&prefix);
        let request = ProbeRequest {
            ids: &ids,
            labels: Some(&labels),
            grads,
            recompute,
            attention: *attention,
            distill: None,
            chunk: None,
        };
        let found = probe(device, &mut loaded, &request).unwrap();
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
    for (mode, attention) in &golden.modes {
        let prefix = if with_adapter { format!("lora.{mode}") } else { mode.clone() };
        check_losses(device, golden, bounds, &prefix, *attention, StepSettings::default());
    }
}

/// Ten steps of AdamW, whose losses are `{prefix}.losses`. Prefixes of a mode alone train every weight.
fn check_losses(
    device: &mut dyn Executor,
    golden: &Golden,
    bounds: Bounds,
    prefix: &str,
    attention: Attention,
    settings: StepSettings,
) {
    let batch = golden.batch();
    let mut loaded = golden.load(device, ["lora.", "distill."].iter().any(|start| prefix.starts_with(start)));
    let rule = Box::new(AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 });
    let mut stepper = Stepper::new(device, &loaded, rule, settings).unwrap();
    let bound = if attention == Attention::Dense { bounds.dense_losses } else { bounds.lrsa_losses };
    for (step, &want) in golden.tensors[&format!("{prefix}.losses")].iter().enumerate() {
        let got = stepper.step(device, &mut loaded, &batch, attention, 1e-3).unwrap().loss;
        let error = (got - f64::from(want)).abs() / f64::from(want);
        let at = format!("{} {prefix} step {step}", golden.dir.display());
        assert!(error < bound, "{at}: loss {got}, golden {want}, relative {error:e}");
    }
}

/// The other optimisers, and LoRA+, on dense attention, as `make_optimizer_losses.py` ran them in PyTorch.
fn check_other_optimizers(device: &mut dyn Executor, name: &str, bounds: Bounds) {
    let golden = Golden::open(name);
    let text = std::fs::read_to_string(golden.dir.join("optimizer-losses.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut check = |name: &str, which: &str, kind: OptimizerKind, lora_plus: Option<f64>| {
        let run = &json[name];
        let number = |key: &str| run[key].as_f64();
        let (betas, weight_decay) = (run["betas"].as_array(), number("weight_decay").unwrap());
        let betas = betas.map(|b| (b[0].as_f64().unwrap(), b[1].as_f64().unwrap()));
        let settings = OptimizerSettings { weight_decay, betas, eps: number("eps"), momentum: number("momentum") };
        let mut loaded = golden.load(device, which == "lora");
        let step_settings = StepSettings { lora_plus, ..StepSettings::default() };
        let mut stepper = Stepper::new(device, &loaded, kind.info().rule(&settings).unwrap(), step_settings).unwrap();
        let want: Vec<f64> = run[which].as_array().unwrap().iter().map(|w| w.as_f64().unwrap()).collect();
        assert_eq!(want.len(), 10);
        for (step, want) in want.into_iter().enumerate() {
            let lr = number("lr").unwrap();
            let got = stepper.step(device, &mut loaded, &golden.batch(), Attention::Dense, lr).unwrap().loss;
            let error = (got - want).abs() / want;
            // Constants are rounded to f32, and so some means get the code beside PyTorch's.
            let bound =
                if kind == OptimizerKind::AdamW8bit { 1e-5f64.max(bounds.dense_losses) } else { bounds.dense_losses };
            assert!(error < bound, "{name} {which} step {step}: {got} for {want}, relative {error:e}");
        }
        loaded.trainables.iter().map(|t| (t.name.clone(), t.value.read(device).unwrap())).collect::<Vec<_>>()
    };
    for &kind in OptimizerKind::ALL.iter().filter(|&&kind| kind != OptimizerKind::AdamW) {
        for which in ["full", "lora"] {
            check(kind.info().name, which, kind, None);
        }
    }
    let trained = check("loraplus", "lora", OptimizerKind::AdamW, json["loraplus"]["ratio"].as_f64());
    let file = Checkpoint::open(&golden.dir.join("loraplus.safetensors")).unwrap();
    assert_eq!(trained.len(), file.names().count());
    for (name, got) in trained {
        let want = file.read(&name).unwrap().to_f32().unwrap();
        let error = norm(got.iter().zip(&want).map(|(g, w)| f64::from(g - w)));
        let error = error / norm(want.iter().map(|&w| f64::from(w)));
        assert!(error < 10.0 * bounds.grad, "{name} after ten steps of LoRA+ differs by {error:e}");
    }
}

/// Greedy texts: `{before}prompt_ids` is continued by `{before}MODE.{answer}`.
fn check_generation(device: &mut dyn Executor, golden: &Golden, before: &str, answer: &str) {
    let prompt = golden.ids(&format!("{before}prompt_ids"), 1).remove(0);
    let config = golden.source.config();
    let some_layer_is_full = (0..config.n_layers()).any(|layer| config.window(layer).is_none());
    for (mode, attention) in &golden.modes {
        let mut loaded = load(device, &golden.source, None, Train::Nothing).unwrap();
        let want: Vec<u32> = golden.tensors[&format!("{before}{mode}.{answer}")].iter().map(|&x| x as u32).collect();
        let capacity = prompt.len() + want.len();
        let mut session =
            Session::new(device, &mut loaded.model, *attention, capacity, 64, Sampling::default(), 0).unwrap();
        session.feed(device, &loaded.model, &prompt).unwrap();
        let mut got = Vec::new();
        while got.len() < want.len() {
            let id = session.draw(device).unwrap();
            got.push(id);
            session.feed(device, &loaded.model, &[id]).unwrap();
            let n = attention.cache_length(session.cache.n_tokens());
            assert!(!some_layer_is_full || session.cache.n_entries() == n, "{mode}");
        }
        assert_eq!(got, want, "{} {before}{mode}", golden.dir.display());
    }
}

/// One case on one executor.
fn check_case(device: &mut dyn Executor, name: &str, bounds: Bounds) {
    let golden = Golden::open(name);
    for with_adapter in [false, true] {
        check_forward_backward(device, &golden, bounds, with_adapter, with_adapter);
        check_training(device, &golden, bounds, with_adapter);
    }
    // With dynamic RoPE, keys of a cache keep the rotation with which they entered.
    let cached = format!("{}.generated_cached", golden.modes[0].0);
    let answer = if golden.tensors.contains_key(&cached) { "generated_cached" } else { "generated" };
    check_generation(device, &golden, "", answer);
}

fn check_with_other_optimizers(device: &mut dyn Executor, name: &str, bounds: Bounds) {
    check_case(device, name, bounds);
    check_other_optimizers(device, name, bounds);
}

/// Distillation from the dense model: the loss and its parts, the gradients of the adapter, at once and
/// streamed, with and without recomputation, and ten losses.
fn check_distillation(device: &mut dyn Executor, golden: &Golden, bounds: Bounds) {
    let (ids, labels) = (golden.ids("input_ids", golden.rows), golden.labels());
    let mut n_checked = 0;
    for (teacher, called) in [(Teacher::Base, "base"), (Teacher::Oneself, "self")] {
        for (mode, attention) in &golden.modes {
            let prefix = format!("distill.{called}.{mode}");
            if !golden.has_grads(&prefix) {
                continue; // a dense student of itself
            }
            let distill = Some(Distill { weight: 0.5, teacher });
            let run = |device: &mut dyn Executor, recompute: bool| {
                let mut loaded = golden.load(device, true);
                let (labels, attention) = (Some(labels.as_slice()), *attention);
                let request =
                    ProbeRequest { ids: &ids, labels, grads: true, recompute, attention, distill, chunk: None };
                probe(device, &mut loaded, &request).unwrap()
            };
            let found = run(device, false);
            for ((name, a), (_, b)) in found.iter().zip(&run(device, true)) {
                assert!(a == b, "{prefix}.{name} with recomputation");
            }
            let found: HashMap<_, _> = found.into_iter().collect();
            for (name, want) in &golden.tensors {
                let Some(name) = name.strip_prefix(&format!("{prefix}.")).filter(|&name| name != "losses") else {
                    continue;
                };
                let got = found[name].to_f32().unwrap();
                let error = norm(got.iter().zip(want).map(|(&g, &w)| f64::from(g) - f64::from(w)));
                let error = error / norm(want.iter().map(|&w| f64::from(w)));
                let bound = if name.starts_with("grad") { bounds.grad } else { bounds.loss };
                assert!(error < bound, "{prefix}.{name} differs by {error:e}");
                n_checked += 1;
            }
            let settings = StepSettings { distill, ..StepSettings::default() };
            check_losses(device, golden, bounds, &prefix, *attention, settings);
        }
    }
    assert!(n_checked > 2 * 5 * 3, "{n_checked} tensors");
}

fn check_distilled(device: &mut dyn Executor, name: &str, bounds: Bounds) {
    check_distillation(device, &Golden::open(name), bounds);
}

fn check_distilled_beside(device: &mut dyn Executor, name: &str, bounds: Bounds) {
    check_distillation(device, &Golden::with_answers(name, "golden-distill.safetensors"), bounds);
}

/// A case with LongRoPE: also a text that is shorter than the original length, and one that passes
/// it on its way.
fn check_longrope(device: &mut dyn Executor, name: &str, bounds: Bounds) {
    check_case(device, name, bounds);
    let golden = Golden::with_answers(name, "golden-short.safetensors");
    for with_adapter in [false, true] {
        check_forward_backward(device, &golden, bounds, with_adapter, with_adapter);
        check_training(device, &golden, bounds, with_adapter);
    }
    check_generation(device, &golden, "", "generated");
    check_generation(device, &golden, "cross.", "generated");
}

/// Declares the tests of a function of device, case and bounds, on every executor.
macro_rules! on_every_executor {
    ($($module:ident: $check:ident($case:literal)),* $(,)?) => {
        $(mod $module {
            use super::*;

            #[test]
            fn cpu_in_f32() {
                $check(&mut CpuExecutor::<f32>::new(), $case, F32);
            }

            #[test]
            fn cpu_in_f64() {
                $check(&mut CpuExecutor::<f64>::new(), $case, F64);
            }

            #[test]
            fn device_in_f32() {
                let Some(mut device) = common::software_device() else { return };
                $check(&mut device, $case, F32.times(3.0));
            }
        })*

        /// The folders of the cases.
        const CASES: &[&str] = &[$($case),*];
    };
}

on_every_executor! {
    llama: check_with_other_optimizers("llama-gqa"),
    llama_3_rope: check_case("llama3-rope"),
    mistral_window: check_case("mistral-window"),
    qwen2: check_case("qwen2-bias-tied"),
    qwen2_yarn: check_case("qwen2-yarn"),
    qwen3: check_case("qwen3-qknorm"),
    smollm3: check_case("smollm3"),
    granite: check_case("granite"),
    gemma3: check_case("gemma3"),
    gemma3_linear: check_case("gemma3-linear"),
    olmo2: check_case("olmo2"),
    olmo3: check_case("olmo3"),
    phi4_mini: check_longrope("phi4-mini"),
    llama_dynamic: check_case("llama-dynamic"),
    ministral3: check_case("ministral3"),
    llama_distilled: check_distilled("llama-gqa-distill"),
    qwen3_distilled: check_distilled_beside("qwen3-qknorm"),
}

/// Both spellings of a configuration, transformers 4's and 5's, mean the same model.
#[test]
fn configs_of_transformers_5_mean_the_same() {
    let mut n_compared = 0;
    for case in CASES {
        let read = |name: &str| {
            let text = std::fs::read_to_string(folder(case).join(name)).ok()?;
            Some(ModelConfig { hf_json: None, ..ModelConfig::from_hf_json(&text).unwrap() })
        };
        let Some(new) = read("config.v5.json") else { continue };
        assert_eq!(Some(new), read("config.json"), "{case}");
        n_compared += 1;
    }
    assert!(n_compared >= 9);
}

/// A fully trained model is saved under the names and with the conventions of its family.
#[test]
fn saved_models_read_back_the_same() {
    for case in CASES {
        let mut device = CpuExecutor::<f32>::new();
        let files = ModelFiles::open(folder(case).to_str().unwrap(), None).unwrap();
        let loaded = load(&mut device, &files.source, None, Train::All(Decay::All)).unwrap();
        for t in &loaded.trainables {
            let values: Vec<f32> = t.value.read(&mut device).unwrap().iter().map(|x| x + 0.0625).collect();
            t.value.write(&mut device, &values).unwrap();
        }
        let out = tempfile::tempdir().unwrap();
        save(&mut device, out.path(), &files, &loaded, None, Attention::Dense).unwrap();
        let text = |dir: &Path| std::fs::read_to_string(dir.join("config.json")).unwrap();
        assert_eq!(text(out.path()), text(&folder(case)), "{case}: word for word");
        let names = |dir: &Path| {
            let file = Checkpoint::open(&dir.join("model.safetensors")).unwrap();
            let names: BTreeSet<String> = file.names().map(str::to_owned).collect();
            let norm = file.read("model.norm.weight").unwrap().to_f32().unwrap();
            (names, norm)
        };
        let ((old_names, old_norm), (new_names, new_norm)) = (names(&folder(case)), names(out.path()));
        assert_eq!(old_names, new_names, "{case}");
        assert!(old_norm.iter().zip(&new_norm).all(|(old, new)| (old + 0.0625 - new).abs() < 1e-6), "{case}");
        let source = WeightSource::open(out.path()).unwrap();
        let again = load(&mut device, &source, None, Train::All(Decay::All)).unwrap();
        for (a, b) in loaded.trainables.iter().zip(&again.trainables) {
            let (a, b) = (a.value.read(&mut device).unwrap(), b.value.read(&mut device).unwrap());
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-7 * a.abs().max(1.0)), "{case}");
        }
    }
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
    let request = ProbeRequest {
        ids: &ids,
        labels: Some(&labels),
        grads: true,
        recompute: true,
        attention,
        distill: None,
        chunk: None,
    };
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
