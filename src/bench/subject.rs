//! The benchmarked model: the bundled one, one from files, or random weights of a given size.

use crate::checkpoint::bundled;
use crate::checkpoint::model_files::open_weights;
use crate::checkpoint::weights::WeightSource;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::error::Result;
use crate::model::config::{LayerConfig, ModelConfig};
use crate::model::rope_config::RopeConfig;

/// Sizes of models with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RandomModel {
    /// 4 layers of 64 channels.
    Tiny,
    /// 8 million weights: 8 layers of 256 channels.
    Small,
    /// The sizes of SmolLM2-135M: 30 layers of 576 channels.
    SmolLm2,
}

impl RandomModel {
    /// Its configuration.
    pub fn config(self) -> ModelConfig {
        let [hidden, inner, n_layers, n_heads, n_kv_heads, head_dim, vocab] = match self {
            RandomModel::Tiny => [64, 192, 4, 4, 2, 16, 512],
            RandomModel::Small => [256, 688, 8, 8, 8, 32, 4096],
            RandomModel::SmolLm2 => [576, 1536, 30, 9, 3, 64, 49_152],
        };
        ModelConfig {
            hidden,
            inner,
            layers: vec![LayerConfig::full(head_dim); n_layers],
            n_heads,
            n_kv_heads,
            head_dim,
            vocab,
            max_positions: 8192,
            ropes: vec![RopeConfig::plain(1e4, head_dim)],
            tied: self == RandomModel::SmolLm2,
            ..ModelConfig::default()
        }
    }

    fn name(self) -> &'static str {
        match self {
            RandomModel::Tiny => "tiny, random weights",
            RandomModel::Small => "8m, random weights",
            RandomModel::SmolLm2 => "sizes of SmolLM2-135M, random weights",
        }
    }
}

/// A model to benchmark.
pub struct Subject {
    /// Its name in reports.
    pub name: String,
    /// Its weights.
    pub source: WeightSource,
}

impl Subject {
    /// The bundled stories260K.
    pub fn bundled() -> Result<Self> {
        Ok(Self { name: bundled::NAME.to_string(), source: bundled::stories()? })
    }

    /// A model from a folder, GGUF file or hub id, or the bundled one by its name.
    pub fn open(model: &str) -> Result<Self> {
        Ok(Self { name: model.to_string(), source: open_weights(model)? })
    }

    /// A model with random weights.
    pub fn random(model: RandomModel) -> Result<Self> {
        let source = WeightSource::random(model.config(), 0)?;
        Ok(Self { name: model.name().to_string(), source })
    }

    /// `n` reproducible, unpatterned ids of its vocabulary.
    pub(super) fn ids(&self, n: usize) -> Vec<u32> {
        let vocab = self.source.config().vocab;
        (0..n).map(|i| ((i * 7919 + i * i * 31) % vocab) as u32).collect()
    }

    /// One sequence of `n` tokens, all with labels.
    pub(super) fn batch(&self, n: usize) -> Batch {
        let ids = self.ids(n);
        Batch::new(&[Example { labels: ids.iter().map(|&id| id as i32).collect(), ids, rejected: None }])
    }
}
