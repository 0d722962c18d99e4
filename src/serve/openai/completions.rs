//! Text requests: reads the fields of `POST /v1/completions`.

use serde_json::{Map, Value as Json};

use super::asked::Asked;
use super::fields::{Fields, excerpt};
use super::settings::{MAX_TOP_LOGPROBS, Settings};
use super::splitter::Splitter;
use super::text_shape::{Echo, TextShape};
use crate::serve::http::failure::ApiError;
use crate::serve::http::state::State;

type Result<T> = std::result::Result<T, ApiError>;

/// OpenAI's default for `max_tokens`.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Most probabilities of tokens of prompts in one reply, over all answers.
const MAX_PROMPT_LOGPROBS: usize = 2_000_000;

/// A prompt as it was given, and as the model reads it.
struct Prompt {
    text: Option<String>,
    ids: Vec<u32>,
}

/// Reads a text request.
pub fn read(state: &State, map: &Map<String, Json>) -> Result<Asked> {
    let fields = Fields::of(map);
    fields.refuse(&[("suffix", Json::Null, "the model only continues a text")])?;
    let settings = Settings::read(&fields, state)?;
    let best_of = fields.size("best_of", 1..=i64::from(u32::MAX))?;
    if best_of.is_some_and(|best_of| best_of != settings.n) {
        return Err(
            fields.wrong("best_of", "`best_of` differs from `n`: all answers are returned, and none is left out")
        );
    }
    let is_echo = fields.flag("echo")?.unwrap_or(false);
    let logprobs = fields.size("logprobs", 0..=MAX_TOP_LOGPROBS)?;
    let most = |name: &str| fields.most(name, 0);
    let (newer, older) = ("max_completion_tokens", "max_tokens");
    let max_tokens = most(newer)?.or(most(older)?);
    if max_tokens == Some(0) && !is_echo {
        let name = if fields.has(newer) { newer } else { older };
        return Err(fields.wrong(name, format!("`{name}` 0 asks for nothing, except with `echo` true")));
    }
    let prompts = prompts(&fields, state)?;
    if let (true, Some(top)) = (is_echo, logprobs) {
        check_prompt_logprobs(&prompts, settings.n, top)?;
    }
    let table = logprobs.is_some().then(|| state.table()).transpose()?;
    let longest = prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0);
    let default = DEFAULT_MAX_TOKENS.min(state.catalogue.max_positions.saturating_sub(longest).max(1));
    let echo = |prompt: &Prompt| echo(prompt, logprobs.is_some(), state);
    let echoes = is_echo.then(|| prompts.iter().map(echo).collect::<Result<Vec<Echo>>>()).transpose()?;
    Ok(Asked {
        param: "prompt",
        max_tokens: if fields.has(newer) || fields.has(older) { max_tokens } else { Some(default) },
        logprobs: logprobs.or((max_tokens == Some(0)).then_some(0)),
        prompt_logprobs: is_echo && (logprobs.is_some() || max_tokens == Some(0)),
        constraint: None,
        splitter: Splitter::default(),
        shown: Vec::new(),
        shape: Box::new(TextShape::new(table, echoes, settings.n, prompts.len())),
        prompts: prompts.into_iter().map(|prompt| prompt.ids).collect(),
        settings,
    })
}

/// Refuses an echo with more probabilities than a reply may have. Every answer repeats its prompt.
fn check_prompt_logprobs(prompts: &[Prompt], n: usize, top: usize) -> Result<()> {
    let n_tokens: usize = prompts.iter().map(|prompt| prompt.ids.len()).sum();
    let asked = n_tokens.saturating_mul(n).saturating_mul(top + 1);
    if asked <= MAX_PROMPT_LOGPROBS {
        return Ok(());
    }
    Err(ApiError::field(
        "logprobs",
        format!(
            "`echo` with `logprobs` asks for {asked} probabilities of tokens of prompts ({n_tokens} tokens, `n` {n}, \
             `logprobs` {top} and the token itself); a reply has at most {MAX_PROMPT_LOGPROBS}: send fewer prompts at once"
        ),
    ))
}

/// The prompts: a text, a list of texts, ids, or a list of lists of ids.
fn prompts(fields: &Fields<'_>, state: &State) -> Result<Vec<Prompt>> {
    let given = fields.required("prompt")?;
    let one = |value: &Json| match value {
        Json::String(text) => text_prompt(text, state),
        Json::Array(list) => Ok(Prompt { text: None, ids: ids(list, state)? }),
        other => {
            let what = "a text, token ids, or a list of texts or of token ids";
            Err(ApiError::field("prompt", format!("`prompt` has {}; expected {what}", excerpt(other))))
        }
    };
    let Json::Array(list) = given else { return Ok(vec![one(given)?]) };
    if list.first().is_some_and(Json::is_number) {
        return Ok(vec![one(given)?]);
    }
    let (most, waiting) = (state.options.prompts, state.door().most_waiting());
    if list.is_empty() || list.len() > most {
        return Err(fields.wrong("prompt", format!("`prompt` has {} prompts; expected 1 to {most}", list.len())));
    }
    if list.len() > waiting {
        let message = format!("`prompt` has {} prompts, and the queue of the server takes {waiting}", list.len());
        return Err(fields.wrong("prompt", message));
    }
    list.iter().map(one).collect()
}

fn text_prompt(text: &str, state: &State) -> Result<Prompt> {
    let ids = state.catalogue.files.prompt_ids(text, false).map_err(|e| ApiError::field("prompt", e.to_string()))?;
    Ok(Prompt { text: Some(text.to_owned()), ids })
}

fn ids(list: &[Json], state: &State) -> Result<Vec<u32>> {
    let vocab = state.catalogue.files.config().vocab as u64;
    let id = |value: &Json| {
        let id = value.as_u64().filter(|&id| id < vocab).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| {
            let message = format!("`prompt` has the token id {}; expected whole numbers below {vocab}", excerpt(value));
            ApiError::field("prompt", message)
        })
    };
    match list.is_empty() {
        true => Err(ApiError::field("prompt", "`prompt` has no tokens")),
        false => list.iter().map(id).collect(),
    }
}

/// The prompt as the beginning of its answers. Special tokens are not part of the text.
fn echo(prompt: &Prompt, with_offsets: bool, state: &State) -> Result<Echo> {
    let ids = prompt.ids.clone();
    let Ok(tokenizer) = state.catalogue.files.tokenizer() else {
        return Ok(Echo { text: String::new(), offsets: Vec::new(), ids });
    };
    let unknown = |e: crate::Error| ApiError::field("prompt", e.to_string());
    let decoded = || tokenizer.decode(&ids, true).map_err(unknown);
    let text = prompt.text.clone().map_or_else(decoded, Ok)?;
    let mut offsets = Vec::new();
    if with_offsets {
        let mut at = 0;
        for (&id, piece) in ids.iter().zip(tokenizer.pieces(&ids).map_err(unknown)?) {
            offsets.push(at);
            at += if tokenizer.is_special(id) { 0 } else { piece.chars().count() };
        }
    }
    Ok(Echo { text, ids, offsets })
}
