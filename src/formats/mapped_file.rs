//! Memory-mapped files for reading.
//!
//! This is the only code that maps files, so the safety argument is here. [`gguf`](super::gguf) and
//! `safetensors_file` parse the contents.

use crate::error::{Context, Result};
use crate::small_file;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// A read-only view of a whole, non-empty file, or of bytes that are part of the program.
pub struct MappedFile {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Map(memmap2::Mmap),
    Static(&'static [u8]),
}

impl MappedFile {
    /// Maps the file at `path`. Fails if it is missing, not a file, empty, or cannot be mapped; the
    /// error names the path.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let meta = file.metadata().with_context(|| format!("opening {}", path.display()))?;
        crate::ensure!(meta.is_file(), "{} is not a file", path.display());
        crate::ensure!(
            meta.len() > 0,
            "{} is empty: it was probably not written or downloaded completely",
            path.display()
        );
        // SAFETY: nothing writes through the map. If another program truncates the mapped file, this
        // one ends with a bus error, which the program explains (`main.rs`). Longreach replaces files
        // by renaming.
        let map = unsafe { memmap2::Mmap::map(&file) }.with_context(|| format!("mapping {}", path.display()))?;
        small_file::refuse_pointer(&map).with_context(|| path.display())?;
        Ok(Self { path: path.to_path_buf(), bytes: Bytes::Map(map) })
    }

    /// Bytes that are part of the program, under a name for messages.
    pub fn of_static(name: &str, bytes: &'static [u8]) -> Self {
        Self { path: name.into(), bytes: Bytes::Static(bytes) }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Map(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_empty_folder_and_pointer_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let [empty, pointer] = ["empty.bin", "pointer.bin"].map(|name| dir.path().join(name));
        std::fs::write(&empty, b"").unwrap();
        std::fs::write(&pointer, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
        for (path, word) in [
            (dir.path().join("absent"), "absent"),
            (empty, "is empty"),
            (dir.path().into(), "not a file"),
            (pointer, "pointer.bin: the file is a Git LFS pointer"),
        ] {
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
