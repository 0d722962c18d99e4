//! The model families: one file each holds the family's table.
//!
//! A new family takes a file and a line in the list below.

mod family;

pub use family::{AttentionBias, Defaults, Family, LIKE_LLAMA, ScoreScale, WindowRope, Windows};

use crate::error::Result;
use crate::formats::dtype::DType;
use crate::model::config::Architecture;

/// Declares the families.
macro_rules! families {
    ($($module:ident),* $(,)?) => {
        $(mod $module;)*

        /// All families.
        pub const ALL: &[&Family] = &[$(&$module::FAMILY),*];
    };
}

families! {
    llama,
    mistral,
    qwen2,
    qwen3,
    gemma3,
    smollm3,
    phi3,
    granite,
    olmo2,
    olmo3,
    ministral3,
}

/// The family of a `model_type`. The error lists the supported types.
pub fn of_model_type(model_type: &str) -> Result<&'static Family> {
    match ALL.iter().find(|family| family.architecture.model_type() == model_type) {
        Some(family) => Ok(family),
        None => crate::bail!(
            "model type '{model_type}' is not supported; expected one of {}",
            ALL.iter().map(|family| family.architecture.model_type()).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The family of a model.
pub fn of(architecture: Architecture) -> &'static Family {
    of_model_type(architecture.model_type()).expect("architectures come from the families")
}

/// The families of a GGUF file's `general.architecture`; none if it is not supported.
pub fn of_gguf(architecture: &str) -> impl Iterator<Item = &'static Family> {
    ALL.iter().copied().filter(move |family| family.gguf.contains(&architecture))
}

/// √hidden as transformers' Gemma multiplies embeddings by it: computed in f32, in the type of the
/// weights.
pub fn embed_scale(hidden: usize, weights: DType) -> f64 {
    let scale = (hidden as f64).sqrt() as f32;
    f64::from(match weights {
        DType::BF16 => half::bf16::from_f32(scale).to_f32(),
        DType::F16 => half::f16::from_f32(scale).to_f32(),
        _ => scale,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_model_types_are_told_what_is_supported() {
        let e = of_model_type("gpt2").unwrap_err().to_string();
        assert!(e.contains("'gpt2'") && e.contains("llama, mistral, qwen2, qwen3"), "{e}");
    }

    #[test]
    fn the_embedding_scale_has_the_precision_of_the_weights() {
        for (hidden, scale) in [(640, 25.25), (1152, 34.0), (2560, 50.5), (3840, 62.0), (5376, 73.5)] {
            assert_eq!(embed_scale(hidden, DType::BF16), scale);
        }
        assert_eq!(embed_scale(640, DType::F32), f64::from(640f32.sqrt()));
        assert_eq!(embed_scale(640, DType::F16), 25.296875);
    }

    #[test]
    fn no_two_families_have_one_model_type() {
        for (i, family) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.architecture != family.architecture), "{}", family.class);
            assert_eq!(of(family.architecture).class, family.class);
        }
    }
}
