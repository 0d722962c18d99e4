//! All files of a model: weights, tokenizer, chat template, stop tokens, adapter and recorded
//! attention.
//!
//! The command line, the app and the library all open models here.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::attention::Attention;
use crate::checkpoint::adapter_file::{Adapter, read_adapter};
use crate::checkpoint::adapter_gguf::{is_gguf, read_gguf_adapter};
use crate::checkpoint::fingerprint::fingerprint;
use crate::checkpoint::generation_config::GenerationConfig;
use crate::checkpoint::record::{BaseRecord, Record};
use crate::checkpoint::rope_override::RopeOverride;
use crate::checkpoint::weights::WeightSource;
use crate::checkpoint::{bundled, hub};
use crate::error::{Error, Result};
use crate::formats::gguf::Metadata;
use crate::model::config::ModelConfig;
use crate::text::chat_template::{ChatTemplate, Conversation, Message};
use crate::text::stop::StopTokens;
use crate::text::tokenizer::Tokenizer;

/// A model's files, opened and checked.
pub struct ModelFiles {
    /// The model as it was named.
    name: String,
    /// Weights and configuration.
    pub source: WeightSource,
    /// The tokenizer, or the reason why there is none. Token ids work without one.
    tokenizer: std::result::Result<Arc<Tokenizer>, String>,
    /// The chat template, if the model has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a generation.
    pub stop: StopTokens,
    /// The sampling that the files recommend.
    pub generation: GenerationConfig,
    /// The adapter.
    pub adapter: Option<Adapter>,
    /// The attention recorded in the `longreach.json` of the adapter, or of the model if there is
    /// no adapter.
    pub recorded: Option<Attention>,
    /// The RoPE scaling in place of the model's own: the one asked for, or the one that the adapter's
    /// record names.
    rope_scaling: Option<RopeOverride>,
    /// Whether the adapter's record names the scaling.
    has_recorded_scaling: bool,
    /// The base model that the adapter's record names.
    base: Option<BaseRecord>,
    /// A sentence about an adapter that was trained on other weights.
    other_base: Option<String>,
}

/// An adapter beside the one that a model was opened with.
pub struct OtherAdapter {
    /// The adapter.
    pub adapter: Adapter,
    /// The attention that its record names.
    pub recorded: Option<Attention>,
    /// What a user should know about it.
    pub note: Option<String>,
}

/// Opens the configuration and weights of a model alone: a folder, a GGUF file, a hub id, or the
/// bundled model by its name.
pub fn open_weights(model: &str) -> Result<WeightSource> {
    if bundled::is_named(model) { bundled::stories() } else { WeightSource::open(&hub::resolve(model)?) }
}

/// The parts of a model's files that concern text.
struct TextFiles {
    tokenizer: std::result::Result<Tokenizer, String>,
    template: Option<ChatTemplate>,
    stop: StopTokens,
    generation: GenerationConfig,
}

impl TextFiles {
    /// Reads the files of the model at `path`.
    fn read(path: &Path, source: &WeightSource) -> Result<Self> {
        let (tokenizer, template, stop, generation) = match (source.gguf_metadata(), source.dir()) {
            (Some(metadata), _) => {
                let tokenizer = match has_vocabulary(metadata) {
                    true => Tokenizer::from_gguf(metadata).map_err(|e| e.to_string()),
                    false => Err(format!("{} has no tokenizer", path.display())),
                };
                let stop = StopTokens::from_gguf(metadata, tokenizer.as_ref().ok())?;
                let template = if tokenizer.is_ok() { ChatTemplate::from_gguf(metadata)? } else { None };
                (tokenizer, template, stop, GenerationConfig::from_gguf(metadata))
            }
            (None, dir) => {
                let dir = dir.unwrap_or(path);
                let tokenizer = if has_tokenizer(dir) {
                    Ok(Tokenizer::from_dir(dir)?)
                } else {
                    Err(format!("{} has no tokenizer.json", dir.display()))
                };
                // The configuration has the defaults of the family, and those of a text part.
                let stop = StopTokens::from_dir(dir, tokenizer.as_ref().ok())?.or(&source.config().eos);
                (tokenizer, ChatTemplate::from_dir(dir)?, stop, GenerationConfig::from_dir(dir)?)
            }
        };
        Ok(Self { tokenizer, template, stop, generation })
    }

