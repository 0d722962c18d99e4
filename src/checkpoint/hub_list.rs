//! The models and adapters in the download cache, under the names that open them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::hub::{Hub, Name, parts_of};

/// A model or adapter in the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The name that opens it: an id, with a revision and a GGUF file where it needs them.
    pub name: String,
    /// Its snapshot folder or GGUF file.
    pub path: PathBuf,
    pub is_adapter: bool,
    /// Whether its weights are there. Without them the download was broken off.
    pub is_complete: bool,
    /// When its snapshot was last written.
    pub changed: Option<SystemTime>,
}

impl Hub {
    /// What the cache holds, sorted by name. Folders that cannot be read count as empty.
    pub fn list(&self) -> Vec<Cached> {
        let mut found = Vec::new();
        for folder in folders(&self.cache) {
            let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("models--"));
            let Some(id) = name.map(|name| name.replacen("--", "/", 1)) else { continue };
            for (revision, commit) in revisions(&folder) {
                let spec = if revision == "main" { id.clone() } else { format!("{id}@{revision}") };
                let snapshot = folder.join("snapshots").join(commit);
                found.extend(self.list_snapshot(&spec, &snapshot, is_partial(&folder)));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The models in the snapshot of `spec`.
    fn list_snapshot(&self, spec: &str, snapshot: &Path, is_partial: bool) -> Vec<Cached> {
        let changed = snapshot.metadata().and_then(|meta| meta.modified()).ok();
        let has = |file: &str| snapshot.join(file).exists();
        let one = |name: String, path: PathBuf, is_adapter, is_complete| Cached {
            name,
            path,
            is_adapter,
            is_complete,
            changed,
        };
        let mut found: Vec<Cached> = gguf_files(snapshot, "")
            .into_iter()
            .map(|file| {
                let is_complete = parts_of(&file).iter().all(|part| has(part));
                one(format!("{spec}:{file}"), snapshot.join(&file), false, is_complete)
            })
            .filter(|model| Name::parse(&model.name).is_some())
            .collect();
        let Some(name) = Name::parse(spec) else { return found };
        if has("adapter_config.json") {
            let is_complete = has("adapter_model.safetensors");
            found.push(one(spec.to_owned(), snapshot.to_path_buf(), true, is_complete));
        } else if has("config.json") {
            let is_complete = self.find(&name).is_some();
            // Other programs download a tokenizer or a configuration alone.
            if is_complete || is_partial {
                found.push(one(spec.to_owned(), snapshot.to_path_buf(), false, is_complete));
            }
        }
        found
    }
}

/// The folders in a folder.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The branches and tags of a model's folder with their commits, each commit once. If the folder names
/// none, the commits themselves.
fn revisions(folder: &Path) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = fs::read_dir(folder.join("refs"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let commit = fs::read_to_string(entry.path()).ok()?;
            Some((entry.file_name().into_string().ok()?, commit.trim().to_owned()))
        })
        .collect();
    found.sort_by_key(|(revision, _)| (revision != "main", revision.clone()));
    let mut seen = Vec::new();
    found.retain(|(_, commit)| {
        !seen.contains(commit) && folder.join("snapshots").join(commit).is_dir() && {
            seen.push(commit.clone());
            true
        }
    });
    if found.is_empty() {
        let commits = folders(&folder.join("snapshots"));
        let names = commits.iter().filter_map(|path| path.file_name()?.to_str());
        found = names.map(|name| (name.to_owned(), name.to_owned())).collect();
    }
    found
}

/// Whether a download into a model's folder was broken off.
fn is_partial(folder: &Path) -> bool {
    let blobs = fs::read_dir(folder.join("blobs")).into_iter().flatten().flatten();
    blobs.into_iter().any(|entry| entry.path().extension().is_some_and(|e| e == "incomplete"))
}

/// The GGUF files of models in a snapshot and one folder deep, by their paths in it: of a split model,
/// the first part.
fn gguf_files(snapshot: &Path, below: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(snapshot.join(below)).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if entry.path().is_dir() && below.is_empty() {
            found.extend(gguf_files(snapshot, &name));
        } else if is_model_gguf(&name) && parts_of(&path)[0] == path {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Whether the name of a file is that of a GGUF file with a model, and not with the vision part of one.
pub(super) fn is_model_gguf(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.ends_with(".gguf") && !lower.starts_with("mmproj")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::hub::Limits;

    fn write(cache: &Path, repo: &str, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = cache.join(format!("models--{repo}")).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn models_adapters_and_broken_downloads_are_listed_by_the_names_that_open_them() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let at = |commit: &str, file: &str| format!("snapshots/{commit}/{file}");
        let of = |commit: &str, files: &[&str]| -> Vec<String> { files.iter().map(|f| at(commit, f)).collect() };
        let put = |repo: &str, refs: &[(&str, &str)], files: &[String], more: &[&str]| {
            refs.iter().for_each(|(name, commit)| write(dir.path(), repo, &[(&format!("refs/{name}"), commit)]));
            files.iter().for_each(|file| write(dir.path(), repo, &[(file, "x")]));
            more.iter().for_each(|file| write(dir.path(), repo, &[(file, "x")]));
        };
        let whole = ["config.json", "model.safetensors"];
        put("org--whole", &[("main", &a), ("v1", &a)], &of(&a, &whole), &[]);
        put("org--old", &[("main", &a), ("v1", &b)], &[of(&a, &whole), of(&b, &whole)].concat(), &[]);
        put("org--tuned", &[("main", &a)], &of(&a, &["adapter_config.json", "adapter_model.safetensors"]), &[]);
        put("org--broken", &[("main", &a)], &of(&a, &["config.json"]), &["blobs/x.incomplete"]);
        put("org--tokens", &[("main", &a)], &of(&a, &["config.json", "tokenizer.json"]), &[]);
        put("org--loose", &[], &of(&b, &whole), &[]);
        let gguf = ["x-Q8_0.gguf", "mmproj-x.gguf", "q4/y-00001-of-00002.gguf", "q4/y-00002-of-00002.gguf"];
        put("org--packed", &[("main", &a)], &of(&a, &gguf), &[]);
        put("no-owner", &[("main", &a)], &of(&a, &whole), &[]);
        let hub = Hub {
            endpoint: "http://127.0.0.1:1".into(),
            cache: dir.path().into(),
            token: None,
            offline: true,
            progress: false,
            limits: Limits::default(),
        };
        let found = hub.list();
        let names: Vec<(&str, bool, bool)> =
            found.iter().map(|c| (c.name.as_str(), c.is_adapter, c.is_complete)).collect();
        let loose = format!("org/loose@{b}");
        assert_eq!(
            names,
            [
                ("org/broken", false, false),
                (loose.as_str(), false, true),
                ("org/old", false, true),
                ("org/old@v1", false, true),
                ("org/packed:q4/y-00001-of-00002.gguf", false, true),
                ("org/packed:x-Q8_0.gguf", false, true),
                ("org/tuned", true, true),
                ("org/whole", false, true),
            ]
        );
        for cached in found.iter().filter(|c| c.is_complete && !c.is_adapter) {
            assert_eq!(hub.find(&Name::parse(&cached.name).unwrap()), Some(cached.path.clone()), "{}", cached.name);
        }
        assert!(found.iter().all(|c| c.changed.is_some()));
        let empty = Hub { cache: dir.path().join("absent"), ..hub };
        assert!(empty.list().is_empty());
    }
}
