//! The sampling values that a model's files recommend: `generation_config.json`, or the keys of a GGUF file.
//!
//! The defaults are those of transformers: without `do_sample` generation is greedy, and with it
//! `top_k` is 50 where the file has none.

use super::json_fields::excerpt;
use crate::error::{Context, Result};
use crate::formats::gguf::Metadata;
use crate::kernels::sample::Sampling;
use crate::small_file;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::path::Path;

const FILE: &str = "generation_config.json";
/// transformers' default with sampling.
const DEFAULT_TOP_K: usize = 50;

/// Settings of transformers that change which tokens are chosen and that Longreach does not have,
/// each with the value that changes nothing. Null never changes anything.
const UNSUPPORTED: [(&str, f64); 23] = [
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("top_h", f64::NAN),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("bad_words_ids", f64::NAN),
    ("force_words_ids", f64::NAN),
    ("constraints", f64::NAN),
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("penalty_alpha", 0.0),
    ("dola_layers", f64::NAN),
    ("forced_bos_token_id", f64::NAN),
    ("forced_eos_token_id", f64::NAN),
    ("exponential_decay_length_penalty", f64::NAN),
    ("suppress_tokens", f64::NAN),
    ("begin_suppress_tokens", f64::NAN),
    ("sequence_bias", f64::NAN),
    ("guidance_scale", 1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
];

/// Sampling values, each present if someone gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wished {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    /// OpenAI's, which no file of a model has.
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
}

/// What a model's files recommend for generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// What messages call the file.
    source: &'static str,
    /// Whether to sample rather than to take the most likely token.
    is_sampled: bool,
    values: Wished,
    /// Texts that end a generation.
    pub stop_texts: Vec<String>,
    /// Settings that Longreach ignores though they would change the text, each with its value.
    pub ignored: Vec<String>,
}