    /// Those of the bundled model.
    fn bundled() -> Result<Self> {
        let tokenizer = Tokenizer::from_json_bytes(bundled::TOKENIZER)?;
        let stop = StopTokens::of_config(bundled::CONFIG, Some(&tokenizer))?;
        Ok(Self { tokenizer: Ok(tokenizer), template: None, stop, generation: GenerationConfig::default() })
    }
}

/// An adapter, and what its folder or the model's records.
struct AdapterFiles {
    adapter: Option<Adapter>,
    recorded: Option<Attention>,
    rope_scaling: Option<RopeOverride>,
    base: Option<BaseRecord>,
}

impl AdapterFiles {
    /// Reads the adapter at a path or of a hub id, for the model of `source`.
    fn read(adapter: Option<&Path>, source: &WeightSource) -> Result<Self> {
        let config = source.config();
        let path = adapter.map(hub::resolve_adapter).transpose()?;
        let (adapter, record) = match (path.as_deref(), source.gguf_metadata()) {
            (Some(file), _) if is_gguf(file) => {
                let (adapter, metadata) = read_gguf_adapter(file, config)?;
                (Some(adapter), Record::read_gguf(&metadata)?)
            }
            (Some(dir), _) => (Some(read_adapter(dir, config)?), Record::read(dir)?),
            (None, Some(metadata)) => (None, Record::read_gguf(metadata)?),
            (None, None) => (None, source.dir().map(Record::read).transpose()?.flatten()),
        };
        let recorded = record.as_ref().map(|r| r.attention.attention()).transpose()?;
        let rope_scaling = record.as_ref().and_then(|record| record.rope_scaling);
        let base = record.and_then(|record| record.base).filter(|_| adapter.is_some());
        Ok(Self { adapter, recorded, rope_scaling, base })
    }

    /// The scaling to use where `asked` is asked for. Fails if the record names another one.
    fn scaling(&self, asked: Option<RopeOverride>) -> Result<Option<RopeOverride>> {
        match (self.rope_scaling, asked) {
            (Some(recorded), Some(asked)) if recorded != asked => Err(Error::usage(format!(
                "the adapter was trained with `rope_scaling` {recorded}, not with {asked}: leave `rope_scaling` out, or \
                 give {recorded}"
            ))),
            (recorded, asked) => Ok(recorded.or(asked)),
        }
    }

    /// A sentence about a base model whose weights are not those of `source`, the model `name`.
    fn other_base(&self, name: &str, source: &WeightSource) -> Result<Option<String>> {
        let Some(base) = &self.base else { return Ok(None) };
        let differs = fingerprint(source)?.is_some_and(|own| own != base.fingerprint);
        Ok(differs.then(|| {
            format!(
                "the adapter was trained on the weights of {}, and {name} holds other ones: it works on a conversion or a \
                 quantisation of the same model, and not on another model",
                base.model
            )
        }))
    }
}

impl ModelFiles {
    /// Opens `model` (a folder, a GGUF file, a hub id, or `stories260k`, the bundled one) and the
    /// adapter (a folder, a GGUF file or a hub id).
    pub fn open(model: &str, adapter: Option<&Path>) -> Result<Self> {
        Self::open_scaled(model, adapter, None)
    }

    /// [`ModelFiles::open`], with a RoPE scaling in place of the model's own. Without one, that in the
    /// adapter's record counts.
    ///
    /// Fails if the adapter was trained with another scaling, or if this one cannot replace the
    /// model's own.
    pub fn open_scaled(model: &str, adapter: Option<&Path>, scaling: Option<RopeOverride>) -> Result<Self> {
        Self::open_beside(model, adapter, scaling, |_, _| Ok(())).map(|(files, ())| files)
    }

    /// [`ModelFiles::open_scaled`], which runs `work` with the weights and the adapter while another thread
    /// builds the tokenizer: on a device that loads a model quickly, that takes as long as the weights.
    pub fn open_beside<R>(
        model: &str,
        adapter: Option<&Path>,
        scaling: Option<RopeOverride>,
        work: impl FnOnce(&WeightSource, Option<&Adapter>) -> Result<R>,
    ) -> Result<(Self, R)> {
        if bundled::is_named(model) {
            let base = (bundled::NAME, bundled::stories()?);
            return Self::with(base, adapter, scaling, |_| TextFiles::bundled(), work);
        }
        let path = hub::resolve(model)?;
        let base = (model, WeightSource::open(&path)?);
        Self::with(base, adapter, scaling, |source| TextFiles::read(&path, source), work)
    }

