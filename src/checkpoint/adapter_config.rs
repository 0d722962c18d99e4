//! PEFT's `adapter_config.json`: rank, scale and targets of a LoRA adapter.
//!
//! Settings that would make PEFT compute anything but y = W x + s·B (A x) are errors that name the
//! setting. [`adapter_file`](super::adapter_file) reads the tensors.

use super::json_fields::Fields;
use super::weight_names::linears;
use crate::error::{Context, Error, Result};
use crate::model::config::ModelConfig;
use serde_json::{Value, json};

/// A LoRA configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank of modules that no pattern matches.
    pub r: usize,
    /// `lora_alpha` of modules that no pattern matches.
    pub alpha: f64,
    pub dropout: f64,
    /// Adapted linear layers: names such as `q_proj`, or longer paths that end in such a name.
    pub targets: Vec<String>,
    /// The scale is alpha / √r instead of alpha / r.
    pub use_rslora: bool,
    /// Ranks of modules whose path ends in the given path. The first match wins.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of modules whose path ends in the given path. The first match wins.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Path or id of the base model, for information.
    pub base_model: Option<String>,
}

/// Settings that must be absent, null, false or empty.
const REFUSED: [&str; 16] = [
    "use_dora",
    "modules_to_save",
    "fan_in_fan_out",
    "lora_bias",
    "layers_to_transform",
    "layer_replication",
    "exclude_modules",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
];

/// Initialisations that also change the base weights, so that the adapter needs a modified base
/// model.
const REFUSED_INITS: [&str; 4] = ["pissa", "olora", "corda", "loftq"];

const MAX_RANK: usize = 1 << 16;

