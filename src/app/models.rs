//! State of the models page: the models and adapters on this machine, and which of them fit the device.

use std::path::{Path, PathBuf};

use super::downloads::{Download, DownloadEvent, Offer};
use super::labels::{BUNDLED, name_of};
use crate::checkpoint::hub::is_id;
use crate::checkpoint::hub_survey::Survey;
use crate::checkpoint::model_facts::ModelFacts;
use crate::checkpoint::record::AttentionRecord;

/// What a thread is to find out for the page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScanJob {
    /// The models that were opened.
    pub models: Vec<String>,
    /// The adapters that were opened.
    pub adapters: Vec<String>,
    /// The folder of the last training run; its siblings count as earlier runs.
    pub out: String,
}

/// A request to the threads behind the page.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// List the models again. Replaces a list in the making.
    Scan(ScanJob),
    /// Find out whether a model is on this machine, else what its download would bring.
    Look(String),
    /// Download a model. The number distinguishes the reports of this download from others.
    Download { id: u64, survey: Box<Survey> },
    /// End the download. What has come stays in the cache.
    EndDownload,
}

/// An action of the user about models.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelAction {
    /// List the models again.
    Scan,
    /// Open a model, with an adapter.
    Open(String, Option<PathBuf>),
    /// Open the path or hub id in the field.
    OpenTyped,
    /// Choose a model for fine-tuning.
    Train(String),
    /// Remove a model from the list.
    Forget(String),
    /// Look up a model by its hub id.
    Look(String),
    /// Start the download that is offered.
    Download,
    DropOffer,
    /// Pause the download, or continue it.
    PauseDownload(bool),
    StopDownload,
}

/// What the threads behind the page report.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelEvent {
    /// The models there are, before their files are read.
    Listed(Vec<Listed>),
    /// What the files of a model say.
    Read(String, EntryState),
    Adapters(Vec<AdapterEntry>),
    /// The model is on this machine.
    Here(String),
    /// What the hub says about a model that is not, or why it says nothing.
    Surveyed(String, Result<Survey, String>),
    /// Of the download with this number.
    Downloading(u64, DownloadEvent),
    /// The list is whole. The bytes are the memory that the host has left, where the system tells.
    Scanned {
        host_bytes: Option<u64>,
    },
}

/// Why a model is in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Bundled,
    /// It is in the hub's cache.
    Cache,
    /// It was opened before.
    Opened,
}

/// A model in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The name that opens it; empty for the bundled model.
    pub model: String,
    pub origin: Origin,
    /// Its path, if it has one.
    pub place: Option<PathBuf>,
    /// When its files were last written, in seconds since 1970.
    pub changed: Option<u64>,
}

/// What is known of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum EntryState {
    /// Its files are still to be read.
    #[default]
    Reading,
    Known(Box<Known>),
    /// Why its files cannot be read.
    Unreadable(String),
    /// It is to be downloaded: all of it, or the rest.
    Absent {
        is_partial: bool,
    },
}

/// The facts about a model whose files could be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub facts: ModelFacts,
    /// Bytes of its files.
    pub disk_bytes: u64,
}

/// A model of the list with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub listed: Listed,
    pub state: EntryState,
}

impl Entry {
    /// The name for display: the hub id, or the name of the file or folder.
    pub fn name(&self) -> String {
        let Listed { model, origin, place, .. } = &self.listed;
        match origin {
            Origin::Bundled => BUNDLED.to_string(),
            Origin::Cache => model.clone(),
            Origin::Opened if place.is_none() && is_id(model) => model.clone(),
            Origin::Opened => name_of(Path::new(model)),
        }
    }

    /// Where the model is, in words.
    pub fn place(&self) -> String {
        let Listed { model, origin, place, .. } = &self.listed;
        match (origin, place) {
            (Origin::Bundled, _) => "part of the program".to_string(),
            (_, Some(place)) => place.display().to_string(),
            (_, None) if is_id(model) => "not on this machine".to_string(),
            (_, None) => model.clone(),
        }
    }

    /// The facts, if the files could be read.
    pub fn facts(&self) -> Option<&ModelFacts> {
        if let EntryState::Known(known) = &self.state { Some(&known.facts) } else { None }
    }

    /// Whether the model can be fine-tuned: text needs a tokenizer.
    pub fn can_train(&self) -> bool {
        self.facts().is_some_and(|facts| facts.has_tokenizer)
    }

