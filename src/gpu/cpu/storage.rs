//! The content of one buffer of the CPU executor: in memory of its own, or in the pages of a file.

use crate::error::Result;
use crate::formats::file_bytes::FileBytes;
use crate::gpu::{Buffer, Kind, Real};

use super::host_memory::{filled, zeroed};

/// Content of one buffer.
pub(super) enum Storage<T> {
    Real(Vec<T>),
    Words(Vec<u32>),
    /// The words of a file, which are also its reals if `T` is f32. A write copies them first.
    Mapped(FileBytes),
}

impl<T: KeepsWords> Storage<T> {
    /// Fresh memory for a buffer: NaN, or words of all ones.
    pub fn fresh(buffer: &Buffer) -> Result<Self> {
        Ok(match buffer.kind() {
            Kind::Real => Self::Real(filled(T::NAN, buffer.len())?),
            _ => Self::Words(filled(u32::MAX, buffer.len())?),
        })
    }

    /// Zeros for a buffer of words that is about to be written whole. The system hands them out as they
    /// are touched.
    pub fn zeros(buffer: &Buffer) -> Result<Self> {
        Ok(Self::Words(zeroed(buffer.len())?))
    }

    /// The words of a file. `None` if the executor cannot compute with them in place.
    pub fn mapped(bytes: &FileBytes) -> Option<Self> {
        bytes.words().and_then(T::of_words).map(|_| Self::Mapped(bytes.clone()))
    }

    pub fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped(_))
    }

    pub fn real(&self) -> &[T] {
        match self {
            Self::Real(v) => v,
            Self::Words(_) => panic!("reals are read from a buffer of words"),
            Self::Mapped(bytes) => T::of_words(words_of(bytes)).expect("only words that serve as reals are kept"),
        }
    }

    pub fn real_mut(&mut self) -> &mut [T] {
        if self.is_mapped() {
            *self = Self::Real(self.real().to_vec());
        }
        match self {
            Self::Real(v) => v,
            _ => panic!("reals are written to a buffer of words"),
        }
    }

    pub fn words(&self) -> &[u32] {
        match self {
            Self::Words(v) => v,
            Self::Real(_) => panic!("words are read from a buffer of reals"),
            Self::Mapped(bytes) => words_of(bytes),
        }
    }

    pub fn words_mut(&mut self) -> &mut [u32] {
        if self.is_mapped() {
            *self = Self::Words(self.words().to_vec());
        }
        match self {
            Self::Words(v) => v,
            _ => panic!("words are written to a buffer of reals"),
        }
    }
}

fn words_of(bytes: &FileBytes) -> &[u32] {
    bytes.words().expect("only bytes that are words are kept")
}

/// Number types by whether the words of a file serve as their values.
pub trait KeepsWords: Real {
    /// The values of words. `None` for f64: the oracle's memory is its own.
    fn of_words(words: &[u32]) -> Option<&[Self]>;
}

impl KeepsWords for f32 {
    fn of_words(words: &[u32]) -> Option<&[f32]> {
        Some(bytemuck::cast_slice(words))
    }
}

impl KeepsWords for f64 {
    fn of_words(_: &[u32]) -> Option<&[f64]> {
        None
    }
}
