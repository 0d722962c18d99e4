//! Model and adapter lookup: an existing path, or a Hugging Face repo id that is downloaded to the
//! shared cache.
//!
//! Ids have the formats `org/name`, `org/name@revision` and, for models, `org/name:FILE.gguf`. The cache is that
//! of huggingface_hub (`hub_env.rs` says where, `hub_cache.rs` what is in it), and cached files are
//! not requested again. All files of a model come from one commit. This file decides which files
//! count; the only one that it reads is the index of a sharded model.

use super::bundled::{NAME as BUNDLED, is_named as is_bundled};
use super::hub_cache::{RepoCache, is_name, is_relative};
use super::hub_client::{Client, Failure, Fetch, refused};
pub use super::hub_client::{Limits, Step, Watch};
use super::hub_download::Download;
use super::hub_env::Variables;
use crate::error::{Context, Error, Result};
use crate::small_file;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How long a download lasts before its first plain line, and between the later ones.
const FIRST_LINE: Duration = Duration::from_secs(5);
const LATER_LINES: Duration = Duration::from_secs(20);

/// The files of a kind of repository.
pub(super) struct Kind {
    /// Its name in messages.
    what: &'static str,
    pub config: &'static str,
    pub weights: &'static str,
    /// Names the parts of weights in several files.
    pub index: Option<&'static str>,
    /// Files to download if they exist. Weights come last, so a snapshot with weights is complete.
    pub optional: &'static [&'static str],
    pub no_config: &'static str,
    pub no_weights: &'static str,
}

pub(super) const MODEL: Kind = Kind {
    what: "model",
    config: "config.json",
    weights: "model.safetensors",
    index: Some("model.safetensors.index.json"),
    optional: &[
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "longreach.json",
    ],
    no_config: "the repository has no config.json, or there is no such model (did you mean a local path?); if it has GGUF \
                files, name one: org/name:FILE.gguf",
    no_weights: "the repository has neither model.safetensors nor model.safetensors.index.json; other formats are not \
                 supported",
};

const ADAPTER: Kind = Kind {
    what: "adapter",
    config: "adapter_config.json",
    weights: "adapter_model.safetensors",
    index: None,
    optional: &["longreach.json"],
    no_config: "the repository has no adapter_config.json, or there is no such adapter (did you mean a local path?); a \
                fully trained model is given as `model`",
    no_weights: "the repository has no adapter_model.safetensors; an adapter_model.bin is not supported: load it with PEFT \
                 and save it again",
};

/// Resolves the name of a model to a directory or file.
///
/// An existing path is returned unchanged, and `~/` stands for the home folder. Otherwise the name
/// must be a repo id, and the result is its snapshot folder in the cache or its GGUF file. Any
/// other name is a usage error.
pub fn resolve(spec: &str) -> Result<PathBuf> {
    match meant(spec)? {
        Meant::Path(path) => Ok(path),
        Meant::Id(name) => Hub::from_env()?.fetch(&name).map_err(|e| name.explained(e, spec)),
    }
}

/// Whether a text has the form of a repo id, with an optional revision, GGUF file or quantisation.
pub fn is_id(spec: &str) -> bool {
    Name::parse(spec.split_once(':').map_or(spec, |(head, _)| head)).is_some()
}

/// Whether the weights of a model are neither at a path nor in the cache. Empty names and those of the
/// bundled model need no download. Fails for what is neither a path nor an id.
pub fn needs_download(spec: &str) -> Result<bool> {
    if spec.is_empty() || is_bundled(spec) {
        return Ok(false);
    }
    match meant(spec) {
        Ok(Meant::Path(_)) => Ok(false),
        Ok(Meant::Id(name)) => Ok(Hub::from_env()?.find(&name).is_none()),
        Err(_) if is_id(spec) => Ok(true),
        Err(e) => Err(e),
    }
}

/// What the name of a model means.
enum Meant {
    Path(PathBuf),
    Id(Name),
}

fn meant(spec: &str) -> Result<Meant> {
    if Path::new(spec).exists() {
        return Ok(Meant::Path(PathBuf::from(spec)));
    }
    if let (Some(rest), Some(home)) = (spec.strip_prefix("~/"), std::env::home_dir()) {
        return Ok(Meant::Path(home.join(rest)));
    }
    Name::parse(spec).map(Meant::Id).ok_or_else(|| {
        Error::usage(format!(
            "'{spec}' is neither an existing path nor a model id (org/name, org/name@revision or org/name:FILE.gguf), nor \
             {BUNDLED}, the bundled model"
        ))
    })
}

