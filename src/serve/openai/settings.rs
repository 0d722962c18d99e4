//! Fields that chat and text completions share: how an answer is drawn, where it ends, and how it is
//! sent.

use rand::random;
use serde_json::{Map, Value as Json};

use super::fields::{Fields, excerpt};
use crate::attention::{Attention, Lrsa};
use crate::checkpoint::generation_config::Wished;
use crate::error::Error;
use crate::serve::http::failure::ApiError;
use crate::serve::http::state::State;
use crate::serve::job::Draw;

type Result<T> = std::result::Result<T, ApiError>;

/// Most stop texts, and their longest length in bytes.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 4096;
/// OpenAI's limit for the number of most likely tokens.
pub const MAX_TOP_LOGPROBS: i64 = 20;

/// What a request says besides its prompt.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of the model.
    pub model: usize,
    pub attention: Attention,
    pub draw: Draw,
    pub seed: u64,
    /// Number of answers to each prompt.
    pub n: usize,
    pub stop_texts: Vec<String>,
    /// Send the answer piece by piece, and the usage at its end.
    pub is_stream: bool,
    pub includes_usage: bool,
}

impl Settings {
    /// Reads the shared fields.
    pub fn read(fields: &Fields<'_>, state: &State) -> Result<Self> {
        let model = state.catalogue.find(fields.text("model")?)?;
        let n = fields.size("n", 1..=state.options.answers as i64)?.unwrap_or(1);
        let options = fields.object("stream_options")?;
        let options = options.map(|map| Fields::at(map, "stream_options"));
        let includes_usage = options.map(|options| options.flag("include_usage")).transpose()?.flatten();
        // -1 draws one, as in vLLM and llama.cpp.
        let seed = fields.integer("seed", i64::MIN..=i64::MAX)?.filter(|&seed| seed != -1);
        Ok(Self {
            model,
            attention: attention(fields, state.catalogue.models[model].attention)?,
            draw: draw(fields, state)?,
            seed: seed.map_or_else(random, |seed| seed as u64),
            n,
            stop_texts: stop_texts(fields, state)?,
            is_stream: fields.flag("stream")?.unwrap_or(false),
            includes_usage: includes_usage.unwrap_or(false),
        })
    }
}

/// Sampling, penalties and biases. Where the request says nothing, the model's
/// `generation_config.json` counts, as for `longreach generate`.
fn draw(fields: &Fields<'_>, state: &State) -> Result<Draw> {
    let single =
        |name: &str, range| -> Result<Option<f32>> { Ok(fields.number(name, range)?.map(|number| number as f32)) };
    let wished = Wished {
        temperature: single("temperature", 0.0..=2.0)?,
        top_k: fields.integer("top_k", -1..=i64::from(u32::MAX))?.map(|k| usize::try_from(k).unwrap_or(0)),
        // OpenAI allows 0, which leaves the most likely token.
        top_p: single("top_p", 0.0..=1.0)?.map(|p| p.max(f32::MIN_POSITIVE)),
        min_p: single("min_p", 0.0..=1.0)?,
        repetition_penalty: single("repetition_penalty", 0.0..=f64::INFINITY)?,
        frequency_penalty: single("frequency_penalty", -2.0..=2.0)?,
        presence_penalty: single("presence_penalty", -2.0..=2.0)?,
    };
    Ok(Draw {
        sampling: state.catalogue.files.generation.sampling(&wished).map_err(|e| out_of_range(&e))?,
        logit_bias: fields.object("logit_bias")?.map_or(Ok(Vec::new()), |map| logit_bias(map, state))?,
    })
}

/// An error of the sampling, which names its field in backticks.
fn out_of_range(error: &Error) -> ApiError {
    let message = error.to_string();
    let name = message.split('`').nth(1).unwrap_or("temperature").to_owned();
    ApiError::field(name, message)
}

/// Biases by token ids.
fn logit_bias(map: &Map<String, Json>, state: &State) -> Result<Vec<(u32, f32)>> {
    let vocab = state.catalogue.files.config().vocab;
    let bias = |(name, value): (&String, &Json)| {
        let wrong = |what: String| ApiError::field("logit_bias", format!("`logit_bias` has {what}"));
        let id = name.parse::<u32>().ok().filter(|&id| (id as usize) < vocab);
        let id = id.ok_or_else(|| {
            let name = excerpt(&Json::from(name.as_str()));
            wrong(format!("the key {name}; expected token ids below {vocab}"))
        })?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let bias = bias.ok_or_else(|| {
            wrong(format!("{} for the token {id}; expected a number from -100 to 100", excerpt(value)))
        })?;
        Ok((id, bias as f32))
    };
    map.iter().map(bias).collect()
}

/// The stop texts of the request and of the model.
fn stop_texts(fields: &Fields<'_>, state: &State) -> Result<Vec<String>> {
    let own = state.catalogue.files.generation.stop_texts.iter().cloned();
    let given = match fields.get("stop") {
        None => Vec::new(),
        Some(Json::Array(list)) => list.iter().collect(),
        Some(one) => vec![one],
    };
    let what = || format!("a text or a list of at most {MAX_STOPS} texts, none of them empty");
    if given.len() > MAX_STOPS {
        return Err(fields.wrong("stop", format!("`stop` has {} texts; expected {}", given.len(), what())));
    }
    let text = |value: &Json| match value.as_str() {
        Some(text) if !text.is_empty() && text.len() <= MAX_STOP_BYTES => Ok(text.to_owned()),
        _ => Err(fields.wrong("stop", format!("`stop` has {}; expected {}", excerpt(value), what()))),
    };
    own.map(Ok).chain(given.into_iter().map(text)).collect()
}

/// The attention of the cache: that of the model, or what the field `longreach` says.
fn attention(fields: &Fields<'_>, recorded: Attention) -> Result<Attention> {
    const NAME: &str = "longreach";
    let Some(map) = fields.object(NAME)? else { return Ok(recorded) };
    let own = Fields::at(map, NAME);
    let known = ["attention", "sink", "lag", "keep"];
    if let Some(name) = own.names().find(|name| !known.contains(name)) {
        return Err(own.wrong(name, format!("`longreach` has no field {name:?}, only {}", known.join(", "))));
    }
    let kind = own.text("attention")?;
    let sizes = i64::from(u32::MAX);
    let (sink, lag) = (own.size("sink", 0..=sizes)?, own.size("lag", 1..=sizes)?);
    let keep = own.number("keep", 0.0..=1.0)?;
    let is_sized = sink.is_some() || lag.is_some() || keep.is_some();
    match (kind, is_sized) {
        (None, false) => Ok(recorded),
        (Some("dense"), false) => Ok(Attention::Dense),
        (Some("dense"), true) => {
            Err(own.wrong("attention", "`longreach.attention` dense has no `sink`, `lag` or `keep`"))
        }
        (None | Some("lrsa"), _) => {
            let (s, l, k) = match recorded {
                Attention::Lrsa(lrsa) => (lrsa.sink(), lrsa.lag(), lrsa.keep()),
                Attention::Dense => (Lrsa::DEFAULT_SINK, Lrsa::DEFAULT_LAG, Lrsa::DEFAULT_KEEP),
            };
            let lrsa = Lrsa::new(sink.unwrap_or(s), lag.unwrap_or(l), keep.unwrap_or(k));
            lrsa.map(Attention::Lrsa).map_err(|e| ApiError::field(NAME, e.to_string()))
        }
        (Some(other), _) => {
            Err(own.wrong("attention", format!("`longreach.attention` is {other:?}; expected \"dense\" or \"lrsa\"")))
        }
    }
}