impl AdapterConfig {
    /// Parses an `adapter_config.json`. `all-linear` stands for the linear layers of `model`.
    pub fn from_json(text: &str, model: &ModelConfig) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("invalid JSON")?;
        let fields = Fields::of(&value)?;
        refuse_unsupported(&fields)?;
        let r = fields.size("r")?.ok_or_else(|| Error::new("'r' is missing"))?;
        let rank = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
        let config = Self {
            r,
            alpha: fields.number("lora_alpha")?.unwrap_or(8.0),
            dropout: fields.number("lora_dropout")?.unwrap_or(0.0),
            targets: targets(&fields, model)?,
            use_rslora: fields.flag("use_rslora")?.unwrap_or(false),
            rank_pattern: pattern(&fields, "rank_pattern", rank)?,
            alpha_pattern: pattern(&fields, "alpha_pattern", Value::as_f64)?,
            base_model: fields.text("base_model_name_or_path")?.map(str::to_owned),
        };
        config.validate(model)?;
        Ok(config)
    }

    /// The text of an `adapter_config.json` that PEFT can load.
    pub fn to_json(&self) -> Result<String> {
        let patterns = |pairs: Vec<(&String, Value)>| -> Value {
            Value::Object(pairs.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        };
        let value = json!({
            "alpha_pattern": patterns(self.alpha_pattern.iter().map(|(k, v)| (k, number(*v))).collect()),
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.r,
            "rank_pattern": patterns(self.rank_pattern.iter().map(|(k, v)| (k, json!(v))).collect()),
            "revision": null,
            "target_modules": self.targets,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": self.use_rslora,
        });
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// Rejects invalid ranks and numbers, and targets that the model does not have.
    pub fn validate(&self, model: &ModelConfig) -> Result<()> {
        let ranks = self.rank_pattern.iter().map(|(_, r)| *r).chain([self.r]);
        for r in ranks {
            crate::ensure!((1..=MAX_RANK).contains(&r), "rank: expected 1 to {MAX_RANK}, found {r}");
        }
        for alpha in self.alpha_pattern.iter().map(|(_, a)| *a).chain([self.alpha]) {
            crate::ensure!(alpha.is_finite(), "lora_alpha: expected a finite number, found {alpha}");
        }
        crate::ensure!(
            (0.0..1.0).contains(&self.dropout),
            "lora_dropout: expected at least 0 and less than 1, found {}",
            self.dropout
        );
        crate::ensure!(!self.targets.is_empty(), "target_modules is empty: the adapter would change nothing");
        let modules = all_modules(model);
        let n_named = self.targets.len().max(self.rank_pattern.len()).max(self.alpha_pattern.len());
        crate::ensure!(
            n_named <= modules.len(),
            "{n_named} target modules or patterns, but the model has only {} linear layers",
            modules.len()
        );
        for target in &self.targets {
            crate::ensure!(
                modules.iter().any(|m| ends_in(m, target)),
                "target module '{target}' is not a linear layer of a block; expected some of {}",
                linears(model).iter().map(|l| l.target()).collect::<Vec<_>>().join(", ")
            );
        }
        Ok(())
    }

    /// Every adapted module of the model, such as `model.layers.0.self_attn.q_proj`, in forward
    /// order.
    pub fn modules(&self, model: &ModelConfig) -> Vec<String> {
        let adapted = |module: &String| self.targets.iter().any(|target| ends_in(module, target));
        all_modules(model).into_iter().filter(adapted).collect()
    }

    /// The rank of a module's adapter.
    pub fn rank_of(&self, module: &str) -> usize {
        self.rank_pattern.iter().find(|(p, _)| ends_in(module, p)).map_or(self.r, |(_, r)| *r)
    }

    /// The scale s of a module's adapter in y = W x + s·B (A x).
    pub fn scale_of(&self, module: &str) -> f64 {
        let alpha = self.alpha_pattern.iter().find(|(p, _)| ends_in(module, p)).map_or(self.alpha, |(_, a)| *a);
        let r = self.rank_of(module) as f64;
        alpha / if self.use_rslora { r.sqrt() } else { r }
    }
}

fn all_modules(model: &ModelConfig) -> Vec<String> {
    let linears = linears(model);
    let of_layer = |layer| linears.iter().map(move |l| format!("model.layers.{layer}.{}", l.path));
    (0..model.n_layers()).flat_map(of_layer).collect()
}

/// Whether `module` is `tail` or ends in `.tail`, which is how PEFT matches names.
fn ends_in(module: &str, tail: &str) -> bool {
    module.strip_suffix(tail).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Writes whole numbers without a decimal point, as PEFT does.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn refuse_unsupported(fields: &Fields) -> Result<()> {
    let kind = fields.text("peft_type")?.unwrap_or("");
    crate::ensure!(kind == "LORA", "peft_type '{kind}' is not supported; expected 'LORA'");
    let bias = fields.text("bias")?.unwrap_or("none");
    crate::ensure!(bias == "none", "bias '{bias}' is not supported; expected 'none'");
    for key in REFUSED {
        let set = match fields.get(key) {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Array(values)) if values.is_empty() => None,
            Some(Value::Object(values)) if values.is_empty() => None,
            other => other,
        };
        if let Some(value) = set {
            return Err(fields.wrong(key, "a plain LoRA adapter without it", value));
        }
    }
    let init = fields.get("init_lora_weights").and_then(Value::as_str).unwrap_or("").to_ascii_lowercase();
    crate::ensure!(
        !REFUSED_INITS.iter().any(|refused| init.starts_with(refused)),
        "init_lora_weights '{init}' also changes the base weights, which is not supported; convert it to a plain LoRA adapter"
    );
    Ok(())
}

fn targets(fields: &Fields, model: &ModelConfig) -> Result<Vec<String>> {
    const KEY: &str = "target_modules";
    const EXPECTED: &str = "a list of module names or \"all-linear\"";
    match fields.get(KEY) {
        None => crate::bail!("'{KEY}' is missing; expected {EXPECTED}"),
        Some(Value::String(all)) if all == "all-linear" => {
            Ok(linears(model).iter().map(|l| l.target().to_string()).collect())
        }
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or_else(|| fields.wrong(KEY, "module names", name)))
            .collect(),
        Some(other) => Err(fields.wrong(KEY, EXPECTED, other)), // PEFT treats a string as a regular expression
    }
}

