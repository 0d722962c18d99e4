//! Adapters on disk in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors` in a
//! folder.
//!
//! This file reads and writes host tensors and applies nothing.
//! [`adapter_config`](super::adapter_config) has the configuration.

use super::adapter_config::AdapterConfig;
use super::weight_names::expected_names;
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
    /// DoRA's magnitudes `[out]`. A new adapter has none: they begin as the norms of the rows of W.
    pub magnitude: Option<HostTensor>,
    /// s in W + s·B A.
    pub scale: f64,
}

/// A LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    pub config: AdapterConfig,
    /// In the order of [`AdapterConfig::modules`].
    pub pairs: Vec<AdapterPair>,
    /// The weights that replace those of the model, under the model's names and as Hugging Face
    /// files hold them. Those of a new adapter begin as the model's.
    pub saved: Vec<(String, HostTensor)>,
}

impl Adapter {
    /// The weight that replaces a weight of the model.
    pub fn saved(&self, name: &str) -> Option<&HostTensor> {
        self.saved.iter().find(|(saved, _)| saved == name).map(|(_, tensor)| tensor)
    }
}

/// PEFT's names of a module's matrices A and B. Files and gradients use them.
pub fn tensor_names(module: &str) -> (String, String) {
    (format!("{PREFIX}{module}.lora_A.weight"), format!("{PREFIX}{module}.lora_B.weight"))
}

/// PEFT's name of a module's DoRA magnitudes.
pub fn magnitude_name(module: &str) -> String {
    format!("{PREFIX}{module}{MAGNITUDE}")
}

/// The end of [`magnitude_name`].
pub const MAGNITUDE: &str = ".lora_magnitude_vector";

/// Every tensor of an adapter with PEFT's name and its shape: A [r, in] and B [out, r] of each
/// module, with DoRA its magnitudes `[out]`, and the weights that are saved whole.
pub fn expected_tensors(config: &AdapterConfig, model: &ModelConfig) -> Result<Vec<(String, Vec<usize>)>> {
    let mut out = Vec::new();
    for module in config.modules(model)? {
        let (a, b) = tensor_names(&module.path);
        out.push((a, vec![module.rank, module.n_in]));
        out.push((b, vec![module.n_out, module.rank]));
        if config.use_dora {
            out.push((magnitude_name(&module.path), vec![module.n_out]));
        }
    }
    out.extend(config.targets.saved_weights(model).into_iter().map(|w| (format!("{PREFIX}{}", w.name), w.shape)));
    Ok(out)
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
        let expected = expected_tensors(&config, model)?;
        check_names(&file, &expected, &config, model).context(TENSORS)?;
        let read = |name: &str, shape: &[usize]| read_tensor(&file, name, shape).context(TENSORS);
        let mut pairs = Vec::new();
        for module in config.modules(model)? {
            let (a, b) = tensor_names(&module.path);
            let magnitude = || read(&magnitude_name(&module.path), &[module.n_out]);
            pairs.push(AdapterPair {
                a: read(&a, &[module.rank, module.n_in])?,
                b: read(&b, &[module.n_out, module.rank])?,
                magnitude: config.use_dora.then(magnitude).transpose()?,
                scale: module.scale,
                module: module.path,
            });
        }
        let mut saved = Vec::new();
        for weight in config.targets.saved_weights(model) {
            let tensor = read(&format!("{PREFIX}{}", weight.name), &weight.shape)?;
            saved.push((weight.name, tensor));
        }
        Ok(Adapter { config, pairs, saved })
    };
    read().with_context(|| format!("adapter {}", dir.display()))
}

/// The name of a tensor in the file. Early versions of PEFT kept the part `modules_to_save` and the
/// adapter's name in the names of saved modules, and later ones `weight` in that of magnitudes.
fn stored_name(file: &Checkpoint, name: &str) -> Option<String> {
    let mut names = vec![name.to_string()];
    if name.ends_with(MAGNITUDE) {
        names.push(format!("{name}.weight"));
    } else if let Some((module, kind)) = name.rsplit_once('.') {
        names.push(format!("{module}.modules_to_save.{kind}"));
        names.push(format!("{module}.modules_to_save.default.{kind}"));
    }
    names.into_iter().find(|name| file.contains(name))
}

fn read_tensor(file: &Checkpoint, name: &str, shape: &[usize]) -> Result<HostTensor> {
    let tensor = file.read(stored_name(file, name).as_deref().unwrap_or(name))?;
    crate::ensure!(tensor.shape == shape, "tensor '{name}': expected shape {shape:?}, found {:?}", tensor.shape);
    crate::ensure!(tensor.dtype.is_real(), "tensor '{name}': expected real numbers, found {}", tensor.dtype);
    crate::ensure!(
        tensor.to_f32()?.iter().all(|v| v.is_finite()),
        "tensor '{name}' holds NaN or infinity: the run that made this adapter diverged; train it again"
    );
    Ok(tensor)
}

