//! Memory-mapped files for reading.
//!
//! This is the only code that maps files, so the safety argument is here. [`gguf`](super::gguf) and
//! `safetensors_file` parse the contents, and [`file_bytes`](super::file_bytes) hands out ranges.
//!
//! The CPU executor computes with the pages of a mapped file, so the file must stay as it is while a
//! model is in use. A file that is replaced by renaming is safe: the map keeps the old one. If another
//! program shortens the file, this one ends with a message. If it overwrites the file in place, the
//! weights that are read afterwards are the new ones, and the outputs have no meaning. (Windows lets
//! no program shorten or replace a mapped file.)

use crate::error::{Context, Result};
use crate::small_file;
use std::fs::File;
use std::ops::{Deref, Range};
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

    /// Asks the system to read a range ahead of its use. Does nothing where it cannot.
    #[cfg_attr(not(unix), allow(unused_variables))]
    pub fn prefetch(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Map(map) = &self.bytes {
            _ = map.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        }
    }

    /// Tells the system that a range is not needed for now, so that its pages do not count as this
    /// program's memory. They are read from the file again when they are used. Does nothing outside
    /// of Unix.
    #[cfg_attr(not(unix), allow(unused_variables))]
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Map(map) = &self.bytes
            && !range.is_empty()
        {
            // SAFETY: the map is read-only and backed by a file, so a dropped page comes back with the
            // bytes of the file.
            _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
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