/// Resolves the name of an adapter to a folder: an existing path as it is, and an id such as
/// `org/name` or `org/name@revision` to its snapshot folder in the cache. Any other path is returned
/// unchanged, and reading it fails.
pub fn resolve_adapter(path: &Path) -> Result<PathBuf> {
    let name = path.to_str().and_then(Name::parse).filter(|name| name.file.is_none());
    match name {
        Some(name) if !path.exists() => {
            Hub::from_env()?.fetch_adapter(&name).map_err(|e| name.explained(e, &path.display().to_string()))
        }
        _ => Ok(path.to_path_buf()),
    }
}

/// A parsed repo id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub(super) id: String,
    pub(super) revision: String,
    file: Option<String>,
}

impl Name {
    /// Parses `org/name[@revision][:FILE.gguf]`. `None` if the text does not have this format.
    pub fn parse(spec: &str) -> Option<Self> {
        let (head, file) = spec.split_once(':').map_or((spec, None), |(head, file)| (head, Some(file)));
        let (id, revision) = head.split_once('@').unwrap_or((head, "main"));
        let (org, name) = id.split_once('/')?;
        let valid = is_name(org)
            && is_name(name)
            && is_relative(revision)
            && file.is_none_or(|file| is_relative(file) && file.to_ascii_lowercase().ends_with(".gguf"));
        valid.then(|| Self { id: id.to_owned(), revision: revision.to_owned(), file: file.map(str::to_owned) })
    }
}

/// A hub endpoint and its local cache.
#[derive(Clone, Debug)]
pub struct Hub {
    pub endpoint: String,
    /// The folder with the `models--org--name` folders.
    pub cache: PathBuf,
    pub token: Option<String>,
    /// Use only the cache.
    pub offline: bool,
    /// Show a progress bar on stderr if it is a terminal.
    pub progress: bool,
    pub limits: Limits,
}

impl Hub {
    /// The hub from the environment variables. By default huggingface.co, with the cache in the
    /// home directory.
    pub fn from_env() -> Result<Self> {
        let get = |name: &str| std::env::var(name).ok();
        let variables = Variables { get: &get, home: std::env::home_dir() };
        Ok(Self {
            endpoint: variables.endpoint()?,
            token: variables.token(),
            cache: variables.cache()?,
            offline: variables.is_offline(),
            progress: true,
            limits: Limits::default(),
        })
    }

    /// The snapshot folder of a model or its GGUF file. Downloads missing files.
    ///
    /// If the hub cannot give the rest, a snapshot in the cache with the weights is enough.
    pub fn fetch(&self, name: &Name) -> Result<PathBuf> {
        self.fetch_kind(name, &MODEL, None)
    }

    /// [`Hub::fetch`], which tells `watch` of every step. If `watch` breaks, the download ends with an
    /// error of kind [`Interrupted`](crate::ErrorKind::Interrupted), and a later one continues there.
    pub fn fetch_watched(&self, name: &Name, watch: Watch<'_>) -> Result<PathBuf> {
        self.fetch_kind(name, &MODEL, Some(watch))
    }

    /// The snapshot folder of an adapter, in the same way.
    pub fn fetch_adapter(&self, name: &Name) -> Result<PathBuf> {
        self.fetch_kind(name, &ADAPTER, None)
    }

    /// The snapshot folder of a model or its GGUF file, if its weights are in the cache.
    pub fn find(&self, name: &Name) -> Option<PathBuf> {
        self.cached(name, &RepoCache::new(&self.cache, &name.id), &MODEL).map(|cached| cached.path)
    }