impl GenerationConfig {
    /// Reads the `generation_config.json` of a folder, if there is one. Values of the wrong type and
    /// values out of range are ignored.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        let read = || small_file::parse_json(&small_file::read_text(&path)?);
        Ok(Self::from_json(&read().with_context(|| format!("reading {}", path.display()))?))
    }

    fn from_json(json: &Json) -> Self {
        let mut config = Self { source: FILE, is_sampled: json["do_sample"] == true, ..Self::default() };
        let top_k = match json.get("top_k") {
            None if config.is_sampled => Json::from(DEFAULT_TOP_K),
            value => value.cloned().unwrap_or_default(),
        };
        config.take("top_k", &top_k);
        for name in ["temperature", "top_p", "min_p", "repetition_penalty"] {
            config.take(name, &json[name]);
        }
        match &json["stop_strings"] {
            Json::Null => {}
            Json::String(text) => config.stop_texts.push(text.clone()),
            Json::Array(texts) if texts.iter().all(Json::is_string) => {
                config.stop_texts.extend(texts.iter().filter_map(Json::as_str).map(str::to_owned));
            }
            other => config.ignored.push(format!("stop_strings {other}")),
        }
        config.stop_texts.retain(|text| !text.is_empty());
        for (name, neutral) in UNSUPPORTED {
            let value = &json[name];
            let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty) || *value == false;
            if !is_empty && value.as_f64() != Some(neutral) {
                config.ignored.push(format!("{name} {}", excerpt(value)));
            }
        }
        config
    }

    /// Reads the `general.sampling.*` keys of a GGUF file, which converters copy from
    /// `generation_config.json`.
    pub fn from_gguf(metadata: &Metadata) -> Self {
        let mut config = Self { source: "the GGUF file", ..Self::default() };
        for (name, key) in [
            ("temperature", "temp"),
            ("top_k", "top_k"),
            ("top_p", "top_p"),
            ("min_p", "min_p"),
            ("repetition_penalty", "penalty_repeat"),
        ] {
            let key = format!("general.sampling.{key}");
            if metadata.contains(&key) {
                config.take(name, &metadata.f64(&key).map_or(Json::Null, Json::from));
                config.is_sampled |= name != "repetition_penalty";
            }
        }
        for key in ["xtc_probability", "mirostat"].map(|key| format!("general.sampling.{key}")) {
            if let Some(number) = metadata.f64(&key).ok().filter(|n| *n != 0.0) {
                config.ignored.push(format!("{key} {number}"));
            }
        }
        config
    }

    /// Takes one value if it is usable.
    fn take(&mut self, name: &str, value: &Json) {
        if value.is_null() {
            return;
        }
        let number = value.as_f64().map(|n| n as f32);
        let top_k = number.filter(|n| n.fract() == 0.0 && (0.0..1e9).contains(n)).map(|n| n as usize);
        let mut values = self.values;
        match name {
            "temperature" => values.temperature = number,
            "top_k" => values.top_k = top_k,
            "top_p" => values.top_p = number,
            "min_p" => values.min_p = number,
            _ => values.repetition_penalty = number,
        }
        let is_usable = values != self.values && values.over(Wished::default()).validate().is_ok();
        match is_usable {
            true => self.values = values,
            false => self.ignored.push(format!("{name} {}", excerpt(value))),
        }
    }

    /// The sampling with the wished values, which override the file. A wished temperature of 0
    /// turns the file's values off. Fails if a wished value is out of range.
    pub fn sampling(&self, wished: &Wished) -> Result<Sampling> {
        let sampling = wished.over(self.counting(wished));
        sampling.validate()?;
        Ok(sampling)
    }

    /// The sampling that the file recommends, if it samples at all.
    pub fn warm(&self) -> Option<Sampling> {
        self.sampling(&Wished::default()).ok().filter(|sampling| sampling.temperature > 0.0)
    }

    /// The sampling of a conversation: [`GenerationConfig::sampling`], which samples with temperature
    /// 0.8 and top-p 0.95 where neither the file nor a wish says how.
    pub fn conversational(&self, wished: &Wished) -> Result<Sampling> {
        let sampling = self.sampling(wished)?;
        if wished.temperature.is_some() || sampling.temperature > 0.0 {
            return Ok(sampling);
        }
        let top_p = wished.top_p.or(self.values.top_p).or(Some(0.95));
        self.sampling(&Wished { temperature: Some(self.values.temperature.unwrap_or(0.8)), top_p, ..*wished })
    }

    /// The file's values that count besides the wished ones.
    fn counting(&self, wished: &Wished) -> Wished {
        let is_sampled = wished.temperature.map_or(self.is_sampled, |t| t != 0.0);
        let Wished { temperature, repetition_penalty, .. } = self.values;
        match (is_sampled, wished.temperature) {
            (true, _) => Wished { temperature: Some(temperature.unwrap_or(1.0)), ..self.values },
            (false, None) => Wished { repetition_penalty, ..Wished::default() },
            (false, Some(_)) => Wished::default(),
        }
    }

    /// What to tell people about the sampling of [`GenerationConfig::sampling`]: which values are
    /// the file's, and which settings of the file are ignored. `None` if there is nothing to tell.
    pub fn note(&self, wished: &Wished) -> Option<String> {
        if wished.temperature == Some(0.0) {
            return None;
        }
        let used = self.counting(wished);
        let (with, without) = (wished.over(used), wished.over(Wished::default()));
        let value = |name: &str, with: f64, without: f64| (with != without).then(|| format!("`{name}` {with}"));
        let set: Vec<String> = [
            value("temperature", decimal(with.temperature), decimal(without.temperature)),
            value("top_k", with.top_k as f64, without.top_k as f64),
            value("top_p", decimal(with.top_p), decimal(without.top_p)),
            value("min_p", decimal(with.min_p), decimal(without.min_p)),
            value("repetition_penalty", decimal(with.repetition_penalty), decimal(without.repetition_penalty)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut said = Vec::new();
        if !set.is_empty() {
            said.push(format!("sets {}; `temperature` 0 turns this off", set.join(", ")));
        }
        if !self.ignored.is_empty() {
            said.push(format!("has settings that are ignored: {}", self.ignored.join(", ")));
        }
        (!said.is_empty()).then(|| format!("{} {}", self.source, said.join(", and it ")))
    }
}

impl Wished {
    /// The sampling of these values, with `others` and then greedy sampling where one is absent.
    fn over(&self, others: Self) -> Sampling {
        let plain = Sampling::default();
        Sampling {
            temperature: self.temperature.or(others.temperature).unwrap_or(plain.temperature),
            top_k: self.top_k.or(others.top_k).unwrap_or(plain.top_k),
            top_p: self.top_p.or(others.top_p).unwrap_or(plain.top_p),
            min_p: self.min_p.or(others.min_p).unwrap_or(plain.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(others.repetition_penalty)
                .unwrap_or(plain.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(plain.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(plain.presence_penalty),
        }
    }
}

/// The value with the digits that its f32 shows.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::Value;
    use serde_json::json;

    const NONE: Wished = Wished {
        temperature: None,
        top_k: None,
        top_p: None,
        min_p: None,
        repetition_penalty: None,
        frequency_penalty: None,
        presence_penalty: None,
    };

    fn sampling(json: Json, wished: Wished) -> Sampling {
        GenerationConfig::from_json(&json).sampling(&wished).unwrap()
    }

    #[test]
    fn the_file_decides_as_in_transformers() {
        let greedy = Sampling::default();
        for (json, expected) in [
            (json!({}), greedy),
            (json!({"temperature": 0.7, "top_p": 0.8, "top_k": 20}), greedy),
            (
                json!({"do_sample": false, "temperature": 0.7, "repetition_penalty": 1.1}),
                Sampling { repetition_penalty: 1.1, ..greedy },
            ),
            (json!({"do_sample": true}), Sampling { temperature: 1.0, top_k: 50, ..greedy }),
            (json!({"do_sample": true, "top_k": null}), Sampling { temperature: 1.0, ..greedy }),
            (json!({"do_sample": true, "top_k": 0, "min_p": 0.1}), Sampling { temperature: 1.0, min_p: 0.1, ..greedy }),
            (
                json!({"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}),
                Sampling { temperature: 0.7, top_p: 0.8, top_k: 20, repetition_penalty: 1.05, ..greedy },
            ),
        ] {
            assert_eq!(sampling(json.clone(), NONE), expected, "{json}");
        }
    }

    #[test]
    fn wishes_win_and_temperature_0_turns_the_file_off() {
        let json =
            json!({"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05});
        let file = sampling(json.clone(), NONE);
        let wished = Wished { top_k: Some(5), ..NONE };
        assert_eq!(sampling(json.clone(), wished), Sampling { top_k: 5, ..file });
        assert_eq!(sampling(json.clone(), Wished { temperature: Some(0.0), ..NONE }), Sampling::default());
        let penalised = Wished { temperature: Some(0.0), repetition_penalty: Some(1.3), ..NONE };
        assert_eq!(sampling(json, penalised), Sampling { repetition_penalty: 1.3, ..Sampling::default() });
        // A wished temperature samples with the file's other values, also without do_sample.
        let warm = Wished { temperature: Some(0.5), ..NONE };
        let expected = Sampling { temperature: 0.5, top_p: 0.9, ..Sampling::default() };
        assert_eq!(sampling(json!({"top_p": 0.9}), warm), expected);
        let e = GenerationConfig::default().sampling(&Wished { top_p: Some(2.0), ..NONE }).unwrap_err();
        assert!(e.to_string().contains("`top_p` 2"), "{e}");
    }

    #[test]
    fn the_note_names_what_the_file_changes_and_what_is_ignored() {
        let note = |json: Json, wished: Wished| GenerationConfig::from_json(&json).note(&wished);
        let file =
            json!({"do_sample": true, "temperature": 0.7, "top_k": 20, "transformers_version": "4.0", "max_length": 9});
        let expected = "generation_config.json sets `temperature` 0.7, `top_k` 20; `temperature` 0 turns this off";
        assert_eq!(note(file.clone(), NONE).as_deref(), Some(expected));
        let warm = Wished { temperature: Some(0.5), ..NONE };
        assert!(note(file.clone(), warm).unwrap().starts_with("generation_config.json sets `top_k` 20;"));
        assert_eq!(note(file, Wished { temperature: Some(0.0), ..NONE }), None);
        assert_eq!(note(json!({"num_beams": 1, "typical_p": 1.0, "min_length": 0, "suppress_tokens": []}), NONE), None);
        let odd =
            json!({"no_repeat_ngram_size": 3, "bad_words_ids": [[5]], "top_p": 0, "top_k": "x", "temperature": -1});
        let said = note(odd, NONE).unwrap();
        for ignored in ["no_repeat_ngram_size 3", "bad_words_ids [[5]]", "top_p 0", "top_k \"x\"", "temperature -1"] {
            assert!(said.contains(ignored), "{said}");
        }
        let stops = GenerationConfig::from_json(&json!({"stop_strings": ["a", "", "b"]})).stop_texts;
        assert_eq!(stops, ["a", "b"]);
    }

    #[test]
    fn a_conversation_samples_unless_someone_wishes_otherwise() {
        let of = |json: Json, wished: Wished| GenerationConfig::from_json(&json).conversational(&wished).unwrap();
        let warm = Sampling { temperature: 0.8, top_p: 0.95, ..Sampling::default() };
        assert_eq!(of(json!({}), NONE), warm);
        assert_eq!(
            of(json!({"do_sample": false}), Wished { top_p: Some(0.5), ..NONE }),
            Sampling { top_p: 0.5, ..warm }
        );
        assert_eq!(of(json!({"temperature": 0.6}), NONE), Sampling { temperature: 0.6, ..warm });
        assert_eq!(of(json!({}), Wished { temperature: Some(0.0), ..NONE }), Sampling::default());
        assert_eq!(
            of(json!({}), Wished { temperature: Some(0.5), ..NONE }),
            Sampling { temperature: 0.5, ..Sampling::default() }
        );
        let file = json!({"do_sample": true, "temperature": 0.7, "top_k": 20});
        assert_eq!(of(file.clone(), NONE), sampling(file, NONE));
    }

    #[test]
    fn numbers_that_only_python_writes_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"do_sample": true, "eos_token_id": 2, "temperature": NaN, "max_length": Infinity}"#;
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let found = GenerationConfig::from_dir(dir.path()).unwrap().sampling(&NONE).unwrap();
        assert_eq!(found, Sampling { temperature: 1.0, top_k: 50, ..Sampling::default() });
    }

    #[test]
    fn gguf_keys_count_too() {
        let mut m = Metadata::default();
        assert_eq!(GenerationConfig::from_gguf(&m).sampling(&NONE).unwrap(), Sampling::default());
        m.insert("general.sampling.top_k", Value::I64(20));
        m.insert("general.sampling.penalty_repeat", Value::F64(1.5));
        let expected = Sampling { temperature: 1.0, top_k: 20, repetition_penalty: 1.5, ..Sampling::default() };
        assert_eq!(GenerationConfig::from_gguf(&m).sampling(&NONE).unwrap(), expected);
        m.insert("general.sampling.temp", Value::F64(0.5));
        let config = GenerationConfig::from_gguf(&m);
        assert_eq!(
            (config.sampling(&NONE).unwrap().temperature, config.warm().map(|s| s.temperature)),
            (0.5, Some(0.5))
        );
        assert_eq!(GenerationConfig::default().warm(), None);
    }
}
