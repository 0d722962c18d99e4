//! PEFT's `adapter_config.json`: rank, scale and modules of a LoRA or DoRA adapter.
//!
//! Settings that would make PEFT compute anything else are errors that name the setting; unknown
//! ones are ignored, as PEFT does. [`adapter_targets`](super::adapter_targets) chooses the modules,
//! and [`adapter_file`](super::adapter_file) reads the tensors.

use super::adapter_targets::{ModuleSet, PathPatterns, Targets};
use super::json_fields::Fields;
use super::weight_names::linears;
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::small_file;
use serde_json::{Value, json};

/// A LoRA configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank of modules that no pattern matches.
    pub r: usize,
    /// `lora_alpha` of modules that no pattern matches.
    pub alpha: f64,
    pub dropout: f64,
    /// The adapted linear layers, and the modules that are saved whole.
    pub targets: Targets,
    /// The scale is alpha / √r instead of alpha / r.
    pub use_rslora: bool,
    /// Rows of W + s·B A are normalised and scaled by a trained magnitude (DoRA, arXiv 2402.09353).
    pub use_dora: bool,
    /// Ranks of modules whose path, or end of it, is matched by a regular expression. The first
    /// match counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of modules, in the same way.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Path or id of the base model, for information.
    pub base_model: Option<String>,
}

/// An adapted linear layer of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptedModule {
    /// Its path, such as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Input channels of the layer.
    pub n_in: usize,
    /// Output channels of the layer.
    pub n_out: usize,
    /// Rank of the adapter.
    pub rank: usize,
    /// s in W + s·B A.
    pub scale: f64,
}

/// Settings that must be absent, null, false or empty.
const REFUSED: [&str; 12] = [
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "lora_ga_config",
];

/// Initialisations that also change the base weights, so that the adapter needs a modified base
/// model.
const REFUSED_INITS: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

const MAX_RANK: usize = 1 << 16;

impl AdapterConfig {
    /// A LoRA adapter of one rank and alpha, without dropout.
    pub fn new(r: usize, alpha: f64, targets: Targets) -> Self {
        Self {
            r,
            alpha,
            dropout: 0.0,
            targets,
            use_rslora: false,
            use_dora: false,
            rank_pattern: vec![],
            alpha_pattern: vec![],
            base_model: None,
        }
    }