    /// The bundled model, with an adapter.
    pub fn bundled(adapter: Option<&Path>) -> Result<Self> {
        Self::bundled_scaled(adapter, None)
    }

    /// [`ModelFiles::bundled`], with a RoPE scaling as [`ModelFiles::open_scaled`] takes it.
    pub fn bundled_scaled(adapter: Option<&Path>, scaling: Option<RopeOverride>) -> Result<Self> {
        let base = (bundled::NAME, bundled::stories()?);
        Self::with(base, adapter, scaling, |_| TextFiles::bundled(), |_, _| Ok(())).map(|(files, ())| files)
    }

    /// The files of a named model: those about text come from `text`, which runs beside `work`.
    fn with<R>(
        (name, mut source): (&str, WeightSource),
        adapter: Option<&Path>,
        scaling: Option<RopeOverride>,
        text: impl FnOnce(&WeightSource) -> Result<TextFiles> + Send,
        work: impl FnOnce(&WeightSource, Option<&Adapter>) -> Result<R>,
    ) -> Result<(Self, R)> {
        let adapted = AdapterFiles::read(adapter, &source)?;
        let other_base = adapted.other_base(name, &source)?;
        let rope_scaling = adapted.scaling(scaling)?;
        if let Some(scaling) = rope_scaling {
            source.rescale(scaling)?;
        }
        let has_recorded_scaling = adapted.rope_scaling.is_some();
        let AdapterFiles { adapter, recorded, base, .. } = adapted;
        let (text, done) = thread::scope(|scope| {
            let text = scope.spawn(|| text(&source));
            let done = work(&source, adapter.as_ref());
            (text.join().unwrap_or_else(|panic| resume_unwind(panic)), done)
        });
        let TextFiles { tokenizer, template, stop, generation } = text?;
        let name = name.to_string();
        let tokenizer = tokenizer.map(Arc::new);
        let files = Self {
            name,
            source,
            tokenizer,
            template,
            stop,
            generation,
            adapter,
            recorded,
            rope_scaling,
            has_recorded_scaling,
            base,
            other_base,
        };
        Ok((files, done?))
    }

    /// Reads another adapter of this model, from a folder, a GGUF file or a hub id. Fails if it was
    /// trained with another RoPE scaling than the one with which the model was opened.
    pub fn other_adapter(&self, adapter: &Path) -> Result<OtherAdapter> {
        let read = AdapterFiles::read(Some(adapter), &self.source)?;
        if let Some(recorded) = read.rope_scaling.filter(|recorded| Some(*recorded) != self.rope_scaling) {
            let opened = self.rope_scaling.map_or("without it".to_string(), |scaling| format!("with {scaling}"));
            return Err(Error::usage(format!(
                "it was trained with `rope_scaling` {recorded}, and the model is opened {opened}: give `rope_scaling` \
                 {recorded}"
            )));
        }
        let note = read.other_base(&self.name, &self.source)?;
        let AdapterFiles { adapter: Some(adapter), recorded, .. } = read else {
            crate::bail!("{} holds no adapter", adapter.display());
        };
        Ok(OtherAdapter { adapter, recorded, note })
    }

    /// The base of the opened adapter: what its record says, else this model.
    pub fn adapter_base(&self) -> Result<Option<BaseRecord>> {
        if self.base.is_some() { Ok(self.base.clone()) } else { self.base_record() }
    }

    /// The record of this model as the base of an adapter. `None` for random weights.
    pub fn base_record(&self) -> Result<Option<BaseRecord>> {
        let record = |fingerprint| BaseRecord { model: self.name.clone(), fingerprint };
        Ok(fingerprint(&self.source)?.map(record))
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        self.source.config()
    }

    /// The RoPE scaling in place of the model's own: the one asked for, or the one that the adapter's
    /// record names.
    pub fn rope_scaling(&self) -> Option<RopeOverride> {
        self.rope_scaling
    }

    /// The RoPE scaling with which the model would take `n_tokens`, if it takes fewer and may be opened
    /// with another scaling.
    pub fn advised_scaling(&self, n_tokens: usize) -> Option<RopeOverride> {
        RopeOverride::advised(self.config(), n_tokens).filter(|_| !self.has_recorded_scaling)
    }

