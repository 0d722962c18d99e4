//! Tests of RoPE scalings in place of a model's own: how they are written, that they equal the keys in
//! files, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::formats::gguf::testing::gguf_bytes;
use crate::formats::gguf::{Gguf, Value as Key};
use crate::formats::host_tensor::HostTensor;
use crate::model::rope::tables;
use crate::model::rope_config::QueryScale;

fn scaling(text: &str) -> RopeOverride {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A model of four layers with 256 positions, every second of which slides in families with windows.
fn config_json(model_type: &str, pairs: &Value) -> Value {
    let mut value = json!({"model_type": model_type, "hidden_size": 64, "intermediate_size": 160, "head_dim": 16,
                           "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
                           "vocab_size": 320, "max_position_embeddings": 256, "rope_theta": 5e5, "a_key": [7],
                           "sliding_window": 24});
    if matches!(model_type, "gemma3_text" | "olmo3") {
        let kinds = ["sliding_attention", "full_attention"];
        value["layer_types"] = json!([kinds[0], kinds[1], kinds[0], kinds[1]]);
    }
    for (key, v) in pairs.as_object().unwrap() {
        value[key] = v.clone();
    }
    value
}

fn read(model_type: &str, pairs: Value) -> ModelConfig {
    ModelConfig::from_hf_json(&config_json(model_type, &pairs).to_string()).unwrap()
}

fn without_text(config: ModelConfig) -> ModelConfig {
    ModelConfig { hf_json: None, ..config }
}

fn refusal(text: &str, config: &ModelConfig) -> String {
    let e = scaling(text).applied(config).expect_err(text);
    assert_eq!(e.kind(), ErrorKind::Usage);
    e.to_string()
}

#[test]
fn a_kind_and_a_factor_are_read_and_written() {
    for text in ["yarn:4", "linear:2.5", "dynamic:8", "none"] {
        let read = scaling(text);
        assert_eq!(read.to_string(), text);
        assert_eq!(serde_json::to_value(read).unwrap(), json!(text));
        assert_eq!(serde_json::from_value::<RopeOverride>(json!(text)).unwrap(), read);
    }
    assert_eq!(scaling("yarn:4.0"), scaling("yarn:4"));
}

#[test]
fn what_is_no_scaling_is_refused_with_examples() {
    for (text, word) in [
        ("", "no factor"),
        ("yarn", "no factor"),
        ("yarn:", "'' is no number"),
        ("yarn:4x", "'4x' is no number"),
        ("ntk:4", "no kind 'ntk'"),
        ("YARN:4", "no kind 'YARN'"),
        ("none:2", "no kind 'none'"),
        ("yarn:1", "above 1"),
        ("linear:0.5", "above 1"),
        ("yarn:-4", "above 1"),
        ("yarn:nan", "finite"),
        ("dynamic:inf", "finite"),
    ] {
        let e = text.parse::<RopeOverride>().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.to_string().contains(word) && e.to_string().contains("yarn:4, linear:2"), "{text}: {e}");
        assert!(serde_json::from_value::<RopeOverride>(json!(text)).is_err(), "{text}");
    }
}

/// The keys with which transformers gives a model of 256 positions these scalings.
fn keys_of_transformers() -> [(&'static str, Value, usize); 3] {
    [
        ("yarn:4", json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}), 256),
        ("linear:2", json!({"rope_type": "linear", "factor": 2.0}), 512),
        ("dynamic:3", json!({"rope_type": "dynamic", "factor": 3.0}), 256),
    ]
}

#[test]
fn a_scaling_is_that_of_the_keys_in_config_json() {
    for model_type in ["llama", "qwen2", "qwen3", "mistral", "smollm3", "granite", "gemma3_text", "olmo2", "olmo3"] {
        let plain = read(model_type, json!({}));
        for (text, keys, positions) in keys_of_transformers() {
            let expected = read(model_type, json!({"rope_scaling": keys, "max_position_embeddings": positions}));
            let got = scaling(text).applied(&plain).unwrap();
            assert_eq!(without_text(got.clone()), without_text(expected.clone()), "{model_type} {text}");
            let of = |config: &ModelConfig| tables(&config.ropes[0], 300, 0..300);
            assert_eq!(of(&got), of(&expected));
            assert_ne!(of(&got), of(&plain), "{model_type} {text}");
        }
    }
}

