//! `longreach generate`: streams the text after a prompt, with the dense or the compressed cache.
//!
//! It turns flags into a [`GenerateRequest`] and prints the tokens; [`crate::generate`] runs the
//! loop.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::amounts::token_speed;
use super::args::{AttentionArgs, AttentionName, ComputeArgs, ModelArgs};
use super::chat_args::{ChatArgs, without_template};
use super::id_lists::read_ids;
use super::output::{note, print, print_line, read_stdin, read_text_file};
use super::prompt_progress::PromptProgress;
use super::sampling_args::SamplingArgs;
use super::stage::Stage;
use crate::checkpoint::generation_config::GenerationConfig;
use crate::checkpoint::load::{Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::error::{Context, Error, Result};
use crate::generate::{DEFAULT_CHUNK, GenerateRequest, Generated, NewToken, StoppedBy, generate_watched};
use crate::text::tokenizer::Tokenizer;

/// Default of `--max-tokens`, if the model's positions allow it.
const DEFAULT_MAX_TOKENS: usize = 256;

/// Flags of `generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    attention: AttentionArgs,
    /// Maximum tokens to generate [default: 256, or as many as the model's positions allow]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Prompt tokens per chunk
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CHUNK)]
    chunk: usize,
    /// Stop before this text, which may begin and end within tokens; repeatable. The name of a
    /// special token stands for it [default: stop_strings of generation_config.json]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Continue after the model's stop tokens and its own stop texts
    #[arg(long)]
    ignore_eos: bool,
    /// Seed of the sampler [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    device: ComputeArgs,
    /// Print the prompt before the generated text, also in the text of --json
    #[arg(long)]
    echo: bool,
    /// Print a JSON object at the end, and no text before it
    #[arg(long)]
    json: bool,
}

/// The source of the prompt: exactly one of three.
#[derive(Args, Debug)]
struct PromptArgs {
    #[command(flatten)]
    source: PromptSource,
    #[command(flatten)]
    chat: ChatArgs,
    /// Do not apply the model's chat template to the prompt
    #[arg(long)]
    no_chat_template: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct PromptSource {
    /// The prompt; - reads standard input
    #[arg(long, short, value_name = "TEXT|-", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// File with the prompt; a final line break is removed, as for standard input
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// JSON file with the prompt's token ids as one sequence, [[1, 2, 3]]; needs no tokenizer
    #[arg(long, value_name = "IDS.json")]
    ids: Option<PathBuf>,
}

/// A prompt as it is given, and as the model reads it.
struct Prompt {
    /// Empty if it is given as ids and the model has no tokenizer.
    text: String,
    ids: Vec<u32>,
}

impl PromptArgs {
    /// The text of the flags; `None` if it comes from standard input or as ids. Also checks what needs no
    /// model, so that nobody waits for a model and then learns of a wrong path.
    fn given(&self) -> Result<Option<String>> {
        let PromptSource { prompt, prompt_file, ids } = &self.source;
        if self.chat.is_set() && ids.is_some() {
            return Err(without_template("--ids gives tokens"));
        }
        if self.chat.is_set() && self.no_chat_template {
            return Err(without_template("--no-chat-template turns it off"));
        }
        let text = match prompt_file {
            Some(path) => Some(read_text_file(path)?),
            None => prompt.clone().filter(|text| text != "-"),
        };
        if let Some(path) = ids {
            read_text_file(path)?;
        }
        text.map(not_empty).transpose()
    }

    /// The prompt as the model reads it, from [`PromptArgs::given`].
    fn read(&self, given: Option<String>, files: &ModelFiles) -> Result<Prompt> {
        if self.chat.is_set() && files.template.is_none() {
            return Err(without_template("this model has none"));
        }
        if let Some(path) = &self.source.ids {
            let ids = one_sequence(path, files)?;
            let text = files.tokenizer().ok().map(|tokenizer| tokenizer.decode(&ids, true)).transpose()?;
            return Ok(Prompt { text: text.unwrap_or_default(), ids });
        }
        let text = given.map_or_else(|| read_stdin().and_then(not_empty), Ok)?;
        let ids = match files.template.is_some() && !self.no_chat_template {
            true => files.chat_ids(&self.chat.conversation(&text)?)?,
            false => files.prompt_ids(&text, false)?,
        };
        Ok(Prompt { text, ids })
    }
}

/// Rejects an empty prompt.
fn not_empty(text: String) -> Result<String> {
    if text.is_empty() {
        return Err(Error::usage(
            "the prompt is empty: give text, or the start token alone as ids (--ids with a file such as [[1]])",
        ));
    }
    Ok(text)
}

fn one_sequence(path: &std::path::Path, files: &ModelFiles) -> Result<Vec<u32>> {
    let mut rows = read_ids(path, files.config().vocab)?;
    match (rows.pop(), rows.len()) {
        (Some(row), 0) => Ok(row),
        (_, more) => Err(Error::usage(format!(
            "{}: {} sequences; generate takes exactly one, [[1, 2, 3]]",
            path.display(),
            more + 1
        ))),
    }
}

impl GenerateArgs {
    /// The number of tokens to generate: the flag's value if it fits, else as many as fit, up to
    /// the default.
    fn max_tokens(&self, files: &ModelFiles, n_prompt: usize) -> Result<usize> {
        let limit = self.model.max_positions.unwrap_or(files.config().max_positions);
        let room = limit.saturating_sub(n_prompt);
        let max_tokens = self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(room.max(1)));
        self.model.check_length(files, n_prompt.saturating_add(max_tokens)).with_context(|| match room {
            0 => format!("a prompt of {n_prompt} tokens and at least one generated token"),
            _ => format!("a prompt of {n_prompt} tokens and --max-tokens {max_tokens} ({room} would fit)"),
        })?;
        Ok(max_tokens)
    }
}

