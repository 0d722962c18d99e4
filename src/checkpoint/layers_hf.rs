//! What a `config.json` says of each layer: its window, and its rotation.

use super::families::{Family, Windows};
use super::json_fields::Fields;
use super::rope_hf::{Sizes, ropes};
use crate::error::{Error, Result};
use crate::model::config::LayerConfig;
use crate::model::rope_config::RopeConfig;
use serde_json::Value;

/// The layers and the RoPE settings that they refer to, those of full layers first.
pub(super) fn layers(
    family: &Family,
    fields: &Fields,
    sizes: Sizes,
    n_layers: usize,
) -> Result<(Vec<LayerConfig>, Vec<RopeConfig>)> {
    let mut layers = LayerConfig::all_full(n_layers, sizes.head_dim)?;
    let rotates = rotates(family, fields, n_layers)?;
    let windows = windows(family, fields, &rotates)?;
    let ropes = ropes(family, fields, sizes)?;
    let mut tables = vec![ropes.full.clone()];
    for ((layer, rotates), window) in layers.iter_mut().zip(rotates).zip(windows) {
        let rope = if window.is_some() { &ropes.sliding } else { &ropes.full };
        if !tables.contains(rope) {
            tables.push(rope.clone());
        }
        layer.rope = tables.iter().position(|table| table == rope).filter(|_| rotates);
        layer.window = window;
    }
    Ok((layers, tables))
}

/// Whether each layer rotates. In `no_rope_layers`, 1 means that it does.
fn rotates(family: &Family, fields: &Fields, n_layers: usize) -> Result<Vec<bool>> {
    const KEY: &str = "no_rope_layers";
    if !family.unrotated_layers {
        return Ok(vec![true; n_layers]);
    }
    let Some(value) = fields.get(KEY) else {
        let every = fields.size("no_rope_layer_interval")?.unwrap_or(4);
        crate::ensure!(every > 0, "no_rope_layer_interval: expected a positive number, found 0");
        return Ok((1..=n_layers).map(|layer| !layer.is_multiple_of(every)).collect());
    };
    let one = |v: &Value| v.as_bool().or(v.as_u64().map(|v| v != 0));
    let list: Option<Vec<bool>> = value.as_array().and_then(|list| list.iter().map(one).collect());
    let list = list.ok_or_else(|| fields.wrong(KEY, "a list of 0 and 1", value))?;
    one_a_layer(KEY, list, n_layers)
}

/// The window of each layer, of whatever size.
fn windows(family: &Family, fields: &Fields, rotates: &[bool]) -> Result<Vec<Option<usize>>> {
    let n_layers = rotates.len();
    let default = family.defaults.window.filter(|_| !fields.has("sliding_window"));
    let window = fields.size("sliding_window")?.or(default);
    let types = layer_types(fields, n_layers)?;
    let is_used = || Ok::<bool, Error>(fields.flag("use_sliding_window")?.unwrap_or(false));
    let slides: Vec<bool> = match (family.windows, types) {
        (Windows::Never | Windows::EveryLayer, Some(types)) if types.contains(&true) => crate::bail!(
            "layer_types has \"sliding_attention\", which a {} model does not have; expected only \"full_attention\"",
            family.architecture.model_type()
        ),
        (Windows::Never, _) => vec![false; n_layers],
        (Windows::EveryLayer, _) => vec![window.is_some(); n_layers],
        (Windows::UpperLayers | Windows::UnrotatedLayers, _) if !is_used()? => vec![false; n_layers],
        (_, Some(types)) => types,
        (Windows::UpperLayers, None) => {
            let first = fields.size("max_window_layers")?.unwrap_or(28);
            (0..n_layers).map(|layer| window.is_some() && layer >= first).collect()
        }
        (Windows::UnrotatedLayers, None) => rotates.iter().map(|rotates| window.is_some() && !rotates).collect(),
        (Windows::Pattern { key, every }, None) => {
            let given = key.map(|key| fields.size(key)).transpose()?.flatten();
            let every = given.unwrap_or(every);
            crate::ensure!(every > 0, "{}: expected a positive number, found 0", key.unwrap_or_default());
            (1..=n_layers).map(|layer| !layer.is_multiple_of(every)).collect()
        }
    };
    crate::ensure!(
        window.is_some() || !slides.contains(&true),
        "sliding_window is missing, but some layers have sliding-window attention"
    );
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

/// Whether `layer_types` calls each layer sliding, if the key exists.
fn layer_types(fields: &Fields, n_layers: usize) -> Result<Option<Vec<bool>>> {
    const KEY: &str = "layer_types";
    let Some(value) = fields.get(KEY) else { return Ok(None) };
    let Value::Array(types) = value else { return Err(fields.wrong(KEY, "a list of types", value)) };
    let one = |value: &Value| match value.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => crate::bail!(
            "{KEY} has {value}, which is not supported; expected \"full_attention\" or \"sliding_attention\""
        ),
    };
    let types = types.iter().map(one).collect::<Result<Vec<bool>>>()?;
    one_a_layer(KEY, types, n_layers).map(Some)
}