/// Checks that the file has exactly the expected tensors. An extra tensor would be a part of the
/// adapter that we ignore.
fn check_names(
    file: &Checkpoint,
    expected: &[(String, Vec<usize>)],
    config: &AdapterConfig,
    model: &ModelConfig,
) -> Result<()> {
    let mut known = BTreeSet::new();
    for (name, _) in expected {
        match stored_name(file, name) {
            Some(stored) => known.insert(stored),
            None => crate::bail!("tensor '{name}' is missing; {CONFIG} asks for {} tensors", expected.len()),
        };
    }
    if config.targets.keeps_tie(model) {
        known.insert(format!("{PREFIX}{HEAD}"));
    }
    let Some(name) = file.names().find(|name| !known.contains(*name)) else { return Ok(()) };
    let advice = match name.strip_prefix(PREFIX) {
        Some(weight) if expected_names(model).iter().any(|(known, _)| known == weight) => {
            "; it replaces a weight of the model, which needs its module in modules_to_save"
        }
        _ => "",
    };
    crate::bail!("tensor '{name}' has no place in this model with the target_modules in {CONFIG}{advice}");
}

/// Names of weights that one tensor may hold.
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Writes an adapter folder that PEFT can load. `tensors` have PEFT's names, or the model's if they
/// replace a weight; `more` are additional small files.
///
/// A new folder appears atomically. In an existing folder, this replaces the adapter's files and
/// keeps all others.
pub fn write_adapter(
    dir: &Path,
    config: &AdapterConfig,
    mut tensors: Vec<(String, HostTensor)>,
    more: &[(&str, &str)],
) -> Result<()> {
    let json = config.to_json()?;
    let with_prefix = |name: &str| if name.starts_with(PREFIX) { name.to_string() } else { format!("{PREFIX}{name}") };
    tensors.iter_mut().for_each(|(name, _)| *name = with_prefix(name));
    // PEFT reads a kept tie from both of its names.
    if config.targets.ensure_weight_tying
        && let Some((_, embedding)) = tensors.iter().find(|(name, _)| name == &with_prefix(EMBEDDING))
    {
        let head = (with_prefix(HEAD), embedding.clone());
        tensors.push(head);
    }
    write_folder(dir, |folder| {
        write_safetensors(&folder.join(TENSORS), &tensors, &[])?;
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

    fn tensors_of(config: &AdapterConfig) -> Vec<(String, HostTensor)> {
        let fill = |(name, shape): (String, Vec<usize>)| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
            (name, HostTensor::from_f32(&shape, &values))
        };
        expected_tensors(config, &small()).unwrap().into_iter().map(fill).collect()
    }

    fn tensors() -> Vec<(String, HostTensor)> {
        tensors_of(&config())
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out/adapter");
        write_adapter(&path, &config(), tensors(), &[("longreach.json", "{}")]).unwrap();
        write_adapter(&path, &config(), tensors(), &[]).unwrap();
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
            write_adapter(dir.path(), &config(), tensors.to_vec(), &[]).unwrap();
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
    fn magnitudes_and_saved_weights_read_back_under_old_names_too() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["k_proj"], "use_dora": true,
                       "modules_to_save": ["lm_head"]}"#;
        let config = AdapterConfig::from_json(text, &small()).unwrap();
        let mut tensors = tensors_of(&config);
        write_adapter(dir.path(), &config, tensors.clone(), &[]).unwrap();
        let adapter = read_adapter(dir.path(), &small()).unwrap();
        assert_eq!(adapter.pairs[0].magnitude.as_ref().unwrap().shape, [8]);
        assert_eq!(adapter.saved(HEAD).unwrap().shape, [10, 8]);
        for (name, _) in &mut tensors {
            *name = name.replace("lm_head.", "lm_head.modules_to_save.default.");
            *name = name.replace("magnitude_vector", "magnitude_vector.weight");
        }
        write_adapter(dir.path(), &config, tensors.clone(), &[]).unwrap();
        assert_eq!(read_adapter(dir.path(), &small()).unwrap(), adapter);
    }

    #[test]
    fn a_kept_tie_is_written_under_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelConfig { tied: true, ..small() };
        let text = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["k_proj"], "modules_to_save": ["embed_tokens"],
                       "ensure_weight_tying": true}"#;
        let config = AdapterConfig::from_json(text, &model).unwrap();
        let mut tensors = tensors_of(&config);
        tensors.retain(|(name, _)| !name.contains("lm_head"));
        write_adapter(dir.path(), &config, tensors.clone(), &[]).unwrap();
        let file = Checkpoint::open(&dir.path().join(TENSORS)).unwrap();
        assert!(file.contains("base_model.model.lm_head.weight"));
        let saved = read_adapter(dir.path(), &model).unwrap().saved;
        assert_eq!(saved.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [EMBEDDING]);
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
