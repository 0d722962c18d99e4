//! Llama 2 and 3.x, and models like it: SmolLM2, Yi, TinyLlama.

use super::family::{Family, LIKE_LLAMA};

pub(super) static FAMILY: Family = LIKE_LLAMA;
