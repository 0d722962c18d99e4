//! `longreach serve`: a server with OpenAI's interface.
//!
//! It turns flags into a catalogue, limits and options, starts the engine's thread and the server,
//! and ends both in order; [`crate::serve`] does the work.

use std::env::VarError;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

use super::amounts::{parse_size, size};
use super::args::{AttentionArgs, AttentionName, ComputeArgs};
use super::interrupt;
use super::output::{note, read_text_file};
use crate::checkpoint::load::{SharedWeights, load_shared};
use crate::checkpoint::model_files::{ModelFiles, OtherAdapter};
use crate::checkpoint::rope_override::RopeOverride;
use crate::error::{Context, Error, Result};
use crate::model::config::ModelConfig;
use crate::model::llama::Llama;
use crate::serve::{
    Catalogue, Engine, EngineDoor, EngineLimits, Job, Metrics, Options, Room, Served, Shared, State, serve,
};

/// Variable of the environment with a key.
const KEY_VARIABLE: &str = "LONGREACH_API_KEY";

/// Flags of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// Folder with a Hugging Face model, GGUF file, hub id such as org/name, or stories260k, the
    /// bundled model
    #[arg(long, short, value_name = "DIR|FILE.gguf|HUB-ID")]
    model: String,
    /// LoRA adapter and the name by which requests choose it; repeatable. All share the weights of the
    /// base
    #[arg(long, value_name = "NAME=DIR|HUB-ID")]
    adapter: Vec<String>,
    /// Name of the base model in requests [default: the last part of its path, or its hub id]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Address to listen on. Other machines reach only an address other than loopback; set a key then
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one and prints it
    #[arg(long, default_value_t = 8080)]
    port: u16,
    #[command(flatten)]
    attention: AttentionArgs,
    /// Maximum tokens of prompt and answer together, instead of the model's limit; leaves RoPE unchanged
    #[arg(long, value_name = "N")]
    max_positions: Option<usize>,
    /// RoPE scaling in place of the model's own, for the model and all adapters: yarn:4 takes four times
    /// the original positions; or linear:2, dynamic:2, none
    #[arg(long, value_name = "KIND:FACTOR")]
    rope_scaling: Option<RopeOverride>,
    /// Maximum tokens of an answer to a request that sets no limit
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_tokens: usize,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    device: ComputeArgs,
}

/// What the engine may take.
#[derive(Args, Debug)]
struct LimitArgs {
    /// Memory for the caches of running sequences; further requests wait
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = parse_size)]
    cache_memory: u64,
    /// Memory for the beginnings of prompts, which are read once; 0 turns that off
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    prefix_memory: u64,
    /// Maximum sequences that are read or answered at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    parallel: usize,
    /// Maximum requests that wait; further ones get status 429
    #[arg(long, value_name = "N", default_value_t = 128)]
    queue: usize,
    /// Prompt tokens between two steps of the answers that run [default: by the size of the model]
    #[arg(long, value_name = "N")]
    chunk: Option<usize>,
    /// Seconds until an unfinished answer is ended with an error [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Seconds that running answers have to finish after SIGTERM or Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

/// Who may use the server.
#[derive(Args, Debug)]
struct AccessArgs {
    /// File with keys, one a line, of which a request must have one; LONGREACH_API_KEY in the
    /// environment holds one more
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// Origin of web pages that may use the server, such as http://localhost:3000, or * for all;
    /// repeatable
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Answer on a loopback address under any host name, as behind a proxy
    #[arg(long)]
    any_host: bool,
}

impl AccessArgs {
    fn keys(&self) -> Result<Vec<String>> {
        let text = self.api_keys.as_deref().map(read_text_file).transpose()?.unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        let variable = match std::env::var(KEY_VARIABLE) {
            Ok(key) => Some(key.trim().to_owned()).filter(|key| !key.is_empty()),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => {
                return Err(Error::usage(format!(
                    "{KEY_VARIABLE} in the environment is no UTF-8 text: choose another key"
                )));
            }
        };
        let keys: Vec<String> = lines.chain(variable).collect();
        if self.api_keys.is_some() && keys.is_empty() {
            return Err(Error::usage("the file of --api-keys holds no key: write one to each line"));
        }
        Ok(keys)
    }
}

