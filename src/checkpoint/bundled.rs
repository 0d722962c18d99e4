//! The bundled model and text, so that `demo` needs no network.
//!
//! The model is stories260K (Andrej Karpathy's tinyllamas, MIT). The text is the first chapters of
//! Moby Dick (public domain). Their licence notes are in `assets/`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Context, Result};

/// Chapters 1 to 41 of Moby Dick, one paragraph per line.
pub const MOBY_DICK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/moby-dick.txt"));

/// Files of the stories260K folder.
const STORIES: [(&str, &[u8]); 3] = [
    ("config.json", include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260k/config.json"))),
    ("model.safetensors", include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260k/model.safetensors"))),
    ("tokenizer.json", include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/stories260k/tokenizer.json"))),
];

/// A temporary folder with the stories260K model. Dropping it removes the folder.
#[derive(Debug)]
pub struct StoriesFolder(PathBuf);

impl StoriesFolder {
    /// Writes the model to a new folder in the system's temporary directory.
    pub fn unpack() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("longreach-stories260k-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let folder = Self(dir);
        for (name, bytes) in STORIES {
            let path = folder.0.join(name);
            std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(folder)
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for StoriesFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // the system clears what remains
    }
}