impl GenerateArgs {
    /// The stop texts of the flags, or else of the model if it has a tokenizer to compare texts.
    fn stop_texts(&self, files: &ModelFiles) -> Vec<String> {
        match self.stop.is_empty() && !self.ignore_eos && files.tokenizer().is_ok() {
            true => files.generation.stop_texts.clone(),
            false => self.stop.clone(),
        }
    }
}

/// Runs the command.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let wished = args.sampling.wished();
    GenerationConfig::default().sampling(&wished)?; // before a model is downloaded
    if args.max_tokens == Some(0) || args.chunk == 0 {
        return Err(Error::usage("--max-tokens and --chunk must be at least 1"));
    }
    args.attention.check()?;
    let given = args.prompt.given()?;
    let (files, (mut device, mut loaded)) = args.model.open_beside(|source, adapter| {
        let mut device = args.device.open(source)?;
        let _loading = Stage::begin("loading the model");
        let loaded = load(&mut *device, source, adapter, Train::Nothing)?;
        Ok((device, loaded))
    })?;
    let sampling = files.generation.sampling(&wished)?;
    if let Some(said) = files.generation.note(&wished) {
        note(&format!("note: {said}"));
    }
    args.sampling.note_if_greedy(&sampling, args.seed.is_some()).iter().for_each(|said| note(said));
    let attention = args.attention.resolve(files.recorded, AttentionName::Dense)?;
    let prompt = args.prompt.read(given, &files)?;
    if let Some(text) = files.tokenizer().ok().and_then(Tokenizer::take_note) {
        note(&format!("note: {text}"));
    }
    let max_tokens = args.max_tokens(&files, prompt.ids.len())?;
    let request = GenerateRequest {
        prompt_ids: &prompt.ids,
        max_tokens,
        sampling,
        attention,
        chunk: args.chunk,
        stop: if args.ignore_eos { &[] } else { files.stop.ids() },
        stop_texts: &args.stop_texts(&files),
        shown: &[],
        seed: args.seed.unwrap_or(0),
    };
    let mut progress = PromptProgress::new(prompt.ids.len(), args.json);
    let mut written = Ok(());
    let mut echo = Some(prompt.text.as_str()).filter(|_| args.echo);
    let bar = progress.bar();
    let mut on_token = |token: NewToken<'_>| {
        bar.finish_and_clear();
        let text = echo.take().unwrap_or_default().to_string() + token.text;
        if !args.json && !text.is_empty() {
            written = print(&text);
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let tokenizer = files.tokenizer().ok();
    let mut on_fed = |n| progress.at(n);
    let mut got = generate_watched(&mut *device, &mut loaded.model, tokenizer, &request, &mut on_fed, &mut on_token)?;
    written?;
    if args.echo {
        got.text.insert_str(0, &prompt.text);
        got.ids.splice(..0, prompt.ids);
    }
    if args.json {
        return print_line(&to_json(&got, &attention.to_string(), &device.name()).to_string());
    }
    if tokenizer.is_none() {
        print_line(&format!("{:?}", got.ids))?; // without a tokenizer there is no text to print
    } else {
        print_line("")?;
    }
    note(&summary(&got, &attention.to_string(), &device.name()));
    Ok(())
}

fn to_json(got: &Generated, attention: &str, device: &str) -> serde_json::Value {
    json!({
        "text": got.text,
        "ids": got.ids,
        "prompt_tokens": got.prompt_tokens,
        "generated_tokens": got.generated_tokens,
        "stopped_by": got.stopped_by.name(),
        "prefill_tokens_per_s": got.prefill_tokens_per_s(),
        "decode_tokens_per_s": got.decode_tokens_per_s(),
        "attention": attention,
        "kv_entries": got.kv_entries,
        "kv_bytes": got.kv_bytes,
        "device": device,
    })
}

fn summary(got: &Generated, attention: &str, device: &str) -> String {
    let why = match got.stopped_by {
        StoppedBy::StopToken => "stopped at a stop token",
        StoppedBy::StopText => "stopped at a stop text",
        StoppedBy::MaxTokens => "stopped at --max-tokens",
        StoppedBy::Caller | StoppedBy::Constraint => "stopped",
    };
    let at = |per_second: f64| token_speed(per_second, 1.0).map_or(String::new(), |speed| format!(" at {speed}"));
    format!(
        "[{} prompt tokens{}, {} generated{}, {why}; {attention}: {} KV entries per head, {:.1} KiB in all; {device}]",
        got.prompt_tokens,
        at(got.prefill_tokens_per_s()),
        got.generated_tokens,
        at(got.decode_tokens_per_s()),
        got.kv_entries,
        got.kv_bytes as f64 / 1024.0
    )
}