fn one_a_layer(key: &str, values: Vec<bool>, n_layers: usize) -> Result<Vec<bool>> {
    crate::ensure!(values.len() == n_layers, "{key} has {} values for {n_layers} layers", values.len());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelConfig;
    use serde_json::json;

    fn read(model_type: &str, n_layers: usize, pairs: Value) -> Result<ModelConfig> {
        let mut value = json!({"model_type": model_type, "hidden_size": 64, "intermediate_size": 160, "head_dim": 16,
                               "num_hidden_layers": n_layers, "num_attention_heads": 4, "num_key_value_heads": 2,
                               "vocab_size": 320, "max_position_embeddings": 256});
        for (key, v) in pairs.as_object().unwrap() {
            value[key] = v.clone();
        }
        ModelConfig::from_hf_json(&value.to_string())
    }

    fn windows_of(model_type: &str, n_layers: usize, pairs: Value) -> Vec<Option<usize>> {
        let config = read(model_type, n_layers, pairs).unwrap();
        (0..n_layers).map(|layer| config.window(layer)).collect()
    }

    const W: Option<usize> = Some(24);

    #[test]
    fn every_layer_of_mistral_has_the_window_unless_it_is_null_or_limits_nothing() {
        assert_eq!(windows_of("mistral", 2, json!({"sliding_window": 24})), [W; 2]);
        assert_eq!(windows_of("mistral", 2, json!({"sliding_window": null})), [None; 2]);
        assert_eq!(windows_of("mistral", 2, json!({"sliding_window": 256})), [None; 2]);
        let absent = json!({"max_position_embeddings": 8192});
        assert_eq!(windows_of("mistral", 2, absent), [Some(4096); 2]);
        assert_eq!(windows_of("llama", 2, json!({"sliding_window": 24})), [None; 2]);
    }

    #[test]
    fn qwens_windows_begin_at_a_layer_if_they_are_used() {
        for model_type in ["qwen2", "qwen3"] {
            let of = |pairs| windows_of(model_type, 3, pairs);
            let used =
                |first: usize| json!({"sliding_window": 24, "use_sliding_window": true, "max_window_layers": first});
            assert_eq!(of(json!({"sliding_window": 24, "max_window_layers": 0})), [None; 3]);
            assert_eq!(of(used(1)), [None, W, W]);
            assert_eq!(of(used(3)), [None; 3]);
            let mut null = used(0);
            null["sliding_window"] = Value::Null;
            assert_eq!(of(null), [None; 3]);
            let mut types = used(0);
            types["layer_types"] = json!(["sliding_attention", "full_attention", "full_attention"]);
            assert_eq!(of(types), [W, None, None]);
        }
    }

    #[test]
    fn patterns_hold_where_layer_types_are_absent() {
        let w = json!({"sliding_window": 24});
        assert_eq!(windows_of("gemma3_text", 7, w.clone()), [W, W, W, W, W, None, W]);
        assert_eq!(windows_of("olmo3", 5, w.clone()), [W, W, W, None, W]);
        let pattern = json!({"sliding_window": 24, "sliding_window_pattern": 2});
        assert_eq!(windows_of("gemma3_text", 3, pattern), [W, None, W]);
        let types = json!({"sliding_window": 24, "layer_types": ["full_attention", "sliding_attention"]});
        assert_eq!(windows_of("gemma3_text", 2, types), [None, W]);
    }

    #[test]
    fn layers_of_smollm3_rotate_where_the_list_has_1() {
        let rotating = |pairs| {
            let config = read("smollm3", 4, pairs).unwrap();
            config.layers.iter().map(|layer| layer.rope.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(rotating(json!({})), [true, true, true, false]);
        assert_eq!(rotating(json!({"no_rope_layer_interval": 2})), [true, false, true, false]);
        assert_eq!(rotating(json!({"no_rope_layers": [0, 1, 1, 0]})), [false, true, true, false]);
        let used = json!({"sliding_window": 24, "use_sliding_window": true});
        assert_eq!(windows_of("smollm3", 4, used), [None, None, None, W]);
        assert_eq!(windows_of("smollm3", 4, json!({"sliding_window": 24})), [None; 4]);
    }

    #[test]
    fn layers_with_a_window_have_their_own_rotation_where_the_family_says_so() {
        let gemma = read("gemma3_text", 6, json!({"rope_scaling": {"rope_type": "linear", "factor": 8.0}})).unwrap();
        let thetas: Vec<f64> = gemma.ropes.iter().map(|rope| rope.theta).collect();
        assert_eq!(thetas, [1e6, 1e4]);
        let tables: Vec<_> = gemma.layers.iter().map(|layer| layer.rope.unwrap()).collect();
        assert_eq!(tables, [1, 1, 1, 1, 1, 0]);
        let olmo = read("olmo3", 4, json!({"rope_theta": 5e5})).unwrap();
        assert_eq!((olmo.ropes.len(), olmo.layers[0].rope), (1, Some(0)), "without scaling there is one rotation");
    }

    #[test]
    fn impossible_layers_are_refused_by_name() {
        for (model_type, pairs, word) in [
            ("llama", json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types"),
            ("mistral", json!({"layer_types": ["full_attention", "sliding_attention"]}), "mistral model"),
            ("olmo3", json!({"layer_types": ["full_attention", "chunked_attention"]}), "chunked_attention"),
            ("olmo3", json!({"layer_types": ["full_attention"]}), "1 values for 2 layers"),
            ("olmo3", json!({"layer_types": "full_attention"}), "a list of types"),
            ("olmo3", json!({"sliding_window": null}), "sliding_window is missing"),
            ("smollm3", json!({"no_rope_layers": [1, 2.5]}), "no_rope_layers"),
            ("smollm3", json!({"no_rope_layers": [1]}), "1 values for 2 layers"),
            ("smollm3", json!({"no_rope_layer_interval": 0}), "no_rope_layer_interval"),
            ("gemma3_text", json!({"sliding_window_pattern": 0}), "sliding_window_pattern"),
            ("mistral", json!({"sliding_window": -1}), "sliding_window"),
        ] {
            let e = read(model_type, 2, pairs).expect_err(word).to_string();
            assert!(e.contains(word), "{word}: {e}");
        }
    }
}