/// A model with its adapters, as opened.
struct Opened {
    files: Arc<ModelFiles>,
    adapters: Vec<OtherAdapter>,
    models: Vec<Served>,
}

impl ServeArgs {
    fn open(&self) -> Result<Opened> {
        let files = ModelFiles::open_scaled(&self.model, None, self.rope_scaling)?;
        files.tokenizer()?;
        let beyond = self.max_positions.and_then(|n| files.length_note(n));
        beyond.iter().for_each(|text| note(&format!("note: {text}")));
        files.notes().iter().for_each(|text| note(&format!("note: {text}")));
        let attention = |recorded| self.attention.resolve(recorded, AttentionName::Dense);
        let name = self.alias.clone().unwrap_or_else(|| name_of(&self.model));
        let mut models = vec![Served { name, attention: attention(files.recorded)? }];
        let mut adapters = Vec::new();
        for named in &self.adapter {
            let (name, path) =
                named.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty()).ok_or_else(|| {
                    Error::usage(format!(
                        "--adapter {named}: give a name and a place, such as --adapter mine=runs/mine"
                    ))
                })?;
            if models.iter().any(|model| model.name == name) {
                return Err(Error::usage(format!("two models are called {name}: requests choose a model by its name")));
            }
            let adapter = files.other_adapter(Path::new(path)).with_context(|| format!("the adapter {name}"))?;
            adapter.note.iter().for_each(|text| note(&format!("note: {name}: {text}")));
            models.push(Served { name: name.to_owned(), attention: attention(adapter.recorded)? });
            adapters.push(adapter);
        }
        Ok(Opened { files: Arc::new(files), adapters, models })
    }

    fn engine_limits(&self, config: &ModelConfig) -> Result<EngineLimits> {
        let LimitArgs { cache_memory, prefix_memory, parallel, queue, chunk, .. } = self.limits;
        if parallel == 0 || queue == 0 || chunk == Some(0) || self.max_tokens == 0 {
            return Err(Error::usage("--parallel, --queue, --chunk and --max-tokens must be at least 1"));
        }
        Ok(EngineLimits {
            cache_bytes: cache_memory,
            prefix_bytes: prefix_memory,
            sequences: parallel,
            step: chunk.unwrap_or_else(|| default_chunk(config)),
        })
    }

    fn options(&self) -> Result<Options> {
        Ok(Options {
            keys: self.access.keys()?,
            origins: self.access.cors.clone(),
            any_host: self.access.any_host,
            max_tokens: self.max_tokens,
            answer_time: self.limits.timeout.map(Duration::from_secs),
            grace: Duration::from_secs(self.limits.grace),
            ..Options::default()
        })
    }
}

/// The name of a model: the last part of a path, without `.gguf`, or a hub id.
fn name_of(model: &str) -> String {
    let last =
        Path::new(model).canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    last.map_or_else(|| model.to_owned(), |name| name.strip_suffix(".gguf").unwrap_or(&name).to_owned())
}

/// Prompt tokens between two steps: two cores read as many of a small model in some 0.2 seconds, and
/// of one with 1.5 billion weights in less than a second.
fn default_chunk(config: &ModelConfig) -> usize {
    let of_layer = 4 * config.hidden * config.hidden + 3 * config.hidden * config.inner;
    if config.n_layers() * of_layer < 600_000_000 { 128 } else { 64 }
}

