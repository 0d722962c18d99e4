//! The model of a conversation, on its device, with the cache.
//!
//! A lost device, or a model that could not be loaded, closes it; the next question opens it again.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attention::{Attention, LayerAttention};
use crate::checkpoint::fingerprint::adapter_fingerprint;
use crate::checkpoint::load::{Loaded, Train, load};
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::rope_override::RopeOverride;
use crate::cli::args::{ComputeArgs, ModelArgs};
use crate::cli::stage::Stage;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::eval::{KeptMap, WATCHED_CHUNK, kept_map_in_chunks};
use crate::generate::{Answer, Conversation, Progress, Reply, SavedConversation};
use crate::gpu::Device;
use crate::kernels::sample::Sampling;

/// Prompt tokens per chunk. Ctrl-C counts between chunks.
const CHUNK: usize = 256;

/// The model and the text it has read.
pub struct Engine {
    args: ModelArgs,
    compute: ComputeArgs,
    open: Option<Opened>,
    conversation: Conversation,
}

/// An open model.
struct Opened {
    files: ModelFiles,
    device: Device,
    loaded: Loaded,
}

/// What to answer, and how.
pub struct Ask<'a> {
    pub prompt: &'a str,
    /// Where the question begins in the prompt, in bytes.
    pub question_start: usize,
    pub attention: Attention,
    pub sampling: Sampling,
    pub max_tokens: usize,
    pub seed: u64,
}

/// Which model and adapter a conversation was held with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub model: String,
    /// Fingerprint of the weights.
    pub weights: Option<String>,
    pub adapter: Option<PathBuf>,
    /// Fingerprint of the adapter's weights.
    pub adapter_weights: Option<String>,
    /// The RoPE scaling in place of the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeOverride>,
}

/// The cache, and what a dense one would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    /// Tokens in it.
    pub n_tokens: usize,
    pub entries: usize,
    pub bytes: u64,
    pub dense_bytes: u64,
}

impl CacheSize {
    /// Whether it is smaller than a dense one.
    pub fn is_compressed(&self) -> bool {
        self.bytes < self.dense_bytes
    }
}

impl Opened {
    fn open(args: &ModelArgs, compute: &ComputeArgs) -> Result<Self> {
        let (files, (device, loaded)) = args.open_beside(|source, adapter| {
            let mut device = compute.open(source)?;
            let _loading = Stage::begin("loading the model");
            let loaded = load(&mut *device, source, adapter, Train::Nothing)?;
            Ok((device, loaded))
        })?;
        files.tokenizer()?;
        Ok(Self { files, device, loaded })
    }
}

impl Engine {
    /// Opens a model.
    pub fn open(args: ModelArgs, compute: ComputeArgs) -> Result<Self> {
        let open = Some(Opened::open(&args, &compute)?);
        Ok(Self { args, compute, open, conversation: Conversation::default() })
    }

    /// The open model and the conversation; opens the model if it is closed.
    fn opened(&mut self) -> Result<(&mut Opened, &mut Conversation)> {
        let opened = match &mut self.open {
            Some(opened) => opened,
            closed => closed.insert(Opened::open(&self.args, &self.compute)?),
        };
        Ok((opened, &mut self.conversation))
    }

    /// The files of the model.
    pub fn files(&mut self) -> Result<&ModelFiles> {
        Ok(&self.opened()?.0.files)
    }

    /// Maximum tokens of a conversation.
    pub fn max_positions(&mut self) -> Result<usize> {
        let limit = self.args.max_positions;
        Ok(limit.unwrap_or(self.files()?.config().max_positions))
    }

    /// What to do about a text of `n` tokens that the model does not take, in the imperative.
    pub fn length_advice(&mut self, n: usize) -> Result<String> {
        let is_own = self.args.max_positions.is_none();
        Ok(format!("start chat anew: {}", self.files()?.length_advice(n, is_own)))
    }

    /// Model, adapter and device as people name them.
    pub fn description(&mut self) -> Result<String> {
        let adapter = self.args.adapter.as_ref().map(|path| format!(" with {}", path.display()));
        let model = self.args.model.clone();
        Ok(format!("{model}{} on {}", adapter.unwrap_or_default(), self.opened()?.0.device.name()))
    }

    /// Changes model and adapter. The text that was read is forgotten. On an error the model before
    /// it stays.
    pub fn change(&mut self, model: Option<String>, adapter: Option<PathBuf>) -> Result<()> {
        let args = ModelArgs { model: model.unwrap_or_else(|| self.args.model.clone()), adapter, ..self.args.clone() };
        // Before the memory of the other one is given back.
        ModelFiles::open_scaled(&args.model, args.adapter.as_deref(), args.rope_scaling)?.tokenizer()?;
        self.conversation = Conversation::default();
        self.open = None;
        let before = std::mem::replace(&mut self.args, args);
        if let Err(e) = self.opened() {
            self.args = before;
            return Err(e);
        }
        Ok(())
    }

