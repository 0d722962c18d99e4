//! The text part of a multimodal model's `config.json`, as the configuration of a text model.

use super::families::{self, Family};
use super::json_fields::Fields;
use crate::error::Result;
use serde_json::{Map, Value, json};

/// Keys of the whole model that also hold for its text part, if that has none of its own.
const SHARED: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
    "quantization_config",
    "transformers_version",
];

/// Family and configuration of the text part, or `None` for a text model.
pub(super) fn of(value: &Value, model_type: &str) -> Result<Option<(&'static Family, Value)>> {
    let wrapped: Vec<&Family> = families::ALL.iter().copied().filter(|f| f.wrappers.contains(&model_type)).collect();
    let Some(usual) = wrapped.first() else { return Ok(None) };
    let whole = Fields::of(value)?;
    let empty = Value::Object(Map::new());
    let text = whole.get("text_config").unwrap_or(&empty);
    let own = Fields::of(text)?.text("model_type")?.unwrap_or(usual.architecture.model_type());
    let Some(family) = wrapped.iter().find(|family| family.architecture.model_type() == own) else {
        crate::bail!("text_config of model type '{own}' is not supported in a {model_type} model")
    };
    let mut part = text.clone();
    for key in SHARED.iter().filter(|key| whole.has(key) && text.get(key).is_none()) {
        part[*key] = value[*key].clone();
    }
    part["architectures"] = json!([family.class]);
    part["model_type"] = json!(own);
    Ok(Some((family, part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelConfig;

    #[test]
    fn the_text_part_of_gemma_3_is_a_text_model() {
        let whole = json!({
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106],
            "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152},
            "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                            "num_hidden_layers": 34, "sliding_window": 1024,
                            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
        });
        let c = ModelConfig::from_hf_json(&whole.to_string()).unwrap();
        assert_eq!((c.hidden, c.n_layers(), c.n_heads, c.n_kv_heads, c.head_dim), (2560, 34, 8, 4, 256));
        assert_eq!((c.vocab, c.tied, c.eos.as_slice()), (262_208, true, &[1, 106][..]));
        let written: Value = serde_json::from_str(&c.to_hf_json().unwrap()).unwrap();
        assert_eq!(written["architectures"], json!(["Gemma3ForCausalLM"]));
        assert_eq!((&written["torch_dtype"], written.get("vision_config")), (&json!("bfloat16"), None));
        assert_eq!(ModelConfig::from_hf_json(&c.to_hf_json().unwrap()).unwrap(), c);
    }

    #[test]
    fn an_unknown_text_part_is_named() {
        let whole = json!({"model_type": "mistral3", "text_config": {"model_type": "llama"}});
        let e = ModelConfig::from_hf_json(&whole.to_string()).unwrap_err().to_string();
        assert!(e.contains("'llama'") && e.contains("mistral3"), "{e}");
        let e = ModelConfig::from_hf_json(r#"{"model_type": "gemma3", "text_config": 3}"#).unwrap_err().to_string();
        assert!(e.contains("expected a JSON object"), "{e}");
    }
}
