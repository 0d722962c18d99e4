//! GGUF files (llama.cpp's format): metadata and memory-mapped tensors.
//!
//! Tensors keep their GGUF names and stored types. `checkpoint::weights` maps the names and undoes
//! llama.cpp's row order. `gguf_parse` parses the header,
//! [`gguf_metadata`](super::gguf_metadata) holds its key-value pairs, and
//! `gguf_split` knows models that are split over several files.

use super::file_bytes::FileBytes;
pub use super::gguf_metadata::{Metadata, Value};
use super::gguf_parse;
pub use super::gguf_parse::TensorInfo;
use super::gguf_split::Split;
use super::host_tensor::HostTensor;
use super::mapped_file::MappedFile;
use crate::error::{Context, Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// An open GGUF file, or the set of files of a split model.
pub struct Gguf {
    pub metadata: Metadata,
    /// By name, each with the index of its file.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    /// The file, or the parts in order; never empty.
    files: Vec<Arc<MappedFile>>,
}

impl Gguf {
    /// Opens a file and reads its header. Checks that every tensor lies within the file. If the
    /// file is the first part of a split model, opens the other parts too.
    ///
    /// Fails on another part, on a missing one, and on parts that do not belong together.
    pub fn open(path: &Path) -> Result<Self> {
        let mut gguf = Self { metadata: Metadata::default(), tensors: BTreeMap::new(), files: Vec::new() };
        gguf.metadata = gguf.add(path)?;
        let reading = || format!("reading {}", path.display());
        if let Some(split) = Split::read(&gguf.metadata).with_context(reading)? {
            for (no, part) in (1..).zip(split.others(path).with_context(reading)?) {
                let missing = || format!("part {} of {} of {}", no + 1, split.count, path.display());
                let metadata = gguf.add(&part).with_context(missing)?;
                split.check_part(no, &metadata, &part)?;
            }
            let expected = gguf.metadata.u64("split.tensors.count").with_context(reading)?;
            crate::ensure!(
                expected == gguf.tensors.len() as u64,
                "{}: expected {expected} tensors (split.tensors.count) in {} parts, found {}; download the parts again",
                path.display(),
                split.count,
                gguf.tensors.len()
            );
        }
        Ok(gguf)
    }

    /// Opens one file, adds its tensors, and returns its metadata.
    fn add(&mut self, path: &Path) -> Result<Metadata> {
        let file = MappedFile::open(path)?;
        let header = gguf_parse::parse(&file).with_context(|| format!("reading {}", path.display()))?;
        for (name, info) in header.tensors {
            if let Some((first, _)) = self.tensors.get(&name) {
                let first = self.files[*first].path().display();
                crate::bail!("tensor '{name}' is in two parts of a split model: {first} and {}", path.display())
            }
            self.tensors.insert(name, (self.files.len(), info));
        }
        file.release(0..file.len()); // the header is not read again
        self.files.push(Arc::new(file));
        Ok(header.metadata)
    }

    /// The path of the file, or of the first part.
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, (_, info))| (name.as_str(), info))
    }

    /// The tensor with this name, if there is one.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(_, info)| info)
    }

    /// Copies a tensor from its file in its stored type.
    pub fn read(&self, name: &str) -> Result<HostTensor> {
        let (_, info) = self.find(name)?;
        HostTensor::new(info.dtype, info.shape.clone(), self.bytes(name)?.to_vec())
    }

    /// A tensor in its stored type, without a copy of its bytes.
    pub fn mapped(&self, name: &str) -> Result<HostTensor> {
        let (file, info) = self.find(name)?;
        let bytes = FileBytes::new(&self.files[*file], info.offset..info.offset + info.n_bytes);
        HostTensor::mapped(info.dtype, info.shape.clone(), bytes)
    }

    /// The bytes of a tensor in its file.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let (file, info) = self.find(name)?;
        Ok(&self.files[*file][info.offset..info.offset + info.n_bytes])
    }

    fn find(&self, name: &str) -> Result<&(usize, TensorInfo)> {
        let missing = || Error::new(format!("{} has no tensor '{name}'", self.path().display()));
        self.tensors.get(name).ok_or_else(missing)
    }
}

