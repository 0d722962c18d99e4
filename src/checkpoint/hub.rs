//! Model lookup: an existing path, or a Hugging Face repo id that is downloaded to the shared
//! cache.
//!
//! Ids have the formats `org/name`, `org/name@revision` and `org/name:FILE.gguf`. The cache is that
//! of huggingface_hub (`hub_env.rs` says where, `hub_cache.rs` what is in it), and cached files are
//! not requested again. All files of a model come from one commit. This file decides which files
//! count; the only one that it reads is the index of a sharded model.

use super::hub_cache::{RepoCache, is_name, is_relative};
pub use super::hub_client::Limits;
use super::hub_client::{Client, Failure, Fetch, refused};
use super::hub_download::Download;
use super::hub_env::Variables;
use crate::error::{Context, Error, Result};
use crate::small_file;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Files to download if they exist. Weights come last, so a snapshot with weights is complete.
const OPTIONAL: [&str; 7] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "longreach.json",
];

/// Resolves the name of a model to a directory or file.
///
/// An existing path is returned unchanged, and `~/` stands for the home folder. Otherwise the name
/// must be a repo id, and the result is its snapshot folder in the cache or its GGUF file. Any
/// other name is a usage error.
pub fn resolve(spec: &str) -> Result<PathBuf> {
    if Path::new(spec).exists() {
        return Ok(PathBuf::from(spec));
    }
    if let (Some(rest), Some(home)) = (spec.strip_prefix("~/"), std::env::home_dir()) {
        return Ok(home.join(rest));
    }
    let Some(name) = Name::parse(spec) else {
        return Err(Error::usage(format!(
            "'{spec}' is neither an existing path nor a model id (org/name, org/name@revision or org/name:FILE.gguf)"
        )));
    };
    Hub::from_env()?.fetch(&name).map_err(|e| name.explained(e, spec))
}

/// A parsed repo id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    id: String,
    revision: String,
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
        let repo = RepoCache::new(&self.cache, &name.id);
        let cached = self.cached(name, &repo);
        if self.offline {
            return cached.map(|cached| cached.path).ok_or_else(|| {
                Error::new(format!(
                    "'{}' is not in the cache {}, and HF_HUB_OFFLINE forbids downloading it",
                    name.id,
                    self.cache.display()
                ))
            });
        }
        if let Some(cached) = cached.as_ref().filter(|cached| cached.is_whole) {
            return Ok(cached.path.clone());
        }
        let bar = self.bar();
        let limits = match cached {
            Some(_) => Limits { tries: 1, ..self.limits },
            None => self.limits,
        };
        let client = Client::new(&self.endpoint, self.token.as_deref(), limits, bar.clone());
        let download = Download { client: &client, repo: &repo, id: &name.id };
        let got = match (&cached, &name.file) {
            (Some(cached), _) => fetch_optional(&download, &cached.commit).map(|()| cached.path.clone()),
            (None, Some(file)) => fetch_gguf(&download, &name.revision, file),
            (None, None) => fetch_folder(&download, &name.revision),
        };
        bar.finish_and_clear();
        match (got, cached) {
            (Ok(path), _) => Ok(path),
            (Err(_), Some(cached)) => Ok(cached.path),
            (Err(Failure::Unreachable(e) | Failure::Refused(e)), None) => {
                Err(e.context(format!("downloading the model '{}' from {}", name.id, self.endpoint)))
            }
        }
    }

    fn bar(&self) -> ProgressBar {
        if !self.progress || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(
            "{spinner} {bytes}/{total_bytes} {bar:24} {bytes_per_sec} (eta {eta})  {wide_msg}",
        );
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        bar
    }

    /// The cached snapshot or file of a model, if its weights are complete.
    fn cached(&self, name: &Name, repo: &RepoCache) -> Option<Cached> {
        let commit = repo.commit_of(&name.revision)?;
        let folder = repo.snapshot(&commit);
        let has = |file: &str| folder.join(file).exists();
        if let Some(file) = &name.file {
            let all = parts_of(file).iter().all(|part| has(part));
            return all.then(|| Cached { path: folder.join(file), commit, is_whole: true });
        }
        let shards = || shards_of(&folder.join(INDEX)).is_ok_and(|shards| shards.iter().all(|shard| has(shard)));
        if !has(CONFIG) || !(has(SINGLE) || shards()) {
            return None;
        }
        let is_whole = OPTIONAL.iter().all(|file| has(file) || repo.lacks(&commit, file));
        Some(Cached { path: folder, commit, is_whole })
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
fn fetch_folder(download: &Download<'_>, revision: &str) -> Fetch<PathBuf> {
    let no_config = "the repository has no config.json, or there is no such model (did you mean a local path?); if it has \
    GGUF files, name one: org/name:FILE.gguf";
    let config = download.fetch(revision, CONFIG)?.ok_or_else(|| refused(no_config))?;
    let commit = config.commit;
    fetch_optional(download, &commit)?;
    if get(download, &commit, SINGLE)?.is_none() {
        let no_weights = format!("the repository has neither {SINGLE} nor {INDEX}; other formats are not supported");
        let index = get(download, &commit, INDEX)?.ok_or_else(|| refused(no_weights))?;
        for shard in shards_of(&index).map_err(Failure::Refused)? {
            get(download, &commit, &shard)?
                .ok_or_else(|| refused(format!("{INDEX} names {shard}, but the repository does not have it")))?;
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
fn fetch_optional(download: &Download<'_>, commit: &str) -> Fetch<()> {
    OPTIONAL.iter().filter(|file| !download.repo.lacks(commit, file)).try_for_each(|file| {
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
fn parts_of(file: &str) -> Vec<String> {
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
    fn explained(&self, e: Error, spec: &str) -> Error {
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
mod hub_test_server;
#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
