//! Adapters of every kind: PEFT's files give PEFT's results, and what a run writes reads back.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::adapter_file::{Adapter, read_adapter};
use longreach::checkpoint::adapter_targets::{LayerList, ModuleSet};
use longreach::checkpoint::load::{Decay, Loaded, Train, load};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::checkpoint::record::AttentionRecord;
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::formats::host_tensor::HostTensor;
use longreach::formats::safetensors_file::Checkpoint;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::kernels::sample::Sampling;
use longreach::optim::AdamW;
use longreach::tensor::Group;
use longreach::train::{ProbeRequest, StepSettings, Stepper, TrainJob, probe, run};

/// The folders of `make_adapter_traces.py`.
const ADAPTERS: [&str; 7] = ["dora", "dora-patterns", "rslora", "some-layers", "saved-head", "saved-tied", "untied"];

struct Trace {
    name: &'static str,
    source: WeightSource,
    adapter: Adapter,
    expected: HashMap<String, HostTensor>,
    ids: Vec<Vec<u32>>,
    labels: Vec<Vec<i32>>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn tensors(path: &Path) -> HashMap<String, HostTensor> {
    let file = Checkpoint::open(path).unwrap();
    file.names().map(|name| (name.to_string(), file.read(name).unwrap())).collect()
}

fn rows<T: TryFrom<i64, Error: std::fmt::Debug>>(tensor: &HostTensor) -> Vec<Vec<T>> {
    let row = |row: &[i64]| row.iter().map(|&x| T::try_from(x).unwrap()).collect();
    tensor.to_i64().unwrap().chunks(tensor.shape[1]).map(row).collect()
}

impl Trace {
    fn open(name: &'static str) -> Self {
        let dir = golden().join("adapters").join(name);
        let base: String = serde_json::from_str(&std::fs::read_to_string(dir.join("base.json")).unwrap()).unwrap();
        let source = WeightSource::open(&golden().join(&base)).unwrap();
        let batch = tensors(&golden().join(&base).join("golden.safetensors"));
        Self {
            name,
            adapter: read_adapter(&dir, source.config()).unwrap(),
            source,
            expected: tensors(&dir.join("expected.safetensors")),
            ids: rows(&batch["input_ids"]),
            labels: rows(&batch["labels"]),
        }
    }

    fn load(&self, device: &mut dyn Executor, train: Train) -> Loaded {
        load(device, &self.source, Some(&self.adapter), train).unwrap()
    }

