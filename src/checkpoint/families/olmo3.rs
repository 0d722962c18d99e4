//! OLMo 3: OLMo 2 with windows on three layers of four, and YaRN on the others.

use super::family::{Defaults, Family, LIKE_LLAMA, WindowRope, Windows};
use crate::model::config::{Architecture, BlockNorms, QkNorm};

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("olmo3"),
    class: "Olmo3ForCausalLM",
    gguf: &["olmo2"], // llama.cpp tells them apart by the window
    permutes_rows: false,
    norms: BlockNorms::After,
    qk_norm: QkNorm::FullWidth,
    mlp_bias: false,
    windows: Windows::Pattern { key: None, every: 4 },
    window_rope: WindowRope::Unscaled,
    defaults: Defaults {
        vocab: 50_304,
        rms_eps: 1e-5,
        window: Some(4096),
        bos: None,
        eos: &[50_279],
        ..LIKE_LLAMA.defaults
    },
    ..LIKE_LLAMA
};