/// A map from plain module paths to values. PEFT would treat other characters as a regular
/// expression.
fn pattern<T>(fields: &Fields, key: &str, cast: impl Fn(&Value) -> Option<T>) -> Result<Vec<(String, T)>> {
    let Some(value) = fields.get(key) else { return Ok(Vec::new()) };
    let Value::Object(pairs) = value else { return Err(fields.wrong(key, "a map from module names", value)) };
    let one = |(name, value): (&String, &Value)| {
        let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        crate::ensure!(plain, "'{key}': the regular expression {name:?} is not supported; expected module names");
        let cast = cast(value).ok_or_else(|| fields.wrong(key, "a number for each module", value))?;
        Ok((name.clone(), cast))
    };
    pairs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::testing::small;

    fn with(pairs: &[(&str, Value)]) -> Result<AdapterConfig> {
        let mut value = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]});
        for (key, v) in pairs {
            value[*key] = v.clone();
        }
        AdapterConfig::from_json(&value.to_string(), &small())
    }

    #[test]
    fn patterns_and_rslora_set_rank_and_scale() {
        let c = with(&[
            ("rank_pattern", json!({"layers.1.self_attn.q_proj": 16, "v_proj": 2})),
            ("alpha_pattern", json!({"v_proj": 3})),
        ])
        .unwrap();
        let module = |layer: usize, name: &str| format!("model.layers.{layer}.self_attn.{name}");
        assert_eq!(
            c.modules(&small()),
            [module(0, "q_proj"), module(0, "v_proj"), module(1, "q_proj"), module(1, "v_proj")]
        );
        assert_eq!((c.rank_of(&module(0, "q_proj")), c.scale_of(&module(0, "q_proj"))), (4, 2.0));
        assert_eq!((c.rank_of(&module(1, "q_proj")), c.scale_of(&module(1, "q_proj"))), (16, 0.5));
        assert_eq!((c.rank_of(&module(1, "v_proj")), c.scale_of(&module(1, "v_proj"))), (2, 1.5));
        assert_eq!(with(&[("use_rslora", json!(true))]).unwrap().scale_of(&module(0, "q_proj")), 4.0);
    }

    #[test]
    fn all_linear_means_the_seven() {
        let c = with(&[("target_modules", json!("all-linear"))]).unwrap();
        assert_eq!(c.modules(&small()).len(), 14);
    }

    #[test]
    fn what_plain_lora_does_not_do_is_refused_by_name() {
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("bias", json!("all")),
            ("use_dora", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("fan_in_fan_out", json!(true)),
            ("layers_to_transform", json!([1])),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("target_modules", json!(".*_proj")),
            ("target_modules", json!([])),
            ("rank_pattern", json!({"^model.*q_proj": 2})),
            ("r", json!(0)),
            ("lora_dropout", json!(1.0)),
        ] {
            let e = with(&[(key, value)]).expect_err(key).to_string();
            assert!(e.contains(if key == "r" { "rank" } else { key }), "{key}: {e}");
        }
        let e = with(&[("target_modules", json!(["lm_head"]))]).unwrap_err().to_string();
        assert!(e.contains("lm_head") && e.contains("down_proj"), "{e}");
        with(&[("modules_to_save", json!([])), ("loftq_config", json!({}))]).unwrap();
    }

    #[test]
    fn what_is_written_reads_back() {
        let c = with(&[("rank_pattern", json!({"v_proj": 2})), ("lora_dropout", json!(0.05))]).unwrap();
        let text = c.to_json().unwrap();
        assert!(text.contains("\"lora_alpha\": 8,"), "PEFT declares an integer: {text}");
        assert_eq!(AdapterConfig::from_json(&text, &small()).unwrap(), c);
    }
}