    /// Logits of the first tokens of the first row.
    fn logits(&self, device: &mut dyn Executor, loaded: &mut Loaded) -> Vec<f32> {
        let n_tokens = self.expected["logits"].shape[0];
        logits(device, loaded, &self.ids[0][..n_tokens])
    }
}

fn logits(device: &mut dyn Executor, loaded: &mut Loaded, ids: &[u32]) -> Vec<f32> {
    let request = ProbeRequest {
        ids: &[ids.to_vec()],
        labels: None,
        grads: false,
        recompute: false,
        attention: Attention::Dense,
        distill: None,
        chunk: None,
    };
    probe(device, loaded, &request).unwrap().remove(0).1.to_f32().unwrap()
}

fn difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// Bounds of logits, gradients and losses.
fn check(device: &mut dyn Executor, [logit, gradient, loss]: [f64; 3]) {
    for trace in ADAPTERS.map(Trace::open) {
        let at = trace.name;
        let want = trace.expected["logits"].to_f32().unwrap();
        let mut loaded = trace.load(device, Train::Nothing);
        let error = difference(&trace.logits(device, &mut loaded), &want);
        assert!(error < logit, "{at}: logits differ by {error:e}");

        let mut loaded = trace.load(device, Train::Adapter(Decay::All));
        let error = difference(&trace.logits(device, &mut loaded), &want);
        assert!(error < logit, "{at} in training: logits differ by {error:e}");
        for recompute in [false, true] {
            let request = ProbeRequest {
                ids: &trace.ids,
                labels: Some(&trace.labels),
                grads: true,
                recompute,
                attention: Attention::Dense,
                distill: None,
                chunk: None,
            };
            let found = probe(device, &mut loaded, &request).unwrap();
            let mut n_grads = 0;
            for (name, tensor) in found.iter().filter(|(name, _)| name.starts_with("grad.")) {
                let want = &trace.expected[name];
                assert_eq!(tensor.shape, want.shape, "{at}: {name}");
                let (got, want) = (tensor.to_f32().unwrap(), want.to_f32().unwrap());
                let error = norm(got.iter().zip(&want).map(|(a, b)| a - b)) / norm(want.iter().copied());
                assert!(error < gradient, "{at}: {name} differs by {error:e}");
                n_grads += 1;
            }
            assert_eq!(n_grads, trace.expected.keys().filter(|k| k.starts_with("grad.")).count(), "{at}");
        }
        let examples = trace.ids.iter().zip(&trace.labels);
        let examples: Vec<Example> = examples
            .map(|(ids, labels)| Example { ids: ids.clone(), labels: labels.clone(), rejected: None })
            .collect();
        let rule = Box::new(AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 });
        let mut stepper = Stepper::new(device, &loaded, rule, StepSettings::default()).unwrap();
        for (step, want) in trace.expected["losses"].to_f32().unwrap().into_iter().enumerate() {
            let batch = [Batch::new(&examples)];
            let got = stepper.step(device, &mut loaded, &batch, Attention::Dense, 1e-3).unwrap().loss;
            let error = (got / f64::from(want) - 1.0).abs();
            assert!(error < loss, "{at} step {step}: loss {got}, PEFT's {want}, relative {error:e}");
        }
    }
}

#[test]
fn peft_on_the_cpu() {
    check(&mut CpuExecutor::<f32>::new(), [3e-5, 1e-5, 1e-5]);
}

#[test]
fn peft_in_f64() {
    check(&mut CpuExecutor::<f64>::new(), [1e-6, 1e-6, 1e-6]);
}

#[test]
fn peft_on_a_device() {
    let Some(mut device) = common::software_device() else { return };
    check(&mut device, [9e-5, 3e-5, 3e-5]);
}

/// PEFT's create_loraplus_optimizer: the larger rate is for names with `lora_B` and for vectors.
#[test]
fn lora_plus_groups_parameters_as_peft_does() {
    let mut device = CpuExecutor::<f32>::new();
    for (trace, has_vectors) in [("dora", true), ("saved-head", true), ("rslora", false)] {
        let loaded = Trace::open(trace).load(&mut device, Train::Adapter(Decay::All));
        let (arena, mut n_vectors) = (loaded.arena.as_ref().unwrap(), 0);
        for t in &loaded.trainables {
            let is_vector = t.name.contains("magnitude") || t.name.contains("norm");
            n_vectors += usize::from(is_vector);
            let group = arena.slices[arena.slice_of(&t.value.pieces()[0])].group;
            assert_eq!(group == Group::LoraB, is_vector || t.name.contains("lora_B"), "{}", t.name);
        }
        assert_eq!(n_vectors > 0, has_vectors, "{trace}");
    }
}

#[test]
fn decoding_agrees_with_the_whole_text() {
    let mut device = CpuExecutor::<f32>::new();
    for trace in ["dora", "dora-patterns", "untied"].map(Trace::open) {
        let mut loaded = trace.load(&mut device, Train::Nothing);
        let mut ids = trace.ids[0][..9].to_vec();
        let attention = Attention::Lrsa(Lrsa::new(16, 64, 0.25).unwrap());
        let mut session =
            Session::new(&mut device, &mut loaded.model, attention, 64, 4, Sampling::default(), 0).unwrap();
        session.feed(&mut device, &loaded.model, &ids).unwrap();
        for _ in 0..6 {
            let drawn = session.draw(&mut device).unwrap();
            let all = logits(&mut device, &mut loaded, &ids);
            let last = &all[all.len() - loaded.model.config.vocab..];
            let best = last.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(drawn as usize, best, "{}", trace.name);
            session.feed(&mut device, &loaded.model, &[drawn]).unwrap();
            ids.push(drawn);
        }
    }
}

