//! The content of one buffer of the CPU executor: in memory of its own, or in the pages of a file.

use memmap2::MmapMut;

use crate::error::Result;
use crate::formats::file_bytes::FileBytes;
use crate::gpu::{Buffer, Kind, Real};

use super::host_memory::{filled, zeroed_pages};

/// Words that are worth pages of their own.
const PAGES_FROM: usize = 1 << 20;

/// Content of one buffer.
pub(super) enum Storage<T> {
    Real(Vec<T>),
    Words(Vec<u32>),
    /// Words in large pages, which the system maps and finds faster.
    Pages(MmapMut),
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

    /// Memory for a buffer of words that is about to be written whole.
    pub fn zeros(buffer: &Buffer) -> Result<Self> {
        if buffer.len() < PAGES_FROM {
            return Ok(Self::Words(filled(0, buffer.len())?));
        }
        zeroed_pages(buffer.len()).map(Self::Pages)
    }

    /// The words of a file. `None` if the executor cannot compute with them in place.
    pub fn mapped(bytes: &FileBytes) -> Option<Self> {
        bytes.words().and_then(T::of_words).map(|_| Self::Mapped(bytes.clone()))
    }

    /// Elements in memory of its own.
    pub fn n_owned(&self) -> usize {
        match self {
            Self::Real(v) => v.len(),
            Self::Words(v) => v.len(),
            Self::Pages(pages) => pages.len() / 4,
            Self::Mapped(_) => 0,
        }
    }

    pub fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped(_))
    }

    pub fn real(&self) -> &[T] {
        match self {
            Self::Real(v) => v,
            Self::Words(_) | Self::Pages(_) => panic!("reals are read from a buffer of words"),
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
            Self::Pages(pages) => bytemuck::cast_slice(pages),
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
            Self::Pages(pages) => bytemuck::cast_slice_mut(pages),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::formats::file_bytes::FileBytes;
    use crate::formats::mapped_file::MappedFile;
    use crate::gpu::cpu::executor::CpuExecutor;
    use crate::gpu::cpu::host_memory::check_host_memory;
    use crate::gpu::cpu::run_memory::Reference;
    use crate::gpu::{Buffer, Executor, Kind, Recording, Span};

    /// `n` words, counted from 1, in a file behind so many other bytes.
    fn file(n: u32, before: usize) -> FileBytes {
        let mut bytes = vec![0xff; before];
        bytes.extend((1..=n).flat_map(u32::to_le_bytes));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        FileBytes::new(&Arc::new(MappedFile::open(file.path()).unwrap()), before..bytes.len())
    }

    fn buffer(kind: Kind, len: usize) -> Span {
        Buffer::persistent("from a file", kind, len).span()
    }

    #[test]
    fn pages_are_kept_in_f32_and_copied_in_f64() {
        fn content<T: Reference>(kept: bool) {
            let (bytes, mut device) = (file(128, 64), CpuExecutor::<T>::new());
            let (words, reals) = (buffer(Kind::Packed, 128), buffer(Kind::Real, 128));
            device.write_mapped(&words, &bytes).unwrap();
            device.write_mapped(&reals, &bytes).unwrap();
            let expected: Vec<u32> = (1..=128).collect();
            assert_eq!(device.read_words(&words).unwrap(), expected);
            let read = device.read_real(&reals).unwrap();
            assert_eq!(read.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected);
            let memory = device.memory();
            assert_eq!((memory.persistent_bytes, memory.mapped_bytes), (1024, if kept { 1024 } else { 0 }));
            drop((words, reals));
            device.run(&Recording::new()).unwrap();
            assert_eq!(device.memory().persistent_bytes, 0);
        }
        content::<f32>(true);
        content::<f64>(false);
    }

    #[test]
    fn a_part_of_a_buffer_is_copied() {
        let mut device = CpuExecutor::<f32>::new();
        let whole = buffer(Kind::Packed, 192);
        device.write_words(&whole, &[7; 192]).unwrap();
        device.write_mapped(&whole.buffer.slice(64, 64), &file(64, 0)).unwrap();
        let expected = [vec![7; 64], (1..=64).collect(), vec![7; 64]].concat();
        assert_eq!(device.read_words(&whole).unwrap(), expected);
        assert_eq!(device.memory().mapped_bytes, 0);
    }

    #[test]
    fn a_write_copies_the_pages_first() {
        let bytes = file(128, 0);
        let mut device = CpuExecutor::<f32>::new();
        let [written, cleared, other] = [(); 3].map(|()| buffer(Kind::Packed, 128));
        let reals = buffer(Kind::Real, 128);
        for span in [&written, &cleared, &other, &reals] {
            device.write_mapped(span, &bytes).unwrap();
        }
        device.write_words(&written, &[9]).unwrap();
        device.write_real(&reals, &[0.5]).unwrap();
        let mut rec = Recording::new();
        rec.clear(&cleared.buffer.slice(64, 64));
        device.run(&rec).unwrap();
        let own: Vec<u32> = (1..=128).collect();
        assert_eq!(device.read_words(&written).unwrap(), [&[9], &own[1..]].concat());
        assert_eq!(device.read_words(&cleared).unwrap(), [&own[..64], &[0; 64]].concat());
        let read = device.read_real(&reals).unwrap();
        assert!(read[0] == 0.5 && read[1..].iter().zip(&own[1..]).all(|(x, w)| x.to_bits() == *w));
        assert_eq!(device.read_words(&other).unwrap(), own);
        assert_eq!(bytes.words().unwrap(), own);
        assert_eq!(device.memory().mapped_bytes, 512);
    }

    #[test]
    fn words_are_filled_in_parts_that_begin_at_units() {
        fn check(device: &mut dyn Executor) {
            let n = 53 * 64 * 100; // more than one part
            for (whole, from) in [(buffer(Kind::Packed, n), 0), (buffer(Kind::Packed, n + 128), 64)] {
                let span = whole.buffer.slice(from, n);
                let fill = |first: usize, words: &mut [u32]| {
                    assert!(first.is_multiple_of(53) && words.len().is_multiple_of(53));
                    words.iter_mut().zip(first..).for_each(|(word, i)| *word = i as u32);
                };
                device.fill_words(&span, 53, &fill).unwrap();
                assert!(device.read_words(&span).unwrap().iter().zip(0..).all(|(word, i)| *word == i));
                assert!(device.read_words(&whole).unwrap()[..from].iter().all(|word| *word == u32::MAX));
            }
        }
        check(&mut CpuExecutor::<f32>::new());
        check(&mut CpuExecutor::<f64>::new());
    }

    #[test]
    fn a_load_is_not_refused_for_pages_and_a_run_keeps_them() {
        let mut device = CpuExecutor::<f32>::new().pretending_memory(1000);
        let span = buffer(Kind::Packed, 1024);
        device.write_mapped(&span, &file(1024, 0)).unwrap();
        assert!(device.write_words(&buffer(Kind::Packed, 1024), &[1]).is_err());
        assert_eq!(check_host_memory(1 << 20, u64::MAX).ok(), Some(()));
        #[cfg(target_os = "linux")]
        assert!(check_host_memory(64 << 20, u64::MAX).is_err());
    }
}