    /// Parses an `adapter_config.json` for a model.
    pub fn from_json(text: &str, model: &ModelConfig) -> Result<Self> {
        let value = small_file::parse_json(text)?;
        let fields = Fields::of(&value)?;
        refuse_unsupported(&fields, model)?;
        let r = fields.size("r")?.ok_or_else(|| Error::new("'r' is missing"))?;
        let rank = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
        let config = Self {
            r,
            alpha: fields.number("lora_alpha")?.unwrap_or(8.0),
            dropout: fields.number("lora_dropout")?.unwrap_or(0.0),
            targets: targets(&fields)?,
            use_rslora: fields.flag("use_rslora")?.unwrap_or(false),
            use_dora: fields.flag("use_dora")?.unwrap_or(false),
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
        let list = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
        let targets = &self.targets;
        let value = json!({
            "alpha_pattern": patterns(self.alpha_pattern.iter().map(|(k, v)| (k, number(*v))).collect()),
            "auto_mapping": null,
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "ensure_weight_tying": targets.ensure_weight_tying,
            "exclude_modules": targets.exclude,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": list(&targets.layers_pattern),
            "layers_to_transform": targets.layers,
            "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout,
            "modules_to_save": list(&targets.to_save),
            "peft_type": "LORA",
            "r": self.r,
            "rank_pattern": patterns(self.rank_pattern.iter().map(|(k, v)| (k, json!(v))).collect()),
            "revision": null,
            "target_modules": targets.modules,
            "task_type": "CAUSAL_LM",
            "use_dora": self.use_dora,
            "use_rslora": self.use_rslora,
        });
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// Rejects invalid ranks and numbers, and targets of which the model has none.
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
        self.modules(model).map(|_| ())
    }

    /// The adapted modules of a model, in forward order. Fails where [`Targets::paths`] fails, and
    /// for patterns that are invalid or take too long.
    pub fn modules(&self, model: &ModelConfig) -> Result<Vec<AdaptedModule>> {
        let paths = self.targets.paths(model)?;
        let ranks = PathPatterns::new(&self.rank_pattern, "rank_pattern", paths.len())?;
        let alphas = PathPatterns::new(&self.alpha_pattern, "alpha_pattern", paths.len())?;
        let linears = linears(model);
        let one = |path: String| {
            let linear = linears.iter().find(|l| path.ends_with(l.path)).expect("paths are made of these");
            let rank = *ranks.of(&path)?.unwrap_or(&self.r);
            let alpha = *alphas.of(&path)?.unwrap_or(&self.alpha);
            let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            Ok(AdaptedModule { n_in: linear.n_in, n_out: linear.n_out, rank, scale: alpha / divisor, path })
        };
        paths.into_iter().map(one).collect()
    }
}

/// Writes whole numbers without a decimal point, as PEFT does.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

fn refuse_unsupported(fields: &Fields, model: &ModelConfig) -> Result<()> {
    let kind = fields.text("peft_type")?.unwrap_or("");
    crate::ensure!(
        kind == "LORA",
        "peft_type '{kind}' is not supported; expected 'LORA' (with DoRA and rsLoRA): merge the adapter into its model with PEFT"
    );
    let bias = fields.text("bias")?.unwrap_or("none");
    let has_bias = model.qkv_bias || model.o_bias || model.mlp_bias;
    crate::ensure!(bias == "none" || !has_bias, "bias '{bias}' is not supported; expected 'none'");
    for key in REFUSED {
        let set = match fields.get(key) {
            None | Some(Value::Bool(false)) => None,
            Some(Value::Array(values)) if values.is_empty() => None,
            Some(Value::Object(values)) if values.is_empty() => None,
            other => other,
        };
        if let Some(value) = set {
            return Err(fields.wrong(key, "a LoRA adapter without it", value));
        }
    }
    let init = fields.get("init_lora_weights").and_then(Value::as_str).unwrap_or("").to_ascii_lowercase();
    crate::ensure!(
        !REFUSED_INITS.iter().any(|refused| init.starts_with(refused)),
        "init_lora_weights '{init}' also changes the base weights, which is not supported; convert it to a plain LoRA \
         adapter with path_initial_model_for_weight_conversion of PEFT's save_pretrained"
    );
    Ok(())
}

fn targets(fields: &Fields) -> Result<Targets> {
    const KEY: &str = "target_modules";
    const EXPECTED: &str = "a list of module names, a regular expression or \"all-linear\"";
    let Some(modules) = module_set(fields, KEY)? else { crate::bail!("'{KEY}' is missing; expected {EXPECTED}") };
    let layers = match fields.get("layers_to_transform") {
        Some(Value::Array(values)) if values.is_empty() => None,
        Some(value @ Value::Number(_)) => Some(vec![value]),
        Some(Value::Array(values)) => Some(values.iter().collect()),
        None => None,
        Some(other) => return Err(fields.wrong("layers_to_transform", "layer numbers", other)),
    };
    let number = |value: &Value| {
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.ok_or_else(|| fields.wrong("layers_to_transform", "layer numbers", value))
    };
    let layers = layers.map(|values| values.into_iter().map(number).collect::<Result<Vec<_>>>()).transpose()?;
    let layers_pattern = match module_set(fields, "layers_pattern")? {
        None => vec![],
        Some(ModuleSet::Names(names)) => names,
        Some(ModuleSet::Pattern(one)) => vec![one],
    };
    for (key, given) in [("layers_to_transform", layers.is_some()), ("layers_pattern", !layers_pattern.is_empty())] {
        let is_text = matches!(modules, ModuleSet::Pattern(_));
        crate::ensure!(!(given && is_text), "{key} needs {KEY} to be a list of names, as PEFT does");
    }
    crate::ensure!(layers_pattern.is_empty() || layers.is_some(), "layers_pattern needs layers_to_transform");
    let to_save = match module_set(fields, "modules_to_save")? {
        None => vec![],
        Some(ModuleSet::Names(names)) => names,
        Some(ModuleSet::Pattern(one)) => return Err(fields.wrong("modules_to_save", "module names", &json!(one))),
    };
    Ok(Targets {
        modules,
        exclude: module_set(fields, "exclude_modules")?,
        layers,
        layers_pattern,
        to_save,
        ensure_weight_tying: fields.flag("ensure_weight_tying")?.unwrap_or(false),
    })
}

/// Names or a pattern. `None` if absent or empty.
fn module_set(fields: &Fields, key: &str) -> Result<Option<ModuleSet>> {
    match fields.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(ModuleSet::Pattern(text.clone()))),
        Some(Value::Array(names)) if names.is_empty() => Ok(None),
        Some(Value::Array(names)) => {
            let one = |name: &Value| {
                name.as_str().map(str::to_owned).ok_or_else(|| fields.wrong(key, "a list of module names", name))
            };
            Ok(Some(ModuleSet::Names(names.iter().map(one).collect::<Result<_>>()?)))
        }
        Some(other) => Err(fields.wrong(key, "module names", other)),
    }
}