/// Writes small GGUF files for the tests of this and other modules.
#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::formats::dtype::DType;

    /// A value with its GGUF type number, as bytes.
    fn value_bytes(value: &Value) -> (u32, Vec<u8>) {
        match value {
            Value::U64(v) => (10, v.to_le_bytes().to_vec()),
            Value::I64(v) => (11, v.to_le_bytes().to_vec()),
            Value::F64(v) => (12, v.to_le_bytes().to_vec()),
            Value::Bool(v) => (7, vec![u8::from(*v)]),
            Value::String(v) => (8, string_bytes(v)),
            Value::Array(v) => {
                let parts: Vec<_> = v.iter().map(value_bytes).collect();
                let mut out = parts.first().map_or(0, |p| p.0).to_le_bytes().to_vec();
                out.extend((v.len() as u64).to_le_bytes());
                out.extend(parts.into_iter().flat_map(|p| p.1));
                (9, out)
            }
        }
    }

    fn string_bytes(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn ggml_number(dtype: DType) -> u32 {
        (0..64).find(|&n| DType::from_ggml(n).is_ok_and(|d| d == dtype)).unwrap()
    }

    /// The bytes of a version 3 file with alignment 32.
    pub fn gguf_bytes(pairs: &[(&str, Value)], tensors: &[(&str, HostTensor)]) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((pairs.len() as u64).to_le_bytes());
        for (key, value) in pairs {
            let (kind, bytes) = value_bytes(value);
            out.extend(string_bytes(key));
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        let mut data = Vec::new();
        for (name, tensor) in tensors {
            out.extend(string_bytes(name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
            out.extend(ggml_number(tensor.dtype).to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend_from_slice(&tensor.bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::testing::gguf_bytes;
    use super::*;
    use crate::formats::dtype::DType;

    fn sample() -> Vec<u8> {
        let words = ["a", "ß", ""].map(|w| Value::String(w.into())).to_vec();
        let nested = Value::Array(vec![Value::Array(vec![Value::I64(-1)])]);
        gguf_bytes(
            &[
                ("general.architecture", Value::String("llama".into())),
                ("tokenizer.ggml.tokens", Value::Array(words)),
                ("llama.eps", Value::F64(1e-5)),
                ("llama.flag", Value::Bool(true)),
                ("llama.nested", nested),
            ],
            &[
                ("x", HostTensor::from_f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
                ("q", HostTensor::new(DType::Q8_0, vec![1, 32], vec![1; 34]).unwrap()),
            ],
        )
    }

    fn open(bytes: &[u8]) -> Result<Gguf> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Gguf::open(file.path())
    }

    fn error_of(bytes: &[u8]) -> String {
        open(bytes).err().expect("must be refused").to_string()
    }

    fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let mut bytes = sample();
        let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    }

    #[test]
    fn reads_what_was_written() {
        let gguf = open(&sample()).unwrap();
        assert_eq!(gguf.metadata.strings("tokenizer.ggml.tokens").unwrap(), ["a", "ß", ""]);
        assert_eq!(gguf.metadata.f64("llama.eps").unwrap(), 1e-5);
        assert!(matches!(gguf.metadata.get("llama.nested"), Some(Value::Array(v)) if v.len() == 1));
        let x = gguf.read("x").unwrap();
        assert_eq!((x.shape.as_slice(), x.to_f32().unwrap()), (&[2, 3][..], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(gguf.read("q").unwrap().dtype, DType::Q8_0);
        assert!(gguf.read("y").unwrap_err().to_string().contains("'y'"));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = sample();
        let padding = 30; // pads the last tensor from 34 to 64 bytes; it may be missing
        for n in 1..whole.len() - padding {
            assert!(gguf_parse::parse(&whole[..n]).is_err(), "cut to {n} of {} bytes", whole.len());
        }
    }

    #[test]
    fn no_changed_byte_panics_or_hangs() {
        let whole = sample();
        for at in 0..whole.len() {
            for change in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = change;
                let _ = gguf_parse::parse(&bytes);
            }
        }
    }

    #[test]
    fn huge_counts_are_refused_before_allocation() {
        for at in [8, 16] {
            let mut bytes = sample();
            bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            let e = error_of(&bytes);
            assert!(e.contains("18446744073709551615"), "{e}");
        }
    }

    #[test]
    fn wrong_headers_are_named() {
        assert!(error_of(b"PK\x03\x04 and more than that").contains("not a GGUF file"));
        let mut bytes = sample();
        bytes[4] = 1;
        assert!(error_of(&bytes).contains("version 1"));
        bytes[4..8].copy_from_slice(&[0, 0, 0, 3]);
        assert!(error_of(&bytes).contains("big-endian"));
        let e = error_of(&replaced("ß".as_bytes(), b"\xff\xfe"));
        assert!(e.contains("UTF-8") && e.contains("tokenizer.ggml.tokens"), "{e}");
        let twice = [("llama.eps", Value::F64(1.0)), ("llama.eps", Value::F64(2.0))];
        assert!(error_of(&gguf_bytes(&twice, &[])).contains("'llama.eps' is listed twice"));
    }

    #[test]
    fn alignment_nesting_and_offsets_are_checked() {
        let one = [("x", HostTensor::from_f32(&[1], &[1.0]))];
        let e = error_of(&gguf_bytes(&[("general.alignment", Value::U64(24))], &one));
        assert!(e.contains("general.alignment") && e.contains("24"), "{e}");
        assert!(open(&gguf_bytes(&[("general.alignment", Value::U64(1))], &[])).is_ok());
        let deep = (0..5).fold(Value::U64(1), |v, _| Value::Array(vec![v]));
        assert!(error_of(&gguf_bytes(&[("deep", deep)], &one)).contains("nested"));
        let mut bytes = gguf_bytes(&[], &one);
        let offset_at = 24 + 9 + 4 + 8 + 4;
        bytes[offset_at..offset_at + 8].copy_from_slice(&(u64::MAX - 31).to_le_bytes());
        assert!(error_of(&bytes).contains("impossible offset"));
        bytes[offset_at..offset_at + 8].copy_from_slice(&64u64.to_le_bytes());
        assert!(error_of(&bytes).contains("truncated"));
    }
}
