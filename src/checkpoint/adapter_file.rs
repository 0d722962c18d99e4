//! LoRA adapters on disk in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors` in
//! a folder.
//!
//! This file reads and writes host tensors and applies nothing.
//! [`adapter_config`](super::adapter_config) has the configuration.

use super::adapter_config::AdapterConfig;
use super::weight_names::linears;
use crate::atomic_file::{write_file, write_folder};
use crate::error::{Context, Result};
use crate::formats::host_tensor::HostTensor;
use crate::formats::safetensors_file::Checkpoint;
use crate::formats::safetensors_write::write_safetensors;
use crate::model::config::ModelConfig;
use crate::small_file;
use std::collections::BTreeSet;
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// PEFT's prefix of module names: `base_model` is the tuner, `model` the Hugging Face model.
const PREFIX: &str = "base_model.model.";

/// The LoRA matrices A and B of one linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterPair {
    /// Module path, such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// [r, in].
    pub a: HostTensor,
    /// [out, r].
    pub b: HostTensor,
    /// s in y = W x + s·B (A x).
    pub scale: f64,
}

/// A LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    pub config: AdapterConfig,
    /// In the order of [`AdapterConfig::modules`].
    pub pairs: Vec<AdapterPair>,
}

/// PEFT's names of a module's two tensors. Files and gradients use them.
pub fn tensor_names(module: &str) -> (String, String) {
    (format!("{PREFIX}{module}.lora_A.weight"), format!("{PREFIX}{module}.lora_B.weight"))
}

/// Every tensor of an adapter with PEFT's name and its shape: A [r, in] and B [out, r] of each
/// module.
pub fn expected_tensors(config: &AdapterConfig, model: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let linears = linears(model);
    let mut out = Vec::new();
    for module in config.modules(model) {
        let linear = linears.iter().find(|l| module.ends_with(l.path)).expect("modules are made of these paths");
        let ((a, b), r) = (tensor_names(&module), config.rank_of(&module));
        out.push((a, vec![r, linear.n_in]));
        out.push((b, vec![linear.n_out, r]));
    }
    out
}

/// Reads an adapter folder for a model.
///
/// Errors: unsupported settings, missing tensors, wrong shapes, and tensors that do not belong to
/// the model.
pub fn read_adapter(dir: &Path, model: &ModelConfig) -> Result<Adapter> {
    let read = || -> Result<Adapter> {
        let text = small_file::read_text(&dir.join(CONFIG)).with_context(|| format!("reading {CONFIG}"))?;
        let config = AdapterConfig::from_json(&text, model).context(CONFIG)?;
        let file = Checkpoint::open(&dir.join(TENSORS))?;
        let expected = expected_tensors(&config, model);
        check_names(&file, &expected).context(TENSORS)?;
        let mut tensors = expected.iter().map(|(name, shape)| read_tensor(&file, name, shape).context(TENSORS));
        let mut pairs = Vec::new();
        for module in config.modules(model) {
            let (Some(a), Some(b)) = (tensors.next(), tensors.next()) else { break };
            pairs.push(AdapterPair { a: a?, b: b?, scale: config.scale_of(&module), module });
        }
        Ok(Adapter { config, pairs })
    };
    read().with_context(|| format!("adapter {}", dir.display()))
}

fn read_tensor(file: &Checkpoint, name: &str, shape: &[usize]) -> Result<HostTensor> {
    let tensor = file.read(name)?;
    crate::ensure!(tensor.shape == shape, "tensor '{name}': expected shape {shape:?}, found {:?}", tensor.shape);
    crate::ensure!(tensor.dtype.is_real(), "tensor '{name}': expected real numbers, found {}", tensor.dtype);
    Ok(tensor)
}

/// Checks that the file has exactly the expected tensors. An extra tensor would be a part of the
/// adapter that we ignore.
fn check_names(file: &Checkpoint, expected: &[(String, Vec<usize>)]) -> Result<()> {
    let expected: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(name) = expected.iter().find(|name| !file.contains(name)) {
        crate::bail!("tensor '{name}' is missing; {CONFIG} asks for {} tensors", expected.len());
    }
    if let Some(name) = file.names().find(|name| !expected.contains(name)) {
        crate::bail!("tensor '{name}' has no place in this model with the target_modules in {CONFIG}");
    }
    Ok(())
}