    /// Whether a search finds this model: each of its words is in its name, place, family or types.
    pub fn is_found_by(&self, search: &str) -> bool {
        let facts = self.facts().map_or_else(String::new, |f| format!("{} {}", f.family(), f.type_names()));
        let text = format!("{} {} {facts}", self.name(), self.place()).to_lowercase();
        search.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

/// A LoRA adapter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterEntry {
    pub path: PathBuf,
    /// The base model that its files name.
    pub base: Option<String>,
    /// The models of the list that it belongs to.
    pub models: Vec<String>,
    pub rank: Option<usize>,
    /// The attention that it was trained with.
    pub attention: Option<AttentionRecord>,
    /// The loss curve of its run, thinned out: step and loss.
    pub losses: Vec<[f64; 2]>,
    pub changed: Option<u64>,
    /// Why its files cannot be read.
    pub problem: Option<String>,
}

impl AdapterEntry {
    /// The name of its folder.
    pub fn name(&self) -> String {
        name_of(&self.path)
    }

    /// Its rank and attention in words.
    pub fn settings(&self) -> String {
        let rank = self.rank.map(|rank| format!("rank {rank}"));
        let attention = self.attention.as_ref().map(|attention| match attention {
            AttentionRecord::Dense => "dense attention".to_string(),
            AttentionRecord::Lrsa { sink, lag, keep } => {
                let keep = format!("{keep:.3}");
                format!("sink {sink}, lag {lag}, keep {}", keep.trim_end_matches('0').trim_end_matches('.'))
            }
        });
        rank.into_iter().chain(attention).collect::<Vec<_>>().join(", ")
    }
}

/// The memory that a model takes, beside what the device has.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    pub weight_bytes: u64,
    pub cache_bytes: u64,
    /// Tokens in the cache.
    pub n_tokens: usize,
    pub device: String,
    /// Memory of the device, if it is known.
    pub device_bytes: Option<u64>,
}

impl Fit {
    /// Whether weights and cache fit the device. `None` if its memory is not known.
    pub fn fits(&self) -> Option<bool> {
        self.device_bytes.map(|have| self.weight_bytes.saturating_add(self.cache_bytes) <= have)
    }
}

/// State of the models page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Models {
    /// Text of the search field.
    pub search: String,
    /// Path or hub id that is typed.
    pub field: String,
    pub entries: Vec<Entry>,
    pub adapters: Vec<AdapterEntry>,
    /// Whether the list is still being made.
    pub is_scanning: bool,
    /// Memory that the host has left.
    pub host_bytes: Option<u64>,
    /// A model that is not on this machine.
    pub offer: Option<Offer>,
    pub download: Option<Download>,
    /// Downloads that were started or continued so far.
    pub n_downloads: u64,
}

impl Models {
    /// Takes a new list. What is known of a model stays until its files are read again.
    pub fn list(&mut self, listed: Vec<Listed>) {
        let mut before = std::mem::take(&mut self.entries);
        self.entries = listed
            .into_iter()
            .map(|listed| {
                let old = before.iter_mut().find(|old| old.listed.model == listed.model);
                Entry { state: old.map(|old| std::mem::take(&mut old.state)).unwrap_or_default(), listed }
            })
            .collect();
    }

    /// Whether a model of the list is to be downloaded.
    pub fn is_absent(&self, model: &str) -> bool {
        let is_absent = |entry: &Entry| matches!(entry.state, EntryState::Absent { .. });
        self.entries.iter().any(|entry| entry.listed.model == model && is_absent(entry))
    }

    /// The adapters of a model, newest first.
    pub fn adapters_of(&self, model: &str) -> Vec<&AdapterEntry> {
        newest_first(self.adapters.iter().filter(|adapter| adapter.models.iter().any(|m| m == model)))
    }

    /// The adapters whose base is not in the list, newest first.
    pub fn lone_adapters(&self) -> Vec<&AdapterEntry> {
        newest_first(self.adapters.iter().filter(|adapter| adapter.models.is_empty()))
    }
}

fn newest_first<'a>(adapters: impl Iterator<Item = &'a AdapterEntry>) -> Vec<&'a AdapterEntry> {
    let mut adapters: Vec<&AdapterEntry> = adapters.collect();
    adapters.sort_by_key(|adapter| std::cmp::Reverse(adapter.changed));
    adapters
}