    /// What to do about a text of `n_tokens`, more than are allowed, in a message: a clause in the
    /// imperative. `is_own` says whether the limit is the model's, rather than one that was given.
    pub fn length_advice(&self, n_tokens: usize, is_own: bool) -> String {
        let positions = self.config().max_positions;
        let beyond = format!("output beyond the model's {positions} positions is usually useless");
        match (self.advised_scaling(n_tokens), is_own) {
            (Some(scaling), true) => format!(
                "stretch RoPE with `rope_scaling` {scaling}, or only lift the limit with `max_positions` {n_tokens} (RoPE \
                 stays unchanged then, and {beyond})"
            ),
            (Some(scaling), false) => format!(
                "give `max_positions` {n_tokens} with `rope_scaling` {scaling} (without it RoPE stays unchanged, and \
                 {beyond})"
            ),
            (None, _) if n_tokens > positions => {
                format!("lift the limit with `max_positions` {n_tokens} (RoPE stays unchanged, and {beyond})")
            }
            (None, _) => format!("lift the limit with `max_positions` {n_tokens}"),
        }
    }

    /// A note on a text of `n_tokens` that `max_positions` allows; `None` if the model takes it.
    pub fn length_note(&self, n_tokens: usize) -> Option<String> {
        let positions = self.config().max_positions;
        let stretched = self.advised_scaling(n_tokens);
        let stretched = stretched.map_or(String::new(), |scaling| format!("; `rope_scaling` {scaling} stretches it"));
        (n_tokens > positions).then(|| {
            format!(
                "{n_tokens} tokens lie beyond the {positions} positions that the model was made for: `max_positions` lifts the \
                 limit and leaves RoPE unchanged, and output beyond them is usually useless{stretched}"
            )
        })
    }

    /// What a user should know about the files.
    pub fn notes(&self) -> Vec<String> {
        self.source.notes().into_iter().chain(self.other_base.clone()).collect()
    }

    /// The tokenizer. Fails if the model has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let why =
            |why: &String| Error::new(format!("{why}: text needs a tokenizer; token ids (`ids`) work without one"));
        self.tokenizer.as_deref().map_err(why)
    }

    /// The tokenizer for another thread, if the model has one.
    pub fn shared_tokenizer(&self) -> Option<Arc<Tokenizer>> {
        self.tokenizer.as_ref().ok().cloned()
    }

    /// Token ids of a prompt. If `chat` is set and the model has a chat template, the prompt
    /// becomes a user message.
    pub fn prompt_ids(&self, text: &str, chat: bool) -> Result<Vec<u32>> {
        if chat && self.template.is_some() {
            return self.chat_ids(&vec![Message::new("user", text)].into());
        }
        self.checked(self.tokenizer()?.encode_prompt(text)?)
    }

    /// Token ids of a conversation up to the start of the next answer. Fails if the model has no
    /// chat template.
    pub fn chat_ids(&self, conversation: &Conversation) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        let Some(template) = &self.template else {
            return Err(Error::usage("the model has no chat template, so it can only continue plain text"));
        };
        let turn = template.render(conversation, true)?;
        self.checked(tokenizer.encode(&turn, false)?) // the template has already added BOS
    }

    /// Rejects an empty list, and ids that the model does not know.
    fn checked(&self, ids: Vec<u32>) -> Result<Vec<u32>> {
        let vocab = self.config().vocab;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            crate::bail!(
                "the tokenizer does not belong to this model: it produced token id {id}, but the model's vocabulary has {vocab} tokens"
            );
        }
        if ids.is_empty() {
            return Err(Error::usage("the prompt has no tokens: the tokenizer drops all of its text"));
        }
        Ok(ids)
    }
}

/// Whether a GGUF file has a vocabulary. llama.cpp writes "no_vocab" or "none" where there is none.
pub(super) fn has_vocabulary(metadata: &Metadata) -> bool {
    let key = "tokenizer.ggml.model";
    metadata.contains(key) && !matches!(metadata.str(key), Ok("no_vocab" | "none"))
}

/// Whether a model folder has a tokenizer.
pub(super) fn has_tokenizer(dir: &Path) -> bool {
    ["tokenizer.json", "tokenizer.model"].iter().any(|f| dir.join(f).is_file())
}
