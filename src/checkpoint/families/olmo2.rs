//! OLMo 2: norms after attention and MLP, and QK norms over all heads together.

use super::family::{Defaults, Family, LIKE_LLAMA};
use crate::model::config::{Architecture, BlockNorms, QkNorm};

pub(super) static FAMILY: Family = Family {
    architecture: Architecture::new("olmo2"),
    class: "Olmo2ForCausalLM",
    gguf: &["olmo2"],
    permutes_rows: false,
    norms: BlockNorms::After,
    qk_norm: QkNorm::FullWidth,
    mlp_bias: false,
    defaults: Defaults { vocab: 50_304, rms_eps: 1e-5, bos: None, eos: &[50_279], ..LIKE_LLAMA.defaults },
    ..LIKE_LLAMA
};