    fn fetch_kind(&self, name: &Name, kind: &Kind, watch: Option<Watch<'_>>) -> Result<PathBuf> {
        let repo = RepoCache::new(&self.cache, &name.id);
        let cached = self.cached(name, &repo, kind);
        if self.offline {
            return cached.map(|cached| cached.path).ok_or_else(|| self.is_offline(name));
        }
        if let Some(cached) = cached.as_ref().filter(|cached| cached.is_whole) {
            return Ok(cached.path.clone());
        }
        let bar = self.bar();
        let _plain = self.say_progress(&bar);
        let limits = match cached {
            Some(_) => Limits { tries: 1, ..self.limits },
            None => self.limits,
        };
        let mut client = Client::new(&self.endpoint, self.token.as_deref(), limits, bar.clone());
        client.watch = watch;
        let download = Download { client: &client, repo: &repo, id: &name.id };
        let got = match (&cached, &name.file) {
            (Some(cached), _) => fetch_optional(&download, &cached.commit, kind).map(|()| cached.path.clone()),
            (None, Some(file)) => fetch_gguf(&download, &name.revision, file),
            (None, None) => fetch_folder(&download, &name.revision, kind),
        };
        bar.finish_and_clear();
        match (got, cached) {
            (Ok(path), _) => Ok(path),
            (Err(_), Some(cached)) => Ok(cached.path),
            (Err(Failure::Unreachable(e) | Failure::Refused(e)), None) => {
                Err(e.context(format!("downloading the {} '{}' from {}", kind.what, name.id, self.endpoint)))
            }
        }
    }

    /// Why a model that is not in the cache cannot be had.
    pub(super) fn is_offline(&self, name: &Name) -> Error {
        let (id, cache) = (&name.id, self.cache.display());
        Error::new(format!("'{id}' is not in the cache {cache}, and HF_HUB_OFFLINE forbids downloading it"))
    }

