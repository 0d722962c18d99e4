//! Saves the measured kernel choices in the platform's cache folder: one JSON file per adapter and
//! driver.
//!
//! With the file a device runs the same kernels in every run, so that results are bitwise equal. A
//! damaged or missing file costs a new measurement, never a run.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use crate::atomic_file::write_file;
use crate::gpu::KernelDef;

/// The file with the choices of one adapter.
#[derive(Clone, Debug)]
pub(super) struct ChoiceStore(PathBuf);

impl ChoiceStore {
    /// The file of an adapter and its driver, named by a hash of `identity`; `None` if the platform
    /// has no cache folder.
    pub(super) fn of_adapter(identity: &[&str]) -> Option<Self> {
        cache_folder(|name| std::env::var_os(name).map(PathBuf::from)).map(|folder| Self::in_folder(&folder, identity))
    }

    pub(super) fn in_folder(folder: &Path, identity: &[&str]) -> Self {
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        Self(folder.join("longreach").join(format!("kernels-{:016x}.json", hasher.finish())))
    }

    /// Kernel names by key; empty if the file is missing or unusable.
    pub(super) fn load(&self) -> HashMap<String, String> {
        std::fs::read(&self.0).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Saves the choices. If that fails, the next run measures again.
    pub(super) fn save(&self, choices: &HashMap<String, String>) {
        let sorted: std::collections::BTreeMap<_, _> = choices.iter().collect();
        let folder_is_there = self.0.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok());
        if let (true, Ok(text)) = (folder_is_there, serde_json::to_string_pretty(&sorted)) {
            drop(write_file(&self.0, text));
        }
    }
}

/// The platform's cache folder, from its environment variables.
fn cache_folder(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| var(name).filter(|path| path.is_absolute());
    let home = |below: &str| absolute("HOME").map(|home| home.join(below));
    match std::env::consts::OS {
        "windows" => absolute("LOCALAPPDATA"),
        "macos" => home("Library/Caches"),
        _ => absolute("XDG_CACHE_HOME").or_else(|| home(".cache")),
    }
}

/// A hash of the WGSL text of a kernel and its alternatives.
pub(super) fn text_hash(kernel: &'static KernelDef) -> u64 {
    static MADE: LazyLock<Mutex<HashMap<usize, u64>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().expect("hashing does not panic");
    *made.entry(std::ptr::from_ref(kernel) as usize).or_insert_with(|| {
        let mut hasher = DefaultHasher::new();
        kernel.with_alternatives().into_iter().flat_map(KernelDef::files).for_each(|file| file.hash(&mut hasher));
        hasher.finish()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_back_and_damage_costs_only_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = ChoiceStore::in_folder(dir.path(), &["an adapter", "driver 1"]);
        assert!(store.load().is_empty());
        let choices = HashMap::from([("a size".to_string(), "matmul/tile (nt f32)".to_string())]);
        store.save(&choices);
        assert_eq!(store.load(), choices);
        assert!(ChoiceStore::in_folder(dir.path(), &["an adapter", "driver 2"]).load().is_empty());
        std::fs::write(&store.0, "{\"half").unwrap();
        assert!(store.load().is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_cache_folder_is_the_platforms() {
        let with = |set: &'static [(&str, &str)]| {
            cache_folder(move |name| set.iter().find(|(n, _)| *n == name).map(|(_, path)| PathBuf::from(path)))
        };
        assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), Some(PathBuf::from("/c")));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]), Some(PathBuf::from("/h/.cache")));
        assert_eq!(with(&[]), None);
    }
}