/// A map from regular expressions of module paths to values.
fn pattern<T>(fields: &Fields, key: &str, cast: impl Fn(&Value) -> Option<T>) -> Result<Vec<(String, T)>> {
    let Some(value) = fields.get(key) else { return Ok(Vec::new()) };
    let Value::Object(pairs) = value else { return Err(fields.wrong(key, "a map from module names", value)) };
    let one = |(name, value): (&String, &Value)| {
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
        let of = |pairs: &[(&str, Value)]| -> Vec<(usize, f64)> {
            let c = with(pairs).unwrap();
            c.modules(&small()).unwrap().iter().map(|m| (m.rank, m.scale)).collect()
        };
        let pairs = [
            ("rank_pattern", json!({"layers.1.self_attn.q_proj": 16, "v_proj": 2})),
            ("alpha_pattern", json!({"v_proj": 3})),
        ];
        assert_eq!(of(&pairs), [(4, 2.0), (2, 1.5), (16, 0.5), (2, 1.5)]);
        // Keys are regular expressions of the end of the path after a dot, and the first match in the file counts.
        let pairs = [("rank_pattern", json!({"[qv]_proj": 1, "layers.1.self_attn.q_proj": 16, "_proj": 5}))];
        assert_eq!(of(&pairs), [(1, 8.0); 4]);
        assert_eq!(
            of(&[("rank_pattern", json!({"_proj": 5, ".*v_proj": 2}))]),
            [(4, 2.0), (2, 4.0), (4, 2.0), (2, 4.0)]
        );
        assert_eq!(of(&[("use_rslora", json!(true))]), [(4, 4.0); 4]);
    }

    #[test]
    fn what_changes_the_result_otherwise_is_refused_by_name() {
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("trainable_token_indices", json!([1, 2])),
            ("lora_bias", json!(true)),
            ("target_parameters", json!(["w"])),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("target_modules", json!([])),
            ("target_modules", json!("(q_proj")),
            ("rank_pattern", json!({"q_proj[": 2})),
            ("layers_to_transform", json!(["first"])),
            ("layers_pattern", json!(["layers"])),
            ("modules_to_save", json!("lm_head")),
            ("r", json!(0)),
            ("lora_dropout", json!(1.0)),
        ] {
            let e = with(&[(key, value)]).expect_err(key).to_string();
            assert!(e.contains(if key == "r" { "rank" } else { key }), "{key}: {e}");
        }
        let e = with(&[("target_modules", json!(["lm_head"]))]).unwrap_err().to_string();
        assert!(e.contains("lm_head") && e.contains("modules_to_save"), "{e}");
        let e = with(&[("target_modules", json!(".*q_proj")), ("layers_to_transform", json!([1]))]).unwrap_err();
        assert!(e.to_string().contains("layers_to_transform needs target_modules to be a list"), "{e}");
    }

    #[test]
    fn biases_count_where_the_model_has_some() {
        let text = r#"{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "bias": "all"}"#;
        AdapterConfig::from_json(text, &small()).unwrap();
        let with_bias = ModelConfig { qkv_bias: true, ..small() };
        assert!(AdapterConfig::from_json(text, &with_bias).unwrap_err().to_string().contains("bias 'all'"));
    }

    #[test]
    fn what_changes_nothing_is_ignored() {
        with(&[
            ("modules_to_save", json!([])),
            ("loftq_config", json!({})),
            ("fan_in_fan_out", json!(true)), // PEFT turns it off for linear layers
            ("megatron_core", json!("megatron.core")),
            ("init_lora_weights", json!("eva")),
            ("a_key_of_tomorrow", json!({"x": 1})),
        ])
        .unwrap();
    }

    #[test]
    fn what_is_written_reads_back() {
        let c = with(&[
            ("rank_pattern", json!({"v_proj": 2})),
            ("lora_dropout", json!(0.05)),
            ("use_dora", json!(true)),
            ("layers_to_transform", json!(1)),
            ("layers_pattern", json!("layers")),
            ("exclude_modules", json!(["v_proj"])),
            ("modules_to_save", json!(["lm_head"])),
        ])
        .unwrap();
        let text = c.to_json().unwrap();
        assert!(text.contains("\"lora_alpha\": 8,"), "PEFT declares an integer: {text}");
        assert_eq!(AdapterConfig::from_json(&text, &small()).unwrap(), c);
        let c = with(&[("target_modules", json!(".*[qk]_proj"))]).unwrap();
        assert_eq!(AdapterConfig::from_json(&c.to_json().unwrap(), &small()).unwrap(), c);
    }
}