    fn bar(&self) -> ProgressBar {
        if !self.progress || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{spinner} {bytes}/{total_bytes} {bar:24} {speed}{wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("speed", write_speed);
        let bar = ProgressBar::new(0).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Writes plain lines about a download to stderr, unless the bar does, until the sender is
    /// dropped.
    fn say_progress(&self, bar: &ProgressBar) -> Sender<()> {
        let (end, ended) = channel();
        if self.progress && bar.is_hidden() {
            let bar = bar.clone();
            std::thread::spawn(move || {
                let mut wait = FIRST_LINE;
                while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    let size = bar.length().map_or(String::new(), |size| format!(" of {}", HumanBytes(size)));
                    let have = HumanBytes(bar.position());
                    // A closed stderr costs the line alone.
                    writeln!(std::io::stderr(), "downloading {}: {have}{size}", bar.message()).ok();
                    wait = LATER_LINES;
                }
            });
        }
        end
    }

    /// The cached snapshot or file of a model or adapter, if its weights are complete.
    fn cached(&self, name: &Name, repo: &RepoCache, kind: &Kind) -> Option<Cached> {
        let commit = repo.commit_of(&name.revision)?;
        let folder = repo.snapshot(&commit);
        let has = |file: &str| folder.join(file).exists();
        if let Some(file) = &name.file {
            let all = parts_of(file).iter().all(|part| has(part));
            return all.then(|| Cached { path: folder.join(file), commit, is_whole: true });
        }
        let has_shards =
            |index: &str| shards_of(&folder.join(index)).is_ok_and(|shards| shards.iter().all(|shard| has(shard)));
        if !has(kind.config) || !(has(kind.weights) || kind.index.is_some_and(has_shards)) {
            return None;
        }
        let is_whole = kind.optional.iter().all(|file| has(file) || repo.lacks(&commit, file));
        Some(Cached { path: folder, commit, is_whole })
    }
}

/// The speed and the time left, once bytes come.
fn write_speed(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    if state.per_sec() >= 1.0 {
        let speed = HumanBytes(state.per_sec() as u64);
        write!(out, "{speed}/s ({:#} left)  ", HumanDuration(state.eta())).ok();
    }
}

/// What the cache has of a model.
struct Cached {
    /// The snapshot folder or the GGUF file.
    path: PathBuf,
    commit: String,
    /// Whether no request can add a file. Other programs may have downloaded fewer files.
    is_whole: bool,
}

/// Downloads a Hugging Face folder: the configuration tells the commit of the revision, and all
/// other files come from that commit.
fn fetch_folder(download: &Download<'_>, revision: &str, kind: &Kind) -> Fetch<PathBuf> {
    let config = download.fetch(revision, kind.config)?.ok_or_else(|| refused(kind.no_config))?;
    let commit = config.commit;
    fetch_optional(download, &commit, kind)?;
    if get(download, &commit, kind.weights)?.is_none() {
        let no_weights = || refused(kind.no_weights);
        let name = kind.index.ok_or_else(no_weights)?;
        let index = get(download, &commit, name)?.ok_or_else(no_weights)?;
        for shard in shards_of(&index).map_err(Failure::Refused)? {
            get(download, &commit, &shard)?
                .ok_or_else(|| refused(format!("{name} names {shard}, but the repository does not have it")))?;
        }
    }
    download.repo.set_commit(revision, &commit).map_err(Failure::Refused)?;
    Ok(download.repo.snapshot(&commit))
}

/// Downloads a GGUF file, with all its parts if it is split.
fn fetch_gguf(download: &Download<'_>, revision: &str, file: &str) -> Fetch<PathBuf> {
    let absent = |file: &str| refused(format!("the repository has no file {file}"));
    let named = download.fetch(revision, file)?.ok_or_else(|| absent(file))?;
    for part in parts_of(file) {
        get(download, &named.commit, &part)?.ok_or_else(|| absent(&part))?;
    }
    download.repo.set_commit(revision, &named.commit).map_err(Failure::Refused)?;
    Ok(named.path)
}

/// Downloads the files beside the weights that a commit has.
fn fetch_optional(download: &Download<'_>, commit: &str, kind: &Kind) -> Fetch<()> {
    kind.optional.iter().filter(|file| !download.repo.lacks(commit, file)).try_for_each(|file| {
        if get(download, commit, file)?.is_none() {
            download.repo.set_lacking(commit, file);
        }
        Ok(())
    })
}

/// One file of a commit, from the cache or the hub. `None` if the hub does not have it.
fn get(download: &Download<'_>, commit: &str, file: &str) -> Fetch<Option<PathBuf>> {
    let path = download.repo.snapshot(commit).join(file);
    if path.exists() {
        return Ok(Some(path));
    }
    let Some(fetched) = download.fetch(commit, file)? else { return Ok(None) };
    if fetched.commit != commit {
        return Err(refused(format!("the hub answers with commit {} for {file} of commit {commit}", fetched.commit)));
    }
    Ok(Some(fetched.path))
}

/// All parts of a GGUF file whose name says that it is split (`x-00001-of-00003.gguf`), else the
/// file alone.
pub(super) fn parts_of(file: &str) -> Vec<String> {
    let split = || {
        let stem = file.strip_suffix(".gguf")?;
        let (head, total) = stem.rsplit_once("-of-")?;
        let (stem, number) = head.rsplit_once('-')?;
        let n: usize = total.parse().ok().filter(|n| (1..1000).contains(n))?;
        let is_split = total.len() == 5 && number.len() == 5 && number.bytes().all(|b| b.is_ascii_digit());
        is_split.then(|| (1..=n).map(|i| format!("{stem}-{i:05}-of-{total}.gguf")).collect())
    };
    split().unwrap_or_else(|| vec![file.to_owned()])
}

impl Name {
    /// Adds to an error that a local path is missing, if the name looks like a path: its first part
    /// is a local folder.
    pub(super) fn explained(&self, e: Error, spec: &str) -> Error {
        match self.id.split_once('/') {
            Some((folder, _)) if Path::new(folder).is_dir() => e.context(format!(
                "there is no local path '{spec}', although the folder '{folder}' exists, so it was looked up as a \
                model id"
            )),
            _ => e,
        }
    }
}

/// The weight files in the index of a sharded model.
fn shards_of(index: &Path) -> Result<BTreeSet<String>> {
    let read = || -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&small_file::read_bytes(index, small_file::CONFIG_BYTES * 4)?)?)
    };
    let json = read().with_context(|| format!("reading {}", index.display()))?;
    let shards: Option<BTreeSet<String>> =
        json["weight_map"].as_object().and_then(|map| map.values().map(|v| v.as_str().map(str::to_owned)).collect());
    let shards = shards.filter(|shards| !shards.is_empty() && shards.iter().all(|shard| is_name(shard)));
    shards.ok_or_else(|| Error::new(format!("{} has no weight_map with plain file names", index.display())))
}

#[cfg(test)]
#[path = "hub_test_server.rs"]
pub(crate) mod hub_test_server;
#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
