//! Where a model lies: a path that exists, or a Hugging Face id that is downloaded into the common cache.
//!
//! Ids are `org/name`, `org/name@revision` and `org/name:FILE.gguf`. Downloads go through hf-hub and obey `HF_ENDPOINT`,
//! `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` and `HF_HUB_OFFLINE`. What is cached is not asked for again. This only brings files;
//! it does not read them, but for the list of a sharded model's weights.

use crate::error::{Context, Error, Result};
use crate::small_file;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Fetched where they exist. Weights come last, so that a snapshot with weights is a whole one.
const OPTIONAL: [&str; 4] =
    ["generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// The directory or file of a model that a user named.
///
/// A path that exists is returned as it is. Otherwise the name must be a hub id: the result is then its snapshot folder in
/// the cache, or the GGUF file. A name that is neither is a usage error.
pub fn resolve(spec: &str) -> Result<PathBuf> {
    if Path::new(spec).exists() {
        return Ok(PathBuf::from(spec));
    }
    let Some(name) = Name::parse(spec) else {
        return Err(Error::usage(format!(
            "'{spec}' is neither a path that exists nor a model id (org/name, org/name@revision or org/name:FILE.gguf)"
        )));
    };
    Hub::from_env()?.fetch(&name).map_err(|e| name.explained(e, spec))
}

/// A hub id in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    id: String,
    revision: String,
    file: Option<String>,
}

impl Name {
    /// Parses `org/name[@revision][:FILE.gguf]`; none when it is not of that form.
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

/// A part of a model id, and the name of a file that is surely inside its folder.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 200 && name.chars().all(plain) && !name.starts_with(['.', '-'])
}

/// Names with `/` between, none of which leads out of the folder.
fn is_relative(path: &str) -> bool {
    path.split('/').all(is_name)
}

/// A hub and the cache in front of it.
#[derive(Clone, Debug)]
pub struct Hub {
    pub endpoint: String,
    /// The folder that holds `models--org--name` folders.
    pub cache: PathBuf,
    pub token: Option<String>,
    /// Use the cache alone.
    pub offline: bool,
    /// Show a bar on stderr for each file.
    pub progress: bool,
}

impl Hub {
    /// The hub that the environment describes, else huggingface.co with the cache below the home directory.
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || match var("HF_HOME") {
            Some(home) => Some(PathBuf::from(home)),
            None => std::env::home_dir().map(|home| home.join(".cache").join("huggingface")),
        };
        let cache = match var("HF_HUB_CACHE") {
            Some(cache) => PathBuf::from(cache),
            None => home().context_none("there is no home directory for the model cache; set HF_HOME")?.join("hub"),
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

    /// The snapshot folder of a model, or its GGUF file, downloaded where it is not cached.
    ///
    /// When the hub cannot be reached, a whole snapshot in the cache is good enough.
    pub fn fetch(&self, name: &Name) -> Result<PathBuf> {
        let cached = self.cached(name);
        if self.offline {
            return cached.context_none(&format!(
                "'{}' is not in the cache {}, and HF_HUB_OFFLINE forbids to download it",
                name.id,
                self.cache.display()
            ));
        }
        // A whole snapshot needs no question to the hub; one without a tokenizer may come from a program that wanted none.
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

    /// What the cache holds of a model, if it is all there.
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
            return get(&repo, file)?.ok_or_else(|| refused(format!("there is no file {file} in it")));
        }
        let no_config = "there is no config.json in it, or no such model (is it a path that does not exist?); if it holds \
                         GGUF files, name one: org/name:FILE.gguf";
        files.push(("config.json".to_owned(), get(&repo, "config.json")?.ok_or_else(|| refused(no_config))?));
        for file in OPTIONAL {
            files.extend(get(&repo, file)?.map(|path| (file.to_owned(), path)));
        }
        if let Some(path) = get(&repo, SINGLE)? {
            files.push((SINGLE.to_owned(), path));
        } else {
            let no_weights = format!("there is neither {SINGLE} nor {INDEX} in it; other formats are not read");
            let index = get(&repo, INDEX)?.ok_or_else(|| refused(no_weights))?;
            for shard in shards_of(&index).map_err(Failure::Refused)? {
                let path =
                    get(&repo, &shard)?.ok_or_else(|| refused(format!("{shard} is in {INDEX}, but not there")))?;
                files.push((shard, path));
            }
            files.push((INDEX.to_owned(), index));
        }
        one_snapshot(&repo, files)
    }
}

impl Name {
    /// Says first that a path is missing where the name looks like one: it begins with a folder that is here.
    fn explained(&self, e: Error, spec: &str) -> Error {
        match self.id.split_once('/') {
            Some((folder, _)) if Path::new(folder).is_dir() => e.context(format!(
                "there is no '{spec}' in this machine's files, though there is a folder '{folder}', so it was looked up as a \
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
    /// The hub was not reached or did not finish; the cache may help.
    Unreachable(Error),
    /// It answered, and the answer is no.
    Refused(Error),
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::Refused(Error::new(why))
}

/// One file, from the cache or the hub; none when the hub does not have it.
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
                "access denied (HTTP status {status} for {file}): the model does not exist, is private, or its licence must \
                 be accepted on its page; set HF_TOKEN to a token that may read it"
            ))),
            500.. => Err(Failure::Unreachable(Error::new(format!("HTTP status {status} for {file}; try again later")))),
            _ => Err(refused(format!("HTTP status {status} for {file}"))),
        };
    }
    let advice = "check the network, or give the path of a directory that holds the model";
    Err(Failure::Unreachable(Error::new(format!("{file}: {e}; {advice}"))))
}

/// The folder that all files lie in. A model that changed on the hub since a part of it was cached has files in two
/// folders: the older ones are fetched again.
fn one_snapshot(repo: &ApiRepo, files: Vec<(String, PathBuf)>) -> std::result::Result<PathBuf, Failure> {
    // The reference to the newest snapshot is written with each download, so a fresh one tells which is the newest.
    let folders: BTreeSet<&Path> = files.iter().filter_map(|(_, path)| path.parent()).collect();
    if let [folder] = folders.iter().copied().collect::<Vec<_>>()[..] {
        return Ok(folder.to_owned());
    }
    let mut folder = PathBuf::new();
    for (file, _) in &files {
        let path = match repo.download(file) {
            Ok(path) => path,
            Err(e) => failure(e, file)?.ok_or_else(|| refused(format!("{file} vanished from it")))?,
        };
        folder = path.parent().map(Path::to_owned).unwrap_or_default();
    }
    Ok(folder)
}

/// The files that a sharded model's index names.
fn shards_of(index: &Path) -> Result<BTreeSet<String>> {
    let read = || -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&small_file::read_bytes(index, small_file::CONFIG_BYTES * 4)?)?)
    };
    let json = read().with_context(|| format!("reading {}", index.display()))?;
    let shards: Option<BTreeSet<String>> =
        json["weight_map"].as_object().and_then(|map| map.values().map(|v| v.as_str().map(str::to_owned)).collect());
    let shards = shards.filter(|shards| !shards.is_empty() && shards.iter().all(|shard| is_name(shard)));
    shards.context_none(&format!("{} has no weight_map of plain file names", index.display()))
}

/// An error in place of nothing.
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
