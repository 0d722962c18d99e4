//! Bytes of a tensor: a vector of their own, or a range of a mapped file, which is not copied.

use super::mapped_file::MappedFile;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A range of a mapped file. Clones share the mapping, which lives as long as the last of them.
#[derive(Clone)]
pub struct FileBytes {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl FileBytes {
    /// A range of a file. Panics if the file ends before it.
    pub fn new(file: &Arc<MappedFile>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= file.len(), "the range {range:?} is within the file");
        Self { file: file.clone(), range }
    }

    /// A part of these bytes. Panics if they end before it.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.end <= self.range.len(), "the part {range:?} is within {} bytes", self.range.len());
        Self::new(&self.file, self.range.start + range.start..self.range.start + range.end)
    }

    /// The words that a device would hold, in place. `None` where they do not begin at a word
    /// boundary in memory, end within a word, or have the other byte order.
    pub fn words(&self) -> Option<&[u32]> {
        bytemuck::try_cast_slice(self).ok().filter(|_| cfg!(target_endian = "little"))
    }

    /// These bytes with those of `next`, if `next` follows in the same file without a gap.
    pub fn joined(&self, next: &Self) -> Option<Self> {
        let is_next = Arc::ptr_eq(&self.file, &next.file) && self.range.end == next.range.start;
        is_next.then(|| Self::new(&self.file, self.range.start..next.range.end))
    }

    /// Asks the system to read the bytes ahead of their use.
    pub fn prefetch(&self) {
        self.file.prefetch(self.range.clone());
    }

    /// Tells the system that the bytes are not needed for now; see [`MappedFile::release`].
    pub fn release(&self) {
        self.file.release(self.range.clone());
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file[self.range.clone()]
    }
}

/// The bytes of a tensor.
#[derive(Clone)]
pub enum TensorBytes {
    /// In memory of their own.
    Owned(Vec<u8>),
    /// In their file.
    Mapped(FileBytes),
}

impl TensorBytes {
    /// The range of a file, if that is where the bytes are.
    pub fn mapped(&self) -> Option<&FileBytes> {
        if let Self::Mapped(bytes) = self { Some(bytes) } else { None }
    }

    /// Gives the pages of a range back to the system, if the bytes are in a file. They stay readable.
    pub fn release(&self, range: Range<usize>) {
        if let Self::Mapped(bytes) = self {
            bytes.slice(range).release();
        }
    }

    /// [`TensorBytes::release`] of all bytes.
    pub fn release_all(&self) {
        self.release(0..self.len());
    }
}

impl Deref for TensorBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for TensorBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl PartialEq for TensorBytes {
    /// Whether the bytes are equal, wherever they are.
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl fmt::Debug for TensorBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> Arc<MappedFile> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Arc::new(MappedFile::open(file.path()).unwrap())
    }

    #[test]
    fn words_are_whole_and_aligned() {
        let file = file(&[1, 0, 0, 0, 0, 2, 0, 0, 9]);
        let words = |range: Range<usize>| FileBytes::new(&file, range).words().map(<[u32]>::to_vec);
        assert_eq!(words(0..8), Some(vec![1, 0x200]));
        assert_eq!(words(4..8), Some(vec![0x200]));
        assert_eq!((words(1..5), words(0..9), words(2..6)), (None, None, None));
    }

    #[test]
    fn only_neighbours_in_one_file_are_joined() {
        let (one, two) = (file(b"abcdef"), file(b"abcdef"));
        let part = |file, range| FileBytes::new(file, range);
        let joined = part(&one, 1..3).joined(&part(&one, 3..5)).unwrap();
        assert_eq!((&joined[..], &joined.slice(1..3)[..]), (&b"bcde"[..], &b"cd"[..]));
        assert!(part(&one, 1..3).joined(&part(&one, 4..5)).is_none());
        assert!(part(&one, 1..3).joined(&part(&two, 3..5)).is_none());
    }

    #[test]
    fn released_bytes_are_read_again() {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let bytes = FileBytes::new(&file(&content), 0..content.len());
        bytes.prefetch();
        assert_eq!(&bytes[..], content);
        bytes.slice(5000..90_000).release();
        bytes.release();
        assert_eq!(TensorBytes::Mapped(bytes), TensorBytes::Owned(content));
    }
}