/// Writes an adapter folder that PEFT can load. `tensors` have names from [`tensor_names`]; `more`
/// are additional small files.
///
/// A new folder appears atomically. In an existing folder, this replaces the adapter's files and
/// keeps all others.
pub fn write_adapter(
    dir: &Path,
    config: &AdapterConfig,
    tensors: &[(String, HostTensor)],
    more: &[(&str, &str)],
) -> Result<()> {
    let json = config.to_json()?;
    write_folder(dir, |folder| {
        write_safetensors(&folder.join(TENSORS), tensors, &[])?;
        for (name, text) in [(CONFIG, json.as_str())].iter().chain(more) {
            write_file(&folder.join(name), text)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::weights::WeightSource;
    use crate::model::config::testing::small;

    fn config() -> AdapterConfig {
        let text = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["k_proj", "down_proj"],
                       "rank_pattern": {"down_proj": 1}}"#;
        AdapterConfig::from_json(text, &small()).unwrap()
    }

    fn tensors() -> Vec<(String, HostTensor)> {
        let fill = |(name, shape): (String, Vec<usize>)| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
            (name, HostTensor::from_f32(&shape, &values))
        };
        expected_tensors(&config(), &small()).into_iter().map(fill).collect()
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out/adapter");
        write_adapter(&path, &config(), &tensors(), &[("longreach.json", "{}")]).unwrap();
        write_adapter(&path, &config(), &tensors(), &[]).unwrap();
        let adapter = read_adapter(&path, &small()).unwrap();
        assert_eq!(adapter.config, config());
        assert_eq!(adapter.pairs.len(), 4);
        let k = &adapter.pairs[0];
        assert_eq!((k.module.as_str(), k.scale), ("model.layers.0.self_attn.k_proj", 1.5));
        assert_eq!((&k.a, &k.b), (&tensors()[0].1, &tensors()[1].1));
        assert_eq!((k.a.shape.as_slice(), k.b.shape.as_slice()), (&[2, 8][..], &[8, 2][..]));
        assert_eq!((adapter.pairs[1].a.shape.as_slice(), adapter.pairs[1].scale), (&[1, 12][..], 3.0));
        assert!(path.join("longreach.json").is_file());
    }

    #[test]
    fn tensors_that_do_not_fit_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error_of = |tensors: &[(String, HostTensor)]| {
            write_adapter(dir.path(), &config(), tensors, &[]).unwrap();
            read_adapter(dir.path(), &small()).unwrap_err().to_string()
        };
        assert!(error_of(&tensors()[1..]).contains("layers.0.self_attn.k_proj.lora_A.weight' is missing"));
        let mut more = tensors();
        more.push(("base_model.model.lm_head.lora_A.weight".into(), HostTensor::from_f32(&[1], &[0.0])));
        assert!(error_of(&more).contains("lm_head.lora_A.weight' has no place"));
        let mut wrong = tensors();
        wrong[0].1 = HostTensor::from_f32(&[1, 8], &[0.0; 8]);
        assert!(error_of(&wrong).contains("expected shape [2, 8], found [1, 8]"));
        assert!(read_adapter(&dir.path().join("absent"), &small()).unwrap_err().to_string().contains("absent"));
    }

    #[test]
    fn adapters_that_peft_wrote_are_read() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        for case in ["llama-gqa", "llama3-rope", "qwen2-bias-tied", "qwen3-qknorm"] {
            let source = WeightSource::open(&golden.join(case)).unwrap();
            let adapter = read_adapter(&golden.join(case).join("lora"), source.config()).unwrap();
            assert_eq!(adapter.pairs.len(), 7 * source.config().n_layers());
            assert!(adapter.pairs.iter().all(|p| p.scale == 2.0));
        }
    }
}
