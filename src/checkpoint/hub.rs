//! Model lookup: an existing path, or a Hugging Face repo id that is downloaded to the shared
//! cache.
//!
//! Ids have the formats `org/name`, `org/name@revision` and `org/name:FILE.gguf`. Downloads use
//! hf-hub and respect `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` and `HF_HUB_OFFLINE`.
//! Cached files are not requested again. This file only downloads; the only file it reads is the
//! index of a sharded model.

use crate::error::{Context, Error, Result};
use crate::small_file;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Files to download if they exist. Weights come last, so a snapshot with weights is complete.
const OPTIONAL: [&str; 4] =
    ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// Resolves the name of a model to a directory or file.
///
/// An existing path is returned unchanged. Otherwise the name must be a repo id, and the result is
/// its snapshot folder in the cache or its GGUF file. Any other name is a usage error.
pub fn resolve(spec: &str) -> Result<PathBuf> {
    if Path::new(spec).exists() {
        return Ok(PathBuf::from(spec));
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

/// Whether this is a valid part of a model id. Such a name cannot leave its folder when used as a
/// file name.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 200 && name.chars().all(plain) && !name.starts_with(['.', '-'])
}

/// Whether this is a relative path of plain names that cannot leave its folder.
fn is_relative(path: &str) -> bool {
    path.split('/').all(is_name)
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
    /// Show a progress bar on stderr for each file.
    pub progress: bool,
}

impl Hub {
    /// The hub from the environment variables. By default huggingface.co, with the cache in the
    /// home directory.
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || match var("HF_HOME") {
            Some(home) => Some(PathBuf::from(home)),
            None => std::env::home_dir().map(|home| home.join(".cache").join("huggingface")),
        };
        let cache = match var("HF_HUB_CACHE") {
            Some(cache) => PathBuf::from(cache),
            None => home().context_none("no home directory was found for the model cache; set HF_HOME")?.join("hub"),
        };
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Error::usage(format!("HF_ENDPOINT is '{endpoint}'; expected http://… or https://…")));
        }
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: var("HF_TOKEN").or_else(|| Cache::new(home()?.join("hub")).token()),
            cache,
            offline: var("HF_HUB_OFFLINE")
                .is_some_and(|v| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")),
            progress: true,
        })
    }

    /// The snapshot folder of a model or its GGUF file. Downloads missing files.
    ///
    /// If the hub is unreachable, a complete snapshot in the cache is enough.
    pub fn fetch(&self, name: &Name) -> Result<PathBuf> {
        let cached = self.cached(name);
        if self.offline {
            return cached.context_none(&format!(
                "'{}' is not in the cache {}, and HF_HUB_OFFLINE forbids downloading it",
                name.id,
                self.cache.display()
            ));
        }
        // A complete snapshot needs no request. Without a tokenizer it may come from a program that
        // did not download one.
        if let Some(path) = cached.as_ref().filter(|path| name.file.is_some() || path.join("tokenizer.json").exists()) {
            return Ok(path.clone());
        }
        match (self.download(name), cached) {
            (Ok(path), _) => Ok(path),
            (Err(Failure::Unreachable(_)), Some(path)) => Ok(path),
            (Err(Failure::Unreachable(e) | Failure::Refused(e)), _) => {
                Err(e.context(format!("downloading the model '{}' from {}", name.id, self.endpoint)))
            }
        }
    }

    /// The cached snapshot or file of a model, if it is complete.
    fn cached(&self, name: &Name) -> Option<PathBuf> {
        let repo = Cache::new(self.cache.clone()).repo(name.repo());
        let branch = self.cache.join(name.repo().folder_name()).join("refs").join(&name.revision);
        let commit = std::fs::read_to_string(branch).unwrap_or_else(|_| name.revision.clone());
        let folder = repo.pointer_path(commit.trim());
        if let Some(file) = &name.file {
            return Some(folder.join(file)).filter(|path| path.exists());
        }
        let has = |file: &str| folder.join(file).exists();
        let shards = || shards_of(&folder.join(INDEX)).is_ok_and(|shards| shards.iter().all(|shard| has(shard)));
        (has("config.json") && (has(SINGLE) || shards())).then_some(folder)
    }

    fn download(&self, name: &Name) -> std::result::Result<PathBuf, Failure> {
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(self.progress)
            .with_retries(3);
        let api = builder.build().map_err(|e| Failure::Refused(Error::new(e.to_string())))?;
        let repo = api.repo(name.repo());
        let mut files = Vec::new();
        if let Some(file) = &name.file {
            return get(&repo, file)?.ok_or_else(|| refused(format!("the repository has no file {file}")));
        }
        let no_config = "the repository has no config.json, or there is no such model (did you mean a local path?); if it has \
        GGUF files, name one: org/name:FILE.gguf";
        files.push(("config.json".to_owned(), get(&repo, "config.json")?.ok_or_else(|| refused(no_config))?));
        for file in OPTIONAL {
            files.extend(get(&repo, file)?.map(|path| (file.to_owned(), path)));
        }
        if let Some(path) = get(&repo, SINGLE)? {
            files.push((SINGLE.to_owned(), path));
        } else {
            let no_weights =
                format!("the repository has neither {SINGLE} nor {INDEX}; other formats are not supported");
            let index = get(&repo, INDEX)?.ok_or_else(|| refused(no_weights))?;
            for shard in shards_of(&index).map_err(Failure::Refused)? {
                let path = get(&repo, &shard)?
                    .ok_or_else(|| refused(format!("{INDEX} names {shard}, but the repository does not have it")))?;
                files.push((shard, path));
            }
            files.push((INDEX.to_owned(), index));
        }
        one_snapshot(&repo, files)
    }
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

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.clone(), RepoType::Model, self.revision.clone())
    }
}