/// Magnitudes of a new adapter are the norms of the weight's rows, whatever its format.
#[test]
fn a_new_dora_adapter_starts_as_the_model() {
    let mut device = CpuExecutor::<f32>::new();
    let source = WeightSource::open(&golden().join("qwen2-bias-tied")).unwrap();
    let mut base = load(&mut device, &source, None, Train::Nothing).unwrap();
    let ids: Vec<u32> = (0..20).map(|i| i * 7 % 200).collect();
    let want = logits(&mut device, &mut base, &ids);
    let job = TrainJob { dora: true, rank: Some(3), ..TrainJob::default() };
    let adapter = Adapter::fresh(job.new_adapter(source.config()).unwrap(), source.config(), 0).unwrap();
    let mut loaded = load(&mut device, &source, Some(&adapter), Train::Adapter(Decay::All)).unwrap();
    assert!(loaded.trainables.iter().any(|t| t.name.ends_with("lora_magnitude_vector")));
    assert!(difference(&logits(&mut device, &mut loaded, &ids), &want) < 1e-5);
}

/// A job on a golden model with all that a new adapter can have, its folder, and a second run that
/// continues it.
#[test]
fn what_a_run_writes_reads_back_and_continues() {
    let mut device = CpuExecutor::<f32>::new();
    for (model, to_save) in [("llama-gqa", "lm_head"), ("qwen2-bias-tied", "embed_tokens")] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("train.jsonl"), r#"{"input_ids": [20, 31, 42, 53, 64, 75, 86, 97, 18, 29]}"#).unwrap();
        let first = TrainJob {
            model: golden().join(model).display().to_string(),
            data,
            out: dir.path().join("first"),
            steps: Some(3),
            lr: Some(1e-2),
            rank: Some(2),
            dropout: Some(0.2),
            targets: ModuleSet::parse("q_proj, down_proj").ok(),
            layers: Some(LayerList(vec![1])),
            modules_to_save: vec![to_save.into()],
            rslora: true,
            dora: true,
            attention: Some(AttentionRecord::Dense),
            ..TrainJob::default()
        };
        let summary = run(&first, &mut device, &mut ()).unwrap();
        let files = ModelFiles::open(&first.model, Some(&first.out)).unwrap();
        let adapter = files.adapter.as_ref().unwrap();
        assert_eq!(adapter.config.modules(files.config()).unwrap().len(), 2);
        assert!(adapter.config.use_dora && adapter.config.use_rslora && adapter.saved.len() == 1);
        let mut loaded = load(&mut device, &files.source, Some(adapter), Train::Nothing).unwrap();
        let trained = logits(&mut device, &mut loaded, &[20, 31, 42, 53]);
        let mut base = load(&mut device, &files.source, None, Train::Nothing).unwrap();
        assert!(difference(&trained, &logits(&mut device, &mut base, &[20, 31, 42, 53])) > 1e-2);

        let second = TrainJob {
            adapter: Some(first.out.clone()),
            out: dir.path().join("second"),
            rank: None,
            targets: None,
            layers: None,
            modules_to_save: vec![],
            rslora: false,
            dora: false,
            ..first.clone()
        };
        let continued = run(&second, &mut device, &mut ()).unwrap();
        assert!(continued.loss < summary.loss, "{continued:?} after {summary:?}");
        let config = |out: &Path| std::fs::read_to_string(out.join("adapter_config.json")).unwrap();
        assert_eq!(config(&first.out), config(&second.out));
    }
}
