//! A model whose layers attend in different ways, with random weights.

use longreach::model::config::{BlockNorms, LayerConfig, ModelConfig};
use longreach::model::rope_config::RopeConfig;

/// Windows shorter and longer than partitions, chunks and tiles; full attention between them, once
/// without rotation; different rotations and factors of the scores; and a window that limits
/// nothing, since it is as long as the longest text.
pub fn config(norms: BlockNorms) -> ModelConfig {
    let full = LayerConfig::full(8);
    let layers = vec![
        LayerConfig { window: Some(6), ..full.clone() },
        LayerConfig { scale: 0.2, rope: None, ..full.clone() },
        LayerConfig { window: Some(50), scale: 0.5, rope: Some(1) },
        full.clone(),
        LayerConfig { window: Some(MAX_POSITIONS), ..full },
    ];
    ModelConfig {
        hidden: 32,
        inner: 48,
        layers,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        vocab: 512,
        max_positions: MAX_POSITIONS,
        ropes: vec![RopeConfig::plain(1e4, 8), RopeConfig::plain(1e3, 8)],
        norms,
        tied: true,
        ..ModelConfig::default()
    }
}

/// The longest text.
pub const MAX_POSITIONS: usize = 256;
/// The windows that limit something.
pub const WINDOWS: [usize; 2] = [6, 50];
/// The layers that LRSA compresses.
pub const COMPRESSED: [usize; 3] = [1, 3, 4];