#[test]
fn yarn_has_the_defaults_of_transformers_and_its_positions() {
    let got = scaling("yarn:4").applied(&read("qwen2", json!({}))).unwrap();
    let expected = RopeScaling::Yarn {
        factor: 4.0,
        original_max_positions: 256,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: 0.1 * 4f64.ln() + 1.0,
    };
    assert_eq!(
        (got.max_positions, &got.ropes),
        (1024, &vec![RopeConfig { scaling: expected, ..got.ropes[0].clone() }])
    );
    let half = scaling("yarn:2.5").applied(&read("qwen2", json!({}))).unwrap();
    assert_eq!(half.max_positions, 640);
}

#[test]
fn layers_with_a_window_keep_the_rotation_that_their_family_gives_them() {
    for (model_type, theta) in [("gemma3_text", 1e4), ("olmo3", 5e5)] {
        let got = scaling("yarn:4").applied(&read(model_type, json!({}))).unwrap();
        assert!(matches!(got.ropes[0].scaling, RopeScaling::Yarn { .. }), "{model_type}");
        assert_eq!(got.ropes[1..], [RopeConfig::plain(theta, 16)], "{model_type}");
        let of_layers: Vec<_> = got.layers.iter().map(|layer| layer.rope).collect();
        assert_eq!(of_layers, [Some(1), Some(0), Some(1), Some(0)], "{model_type}");
    }
    // All layers of Mistral slide, and have the one rotation of the model. Others do not rotate at all.
    let mistral = scaling("yarn:4").applied(&read("mistral", json!({}))).unwrap();
    assert_eq!((mistral.ropes.len(), mistral.layers[0].rope), (1, Some(0)));
    let smol = scaling("yarn:4").applied(&read("smollm3", json!({}))).unwrap();
    let of_layers: Vec<_> = smol.layers.iter().map(|layer| layer.rope).collect();
    assert_eq!(of_layers, [Some(0), Some(0), Some(0), None]);
}

#[test]
fn a_window_as_long_as_the_model_counts_once_the_model_is_longer() {
    let plain = read("mistral", json!({"sliding_window": 256}));
    assert_eq!(plain.window(0), None);
    assert_eq!(scaling("yarn:4").applied(&plain).unwrap().window(0), Some(256));
}

/// A GGUF file of four layers with 64 positions.
fn gguf(architecture: &str, more: &[(&str, Key)]) -> ModelConfig {
    let sizes = [("embedding_length", 16), ("feed_forward_length", 12), ("block_count", 4), ("context_length", 64)];
    let heads = [("attention.head_count", 4), ("attention.head_count_kv", 2)];
    let mut pairs: Vec<(String, Key)> =
        sizes.into_iter().chain(heads).map(|(key, n)| (format!("{architecture}.{key}"), Key::U64(n))).collect();
    pairs.push((format!("{architecture}.attention.layer_norm_rms_epsilon"), Key::F64(1e-5)));
    pairs.retain(|(key, _)| more.iter().all(|(other, _)| *key != format!("{architecture}.{other}")));
    pairs.extend(more.iter().map(|(key, value)| (format!("{architecture}.{key}"), value.clone())));
    pairs.push(("general.architecture".into(), Key::String(architecture.into())));
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let embedding = ("token_embd.weight", HostTensor::from_f32(&[10, 16], &[0.5; 160]));
    std::fs::write(file.path(), gguf_bytes(&pairs, &[embedding])).unwrap();
    ModelConfig::from_gguf(&Gguf::open(file.path()).unwrap()).unwrap()
}

#[test]
fn a_scaling_is_that_of_the_keys_in_a_gguf_file() {
    let window = |n| [("attention.sliding_window", Key::U64(n)), ("attention.sliding_window_pattern", Key::U64(2))];
    let (short, long) = (window(16), window(100));
    for (architecture, own) in [("llama", &[][..]), ("qwen2", &[]), ("gemma3", &short), ("gemma3", &long)] {
        let plain = gguf(architecture, own);
        let kind = |kind: &str, factor: f64| {
            [("rope.scaling.type", Key::String(kind.into())), ("rope.scaling.factor", Key::F64(factor))]
        };
        let original = [("rope.scaling.original_context_length", Key::U64(64))];
        let yarn = [&kind("yarn", 4.0)[..], &original, own].concat();
        assert_eq!(scaling("yarn:4").applied(&plain).unwrap(), gguf(architecture, &yarn), "{architecture}");
        let linear = [&kind("linear", 2.0)[..], &[("context_length", Key::U64(128))], own].concat();
        assert_eq!(scaling("linear:2").applied(&plain).unwrap(), gguf(architecture, &linear), "{architecture}");
    }
}

