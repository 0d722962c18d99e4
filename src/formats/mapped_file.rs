//! A file mapped into memory for reading. The only place that maps files, and so the only one that needs to argue why.
//!
//! It knows no format: see [`gguf`](super::gguf) and `safetensors_file` for what lies inside.

use crate::error::{Context, Result};
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A read-only view of a whole, non-empty file.
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the file at `path`. Errors name the path: absent, not a file, empty, or not mappable.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let meta = file.metadata().with_context(|| format!("opening {}", path.display()))?;
        crate::ensure!(meta.is_file(), "{} is not a file", path.display());
        crate::ensure!(
            meta.len() > 0,
            "{} is empty: it was probably not written or downloaded completely",
            path.display()
        );
        // SAFETY: the map is never written through. Another program that truncates the file while it is mapped could end
        // this one with a bus error; weights are not edited in place, and Longreach itself replaces files by renaming.
        let map = unsafe { memmap2::Mmap::map(&file) }.with_context(|| format!("mapping {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_empty_and_folder_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.bin");
        std::fs::write(&empty, b"").unwrap();
        for (path, word) in
            [(dir.path().join("absent"), "absent"), (empty, "is empty"), (dir.path().into(), "not a file")]
        {
            let e = MappedFile::open(&path).err().expect("must be refused").to_string();
            assert!(e.contains(word), "{e}");
        }
    }

    #[test]
    fn shows_the_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        assert_eq!(&*MappedFile::open(file.path()).unwrap(), b"abc");
    }
}