/// Runs the command.
pub fn run(args: &ServeArgs) -> Result<()> {
    let opened = args.open()?;
    let limits = args.engine_limits(opened.files.config())?;
    let options = args.options()?;
    let Opened { files, adapters, models } = opened;
    let metrics = Arc::new(Metrics::default());
    let shared = Shared::new(metrics.clone());
    let (jobs, received) = unbounded_channel();
    let door = EngineDoor::new(shared.clone(), jobs, args.limits.queue);
    let max_positions = args.max_positions.unwrap_or(files.config().max_positions);
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let lengths = Lengths { models: models.clone(), max_positions };
    let catalogue = Catalogue { files: files.clone(), models, max_positions, created };
    let state = Arc::new(State::new(catalogue, Box::new(door), metrics, options));
    let runtime = Runtime::new().context("starting the server's threads")?;
    let listener = runtime.block_on(listen(&args.host, args.port))?;
    announce(&listener, &state.catalogue)?;
    let (ended, engine_ended) = oneshot::channel();
    let state_of_engine = shared.clone();
    let engine =
        start_engine(EngineParts { files, adapters, limits, lengths, shared, ended }, args.device.clone(), received)?;
    interrupt::catch("ending: running answers may finish")?;
    let end = async {
        tokio::select! {
            () = asked_to_end() => {}
            _ = engine_ended => {}
        }
    };
    let served = runtime.block_on(serve(listener, state, end));
    runtime.shutdown_timeout(Duration::from_secs(1)); // lets go of the door, and the engine ends
    if state_of_engine.is_loading() {
        return served; // nobody waits for a load that is no longer wanted
    }
    let engine = engine.join().unwrap_or_else(|_| Err(Error::new("the engine's thread panicked")));
    served.and(engine)
}

async fn listen(host: &str, port: u16) -> Result<TcpListener> {
    let name = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    TcpListener::bind(&name).await.map_err(|e| {
        Error::usage(format!(
            "cannot listen on {name}: {e}. Choose another --port, or an address of this machine as --host"
        ))
    })
}

fn announce(listener: &TcpListener, catalogue: &Catalogue) -> Result<()> {
    let address: SocketAddr = listener.local_addr()?;
    note(&format!("listening on http://{address}/v1"));
    for Served { name, attention } in &catalogue.models {
        note(&format!("  {name}: {attention}, {} tokens", catalogue.max_positions));
    }
    Ok(())
}

/// The models, and the most tokens that a sequence of theirs has.
struct Lengths {
    models: Vec<Served>,
    max_positions: usize,
}

impl Lengths {
    /// What to know where the memory does not hold a sequence of that length, by name and attention.
    fn notes(&self, models: &[Llama], limits: &EngineLimits) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for (i, (Served { name, attention }, model)) in self.models.iter().zip(models).enumerate() {
            let is_first = self.models[..i].iter().all(|before| before.attention != *attention); // all have one size
            let said = Room::new(model, limits).note(*attention, self.max_positions).filter(|_| is_first);
            notes.extend(said.map(|said| format!("note: {name}: {said}")));
        }
        notes
    }
}

/// What the engine's thread starts from.
struct EngineParts {
    files: Arc<ModelFiles>,
    adapters: Vec<OtherAdapter>,
    limits: EngineLimits,
    lengths: Lengths,
    shared: Arc<Shared>,
    /// Dropped when the engine ends.
    ended: oneshot::Sender<()>,
}

fn start_engine(
    parts: EngineParts,
    device: ComputeArgs,
    mut jobs: UnboundedReceiver<Job>,
) -> Result<JoinHandle<Result<()>>> {
    let run = move || {
        let EngineParts { files, adapters, limits, lengths, shared, ended } = parts;
        let _ended = ended;
        let load = || -> Result<(Engine<'_>, Vec<String>)> {
            let mut device = device.open(&files.source)?;
            let mut weights = SharedWeights::default();
            let mut models = vec![load_shared(&mut *device, &files.source, None, &mut weights)?];
            for OtherAdapter { adapter, .. } in &adapters {
                models.push(load_shared(&mut *device, &files.source, Some(adapter), &mut weights)?);
            }
            let mut told = lengths.notes(&models, &limits);
            told.push(format!(
                "ready on {}: {} for caches, {} tokens a step",
                device.name(),
                size(limits.cache_bytes),
                limits.step
            ));
            Ok((Engine::new(device, models, files.tokenizer()?, limits, shared.clone()), told))
        };
        let (engine, told) = load().inspect_err(|e| shared.die(e.to_string()))?;
        shared.ready();
        told.iter().for_each(|text| note(text)); // the next request is answered
        engine.run(&mut jobs)
    };
    thread::Builder::new().name("engine".into()).spawn(run).context("starting the engine's thread")
}

/// Waits for a signal. The next one ends the program at once.
async fn asked_to_end() {
    while !interrupt::is_asked() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
