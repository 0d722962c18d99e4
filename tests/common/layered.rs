//! A model whose layers attend in different ways, with random weights.

use longreach::kernels::activation::Activation;
use longreach::model::config::{BlockNorms, LayerConfig, ModelConfig, QkNorm};
use longreach::model::rope_config::{QueryScale, RopeConfig, RopeScaling};

/// Windows shorter and longer than partitions, chunks and tiles; full attention between them, once
/// without rotation; different rotations and factors of the scores; and a window that limits
/// nothing, since it is as long as the longest text.
///
/// Each order of norms comes with other switches, so that all three together use every one.
pub fn config(norms: BlockNorms) -> ModelConfig {
    let plain = layers(norms);
    let partial = |theta| RopeConfig { rotary_dim: 6, ..RopeConfig::plain(theta, 8) };
    let rope = |scaling| RopeConfig { scaling, ..RopeConfig::plain(1e4, 8) };
    match norms {
        BlockNorms::Before => ModelConfig {
            fused: true,
            embed_scale: 1.5,
            residual_scale: 0.6,
            logit_scale: 0.8,
            ropes: vec![partial(1e4), partial(1e3)],
            ..plain
        },
        BlockNorms::BeforeAndAfter => ModelConfig {
            activation: Activation::GeGluTanh,
            qk_norm: QkNorm::PerHead,
            embed_scale: 32f64.sqrt(),
            residual_scale: 0.8,
            logit_softcap: Some(3.0),
            ropes: vec![rope(YARN), RopeConfig::plain(1e3, 8)],
            ..plain
        },
        BlockNorms::After => ModelConfig {
            qk_norm: QkNorm::FullWidth,
            logit_scale: 1.25,
            logit_softcap: Some(5.0),
            ropes: vec![RopeConfig { query_scale: Some(QUERY_SCALE), ..rope(YARN) }, RopeConfig::plain(1e3, 8)],
            ..plain
        },
    }
}

const YARN: RopeScaling = RopeScaling::Yarn {
    factor: 4.0,
    original_max_positions: 64,
    beta_fast: 32.0,
    beta_slow: 1.0,
    truncate: true,
    attention_factor: 1.2,
};

const QUERY_SCALE: QueryScale = QueryScale { beta: 0.3, original_max_positions: 20 };

fn layers(norms: BlockNorms) -> ModelConfig {
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