    /// Forgets the text that was read.
    pub fn forget(&mut self) {
        self.conversation = Conversation::default();
    }

    /// Answers, with its progress passed to `watch`.
    pub fn answer(&mut self, ask: &Ask<'_>, watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> Result<Answer> {
        let max_positions = self.max_positions()?;
        let (Opened { files, device, loaded }, conversation) = self.opened()?;
        let reply = Reply {
            prompt: ask.prompt,
            question_start: Some(ask.question_start),
            attention: ask.attention,
            sampling: ask.sampling,
            max_tokens: ask.max_tokens,
            chunk: CHUNK,
            add_special: files.template.is_none(),
            stop: files.stop.ids(),
            stop_texts: &files.generation.stop_texts,
            seed: ask.seed,
            max_positions,
        };
        let answer = conversation.answer(&mut **device, &mut loaded.model, files.tokenizer()?, &reply, watch);
        let answer = match answer {
            Err(e) if e.kind() == ErrorKind::Usage => {
                let n = files.tokenizer()?.encode(ask.prompt, files.template.is_none())?.len();
                if n < max_positions {
                    return Err(e);
                }
                let advice = self.length_advice(n.saturating_add(ask.max_tokens))?;
                return Err(Error::usage(format!("{e}; or {advice}")));
            }
            answer => answer,
        };
        self.closed_if_lost(answer)
    }

    /// Closes the model after the loss of its device, which had the text that was read.
    fn closed_if_lost<T>(&mut self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|e| e.kind() == ErrorKind::DeviceLost) {
            (self.open, self.conversation) = (None, Conversation::default());
        }
        result
    }

    /// The cache as it is; `None` if nothing was read.
    pub fn cache_size(&self) -> Option<CacheSize> {
        let (opened, cache) = (self.open.as_ref()?, self.conversation.cache()?);
        let config = opened.files.config();
        let n_tokens = cache.n_tokens();
        let dense = |layer| LayerAttention::new(Attention::Dense, config.window(layer)).cache_length(n_tokens);
        let entries: usize = (0..config.n_layers()).map(dense).sum();
        let dense_bytes = (entries * 2 * config.n_kv_heads * config.head_dim * 4) as u64;
        Some(CacheSize { n_tokens, entries: cache.n_entries(), bytes: cache.n_bytes(), dense_bytes })
    }

    /// Tokens of the text that was read and said.
    pub fn n_tokens(&self) -> usize {
        self.conversation.ids().len()
    }

    /// The tokens that the cache kept. `watch` hears how many tokens have been read, and of how
    /// many; `None` if it stops the work.
    pub fn kept(&mut self, watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> Result<Option<KeptMap>> {
        let (Opened { files, device, loaded }, conversation) = self.opened()?;
        let lrsa = match conversation.attention() {
            Some(Attention::Lrsa(lrsa)) => lrsa,
            Some(Attention::Dense) => {
                return Err(Error::usage(
                    "the last answer used the dense cache, which keeps every token: set /attention 4x and ask again",
                ));
            }
            None => return Err(Error::usage("nothing was read yet: ask a question first")),
        };
        let ids = conversation.ids().to_vec();
        let (tokenizer, mut watch) = (files.tokenizer()?, |done| watch(done, ids.len()));
        let map =
            kept_map_in_chunks(&mut **device, &mut loaded.model, tokenizer, &ids, lrsa, WATCHED_CHUNK, &mut watch);
        let map = map.context("finding the tokens that the cache kept");
        self.closed_if_lost(map)
    }

    /// Model and adapter with their fingerprints.
    pub fn identity(&mut self) -> Result<Identity> {
        let args = self.args.clone();
        let files = self.files()?;
        Ok(Identity {
            model: args.model,
            weights: files.base_record()?.map(|record| record.fingerprint),
            adapter: args.adapter,
            adapter_weights: files.adapter.as_ref().map(adapter_fingerprint),
            rope_scaling: files.rope_scaling(),
        })
    }

    /// The text that was read, with its cache.
    pub fn save(&mut self) -> Result<Option<SavedConversation>> {
        let (Opened { device, .. }, conversation) = self.opened()?;
        let saved = conversation.save(&mut **device);
        self.closed_if_lost(saved)
    }

    /// Continues a saved text.
    pub fn restore(&mut self, saved: SavedConversation) -> Result<()> {
        let max_positions = self.max_positions()?;
        let (Opened { device, loaded, .. }, conversation) = self.opened()?;
        let restored = conversation.restore(&mut **device, &mut loaded.model, saved, max_positions);
        self.closed_if_lost(restored)
    }
}