/// Why a download failed.
enum Failure {
    /// The hub was unreachable or the transfer did not finish. The cache may help.
    Unreachable(Error),
    /// The hub rejected the request.
    Refused(Error),
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::Refused(Error::new(why))
}

/// One file, from the cache or the hub. `None` if the hub does not have it.
fn get(repo: &ApiRepo, file: &str) -> std::result::Result<Option<PathBuf>, Failure> {
    repo.get(file).map(Some).or_else(|e| failure(e, file))
}

fn failure<T>(e: ApiError, file: &str) -> std::result::Result<Option<T>, Failure> {
    if let ApiError::RequestError(request) = &e
        && let ureq::Error::StatusCode(status) = **request
    {
        return match status {
            404 => Ok(None),
            401 | 403 => Err(refused(format!(
                "access denied (HTTP status {status} for {file}): the model does not exist, is private, or you must \
                accept its licence on its page; set HF_TOKEN to a token with read access"
            ))),
            500.. => Err(Failure::Unreachable(Error::new(format!("HTTP status {status} for {file}; try again later")))),
            _ => Err(refused(format!("HTTP status {status} for {file}"))),
        };
    }
    let advice = "check the network, or give the path of a local model directory";
    Err(Failure::Unreachable(Error::new(format!("{file}: {e}; {advice}"))))
}

/// The one snapshot folder of all files. If the model has changed on the hub since some files were
/// cached, the files are in two folders; then this downloads them again.
fn one_snapshot(repo: &ApiRepo, files: Vec<(String, PathBuf)>) -> std::result::Result<PathBuf, Failure> {
    // Each download updates the reference to the newest snapshot, so the last download's folder is
    // the newest.
    let folders: BTreeSet<&Path> = files.iter().filter_map(|(_, path)| path.parent()).collect();
    if let [folder] = folders.iter().copied().collect::<Vec<_>>()[..] {
        return Ok(folder.to_owned());
    }
    let mut folder = PathBuf::new();
    for (file, _) in &files {
        let path = match repo.download(file) {
            Ok(path) => path,
            Err(e) => failure(e, file)?.ok_or_else(|| refused(format!("{file} disappeared from the repository")))?,
        };
        folder = path.parent().map(Path::to_owned).unwrap_or_default();
    }
    Ok(folder)
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
    shards.context_none(&format!("{} has no weight_map with plain file names", index.display()))
}

/// Turns `None` into an error.
trait ContextNone<T> {
    fn context_none(self, why: &str) -> Result<T>;
}

impl<T> ContextNone<T> for Option<T> {
    fn context_none(self, why: &str) -> Result<T> {
        self.ok_or_else(|| Error::new(why))
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