#[test]
fn a_config_json_says_the_scaling_and_keeps_its_other_keys() {
    let v5 = json!({"rope_theta": null, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}});
    let nested = json!({"rope_theta": null, "rope_parameters": {
        "full_attention": {"rope_theta": 5e5, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"}}});
    let none = || json!({});
    for (model_type, pairs) in
        [("llama", none()), ("qwen2", v5), ("gemma3_text", none()), ("gemma3_text", nested), ("olmo3", none())]
    {
        let plain = read(model_type, pairs);
        for text in ["yarn:3", "linear:2", "dynamic:2", "none"] {
            let scaled = scaling(text).applied(&plain).unwrap();
            let written = scaled.to_hf_json().unwrap();
            let back = ModelConfig::from_hf_json(&written).unwrap();
            assert_eq!(without_text(back), without_text(scaled), "{model_type} {text}: {written}");
            assert!(written.contains("a_key"), "the keys of others stay: {written}");
        }
    }
}

#[test]
fn a_scaling_replaces_that_of_the_model_over_its_original_positions() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8.0});
    for own in [yarn, json!({"rope_type": "dynamic", "factor": 2.0})] {
        let original = if own["rope_type"] == "yarn" { 64 } else { 256 };
        let plain = read("llama", json!({"max_position_embeddings": original}));
        let scaled = read("llama", json!({ "rope_scaling": own }));
        for text in ["yarn:2", "linear:3", "dynamic:3", "none"] {
            let (got, expected) = (scaling(text).applied(&scaled).unwrap(), scaling(text).applied(&plain).unwrap());
            assert_eq!(without_text(got.clone()), without_text(expected), "{text}");
            assert_eq!(scaling(text).applied(&got).unwrap(), got, "{text} twice is {text}");
        }
        let none = scaling("none").applied(&scaled).unwrap();
        assert_eq!((none.max_positions, &none.ropes), (original, &plain.ropes));
    }
}

#[test]
fn scalings_that_weights_were_trained_with_are_not_replaced() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 64});
    let llama3 = read("llama", json!({ "rope_scaling": llama3 }));
    let mut factors = read("llama", json!({}));
    factors.ropes[0].scaling = RopeScaling::Factors(vec![2.0; 8]);
    let long = json!({"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![4.0; 8]});
    let long = read("phi3", json!({"rope_scaling": long, "original_max_position_embeddings": 64}));
    let linear = read("llama", json!({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}));
    let mut growing = read("llama", json!({}));
    growing.ropes[0].query_scale = Some(QueryScale { beta: 0.1, original_max_positions: 32 });
    let mut still = read("granite", json!({}));
    still.layers.iter_mut().for_each(|layer| layer.rope = None);
    for (config, word) in [
        (&llama3, "Llama 3"),
        (&factors, "Llama 3"),
        (&long, "LongRoPE"),
        (&linear, "divided by 8"),
        (&growing, "queries grow"),
        (&still, "none of its layers rotates"),
    ] {
        for text in ["yarn:4", "linear:2", "none"] {
            let e = refusal(text, config);
            assert!(e.contains(word) && e.contains("Leave `rope_scaling` out: the model takes 256 positions"), "{e}");
        }
        assert_eq!(RopeOverride::advised(config, 1000), None, "{word}");
    }
    assert_eq!(scaling("linear:8").applied(&linear).unwrap(), linear, "it has that one");
    let e = refusal("yarn:1e12", &read("llama", json!({})));
    assert!(e.starts_with("`rope_scaling` yarn:1000000000000: ") && e.contains("max_position_embeddings"), "{e}");
}

#[test]
fn the_advised_factor_is_the_smallest_whole_one() {
    let plain = read("qwen2", json!({"max_position_embeddings": 32_768}));
    let advised = |n| RopeOverride::advised(&plain, n).map(|scaling| scaling.to_string());
    assert_eq!(advised(32_768), None, "the model takes them");
    assert_eq!(advised(32_769).as_deref(), Some("yarn:2"));
    assert_eq!(advised(100_000).as_deref(), Some("yarn:4"));
    assert_eq!(advised(usize::MAX), None, "no model has so many");
    // Of a model with a scaling, the original length counts.
    let scaled = scaling("yarn:4").applied(&plain).unwrap();
    assert_eq!(RopeOverride::advised(&scaled, 131_072), None);
    assert_eq!(RopeOverride::advised(&scaled, 131_073), Some(scaling("yarn:5")));
}
