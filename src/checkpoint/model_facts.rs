//! Facts about a model that its headers tell: sizes, parameters, types of weights, chat template.

use std::collections::BTreeMap;
use std::path::Path;

use super::families;
use super::hub::parts_of;
use super::model_files::{has_tokenizer, has_vocabulary};
use super::weight_names::expected_names;
use super::weights::WeightSource;
use crate::error::Result;
use crate::formats::dtype::DType;
use crate::model::config::ModelConfig;
use crate::text::chat_template::ChatTemplate;

/// A type counts as one of the model's if it has at least one of so many parameters.
const COUNTS_FROM: u64 = 20;

/// What the headers of a model's files say.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    pub config: ModelConfig,
    pub n_parameters: u64,
    /// Bytes of the weights as they are stored.
    pub weight_bytes: u64,
    /// The types of the weights with their parameters, most frequent first.
    pub types: Vec<(DType, u64)>,
    pub has_tokenizer: bool,
    pub has_chat_template: bool,
}

impl ModelFacts {
    /// The facts about an open model. Fails if its chat template cannot be read.
    pub fn of(source: &WeightSource) -> Result<Self> {
        let config = source.config().clone();
        let (mut n_parameters, mut weight_bytes, mut types) = (0, 0, BTreeMap::new());
        for (name, shape) in expected_names(&config) {
            let Some(dtype) = source.dtype(&name) else { continue };
            let n = shape.iter().product::<usize>() as u64;
            n_parameters += n;
            weight_bytes += dtype.bytes_of(&shape).unwrap_or(0) as u64;
            *types.entry(dtype).or_insert(0) += n;
        }
        let mut types: Vec<(DType, u64)> = types.into_iter().collect();
        types.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        let (has_tokenizer, template) = match (source.gguf_metadata(), source.dir()) {
            (Some(metadata), _) => (has_vocabulary(metadata), ChatTemplate::from_gguf(metadata)?),
            (None, Some(dir)) => (has_tokenizer(dir), ChatTemplate::from_dir(dir)?),
            (None, None) => (true, None), // the bundled model
        };
        let has_chat_template = has_tokenizer && template.is_some();
        Ok(Self { config, n_parameters, weight_bytes, types, has_tokenizer, has_chat_template })
    }

    /// The `model_type` of the family.
    pub fn family(&self) -> &'static str {
        self.config.architecture.model_type()
    }

    /// The family's class in transformers.
    pub fn class(&self) -> &'static str {
        families::of(self.config.architecture).class
    }

    /// The names of the types that hold at least 5 % of the parameters, most frequent first, such as
    /// `Q4_K, Q6_K`.
    pub fn type_names(&self) -> String {
        let counts = |&&(_, n): &&(DType, u64)| n.saturating_mul(COUNTS_FROM) >= self.n_parameters;
        self.types.iter().filter(counts).map(|(dtype, _)| dtype.name()).collect::<Vec<_>>().join(", ")
    }
}

/// Bytes on disk of a model or adapter: the files directly in its folder, or a GGUF file with its
/// other parts. Files that cannot be looked at count as empty.
pub fn disk_bytes(path: &Path) -> u64 {
    let size = |path: &Path| path.metadata().map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
    if let Ok(entries) = path.read_dir() {
        return entries.flatten().map(|entry| size(&entry.path())).sum();
    }
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => parts_of(name).iter().map(|part| size(&path.with_file_name(part))).sum(),
        None => size(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::{Attention, Lrsa};
    use crate::checkpoint::bundled;
    use crate::checkpoint::gguf_weights::testing::gguf_file;
    use crate::formats::host_tensor::HostTensor;
    use crate::model::config::testing::small;

    #[test]
    fn the_bundled_model_has_260_thousand_parameters() {
        let facts = ModelFacts::of(&bundled::stories().unwrap()).unwrap();
        // Embedding, and of each of five layers: two norms, q, k, v, o and the feed-forward part.
        let (v, h, f, kv) = (512, 64, 172, 32);
        let n = v * h + 5 * (2 * h + 2 * h * h + 2 * h * kv + 3 * h * f) + h;
        assert_eq!((facts.n_parameters, facts.family(), facts.class()), (n, "llama", "LlamaForCausalLM"));
        assert_eq!(facts.types.iter().map(|(_, n)| n).sum::<u64>(), n);
        assert!(facts.has_tokenizer && !facts.has_chat_template);
    }

    #[test]
    fn types_are_named_by_their_share() {
        let facts = |types: &[(DType, u64)]| ModelFacts {
            config: small(),
            n_parameters: types.iter().map(|t| t.1).sum(),
            weight_bytes: 0,
            types: types.to_vec(),
            has_tokenizer: true,
            has_chat_template: true,
        };
        assert_eq!(facts(&[(DType::Q4_K, 80), (DType::Q6_K, 19), (DType::F32, 1)]).type_names(), "Q4_K, Q6_K");
        assert_eq!(facts(&[(DType::BF16, 10)]).type_names(), "BF16");
    }

    #[test]
    fn a_gguf_file_without_a_vocabulary_has_no_chat_template() {
        let config = ModelConfig { tied: true, ..small() };
        let tensors: Vec<_> = expected_names(&config)
            .into_iter()
            .map(|(name, shape)| {
                let n = shape.iter().product();
                (name, HostTensor::from_f32(&shape, &vec![0.5; n]))
            })
            .collect();
        let file = gguf_file(&config, &tensors, &[], false);
        let facts = ModelFacts::of(&WeightSource::open(file.path()).unwrap()).unwrap();
        let n: usize = tensors.iter().map(|(_, t)| t.shape.iter().product::<usize>()).sum();
        assert_eq!((facts.n_parameters, facts.weight_bytes), (n as u64, 4 * n as u64));
        assert_eq!((facts.type_names().as_str(), facts.has_tokenizer, facts.has_chat_template), ("F32", false, false));
        assert_eq!(disk_bytes(file.path()), file.path().metadata().unwrap().len());
        assert_eq!(disk_bytes(file.path().parent().unwrap().join("absent").as_path()), 0);
    }

    #[test]
    fn a_cache_takes_keys_and_values_of_every_layer() {
        let facts = ModelFacts::of(&bundled::stories().unwrap()).unwrap();
        // Keys and values of 32 channels in 5 layers, 4 bytes each.
        assert_eq!(facts.config.cache_bytes(Attention::Dense, 100), 100 * 2 * 32 * 5 * 4);
        let lrsa = Lrsa::new(4, 16, 0.25).unwrap();
        let entries = lrsa.cache_length(100) as u64;
        assert_eq!(facts.config.cache_bytes(Attention::Lrsa(lrsa), 100), entries * 2 * 32 * 5 * 4);
    }
}
