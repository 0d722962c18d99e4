//! Memory-mapped safetensors checkpoints: one file, or a folder with one file or a sharded index.
//!
//! Tensors keep their stored types. `checkpoint::weights` knows the names that a model needs.
//! [`safetensors_write`](super::safetensors_write) writes files. Format:
//! <https://huggingface.co/docs/safetensors>.

use super::dtype::DType;
use super::file_bytes::FileBytes;
use super::host_tensor::HostTensor;
use super::mapped_file::MappedFile;
use crate::error::{Context, Error, Result};
use crate::small_file;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The format's limit on the header.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// One or several mapped files, with lookup of tensors by name.
pub struct Checkpoint {
    shards: Vec<Shard>,
    /// Index of each tensor's shard.
    shard_of: BTreeMap<String, usize>,
}

struct Shard {
    file: Arc<MappedFile>,
    header: Metadata,
    data_start: usize,
}

impl Checkpoint {
    /// Opens a file, or a folder with `model.safetensors` or `model.safetensors.index.json`.
    ///
    /// Reads every header and checks that every tensor lies within its file.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Self::of_files(vec![Shard::open(path)?]);
        }
        if path.join(SINGLE).is_file() {
            return Self::of_files(vec![Shard::open(&path.join(SINGLE))?]);
        }
        if path.join(INDEX).is_file() {
            return Self::open_index(path);
        }
        let old = path.join("pytorch_model.bin").is_file() || path.join("pytorch_model.bin.index.json").is_file();
        let advice = if old { "; pytorch_model.bin is not supported: save the model as safetensors" } else { "" };
        crate::bail!("{} has neither {SINGLE} nor {INDEX}{advice}", path.display())
    }

    /// Reads a file that is part of the program, under a name for messages.
    pub fn of_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::of_files(vec![Shard::of(MappedFile::of_static(name, bytes))?])
    }

    fn of_files(shards: Vec<Shard>) -> Result<Self> {
        let mut shard_of = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            for name in shard.header.offset_keys() {
                crate::ensure!(shard_of.insert(name.clone(), i).is_none(), "tensor '{name}' is in two files");
            }
        }
        Ok(Self { shards, shard_of })
    }

    fn open_index(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX);
        let mut shards = Vec::new();
        let mut shard_of = BTreeMap::new();
        for (file, names) in read_index(&index)? {
            let shard =
                Shard::open(&folder.join(&file)).with_context(|| format!("{} lists {file}", index.display()))?;
            for name in names {
                crate::ensure!(
                    shard.header.info(&name).is_some(),
                    "{} says that {file} has tensor '{name}', but it does not",
                    index.display()
                );
                shard_of.insert(name, shards.len());
            }
            shards.push(shard);
        }
        Ok(Self { shards, shard_of })
    }

    /// The names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shard_of.keys().map(String::as_str)
    }

    /// Whether the tensor exists.
    pub fn contains(&self, name: &str) -> bool {
        self.shard_of.contains_key(name)
    }

    /// Type and shape of a tensor. Fails if it is missing or its type is not supported.
    pub fn info(&self, name: &str) -> Result<(DType, Vec<usize>)> {
        let (shard, info) = self.find(name)?;
        let dtype = DType::from_safetensors(info.dtype)
            .with_context(|| format!("{}: tensor '{name}'", shard.file.path().display()))?;
        Ok((dtype, info.shape.clone()))
    }

    /// Copies a tensor from the file in its stored type.
    pub fn read(&self, name: &str) -> Result<HostTensor> {
        let (dtype, shape) = self.info(name)?;
        HostTensor::new(dtype, shape, self.bytes(name)?.to_vec())
    }

    /// A tensor in its stored type, without a copy of its bytes.
    pub fn mapped(&self, name: &str) -> Result<HostTensor> {
        let (dtype, shape) = self.info(name)?;
        let (shard, info) = self.find(name)?;
        HostTensor::mapped(dtype, shape, FileBytes::new(&shard.file, shard.range(info)))
    }

    /// The bytes of a tensor in its file.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let (shard, info) = self.find(name)?;
        Ok(&shard.file[shard.range(info)])
    }

    fn find(&self, name: &str) -> Result<(&Shard, &TensorInfo)> {
        let found = self.shard_of.get(name).map(|&i| &self.shards[i]);
        let found = found.and_then(|shard| Some((shard, shard.header.info(name)?)));
        found.ok_or_else(|| {
            let place = self.shards.first().map_or(String::new(), |s| s.file.path().display().to_string());
            Error::new(format!("{place}: no tensor '{name}' among {} tensors", self.shard_of.len()))
        })
    }
}

impl Shard {
    /// The bytes of a tensor within the file.
    fn range(&self, info: &TensorInfo) -> Range<usize> {
        let (start, end) = info.data_offsets;
        self.data_start + start..self.data_start + end
    }

    fn open(path: &Path) -> Result<Self> {
        Self::of(MappedFile::open(path)?)
    }

    fn of(file: MappedFile) -> Result<Self> {
        let (header, data_start) =
            read_header(&file).with_context(|| format!("{} is no valid safetensors file", file.path().display()))?;
        Ok(Self { file: Arc::new(file), header, data_start })
    }
}

/// Reads the file's parts: length (u64), JSON header, data. The safetensors crate checks the
/// header. The lengths are checked here, so that the error can say how many bytes are missing and
/// no sum of sizes from the file can overflow.
fn read_header(bytes: &[u8]) -> Result<(Metadata, usize)> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        crate::bail!("expected at least 8 bytes, found {}", bytes.len())
    };
    let length = u64::from_le_bytes(*length);
    crate::ensure!(
        length <= MAX_HEADER_BYTES,
        "expected a header of at most {MAX_HEADER_BYTES} bytes, found {length}: this is another kind of file"
    );
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        crate::bail!("expected a header of {length} bytes, found {}: the file is truncated", rest.len())
    };
    let text = std::str::from_utf8(header).context("header")?;
    let Entries(mut entries) = serde_json::from_str(text).context("header")?;
    let mut names = BTreeSet::new();
    if let Some((name, _)) = entries.iter().find(|(name, _)| !names.insert(name.as_str())) {
        crate::bail!("header: tensor '{name}' is listed twice");
    }
    entries.sort_by_key(|(_, info)| info.data_offsets);
    let header = Metadata::new(None, entries).context("header")?;
    let expected = header.data_len();
    crate::ensure!(
        data.len() >= expected,
        "expected {expected} bytes of tensors, found {}: the file is truncated; download it again",
        data.len()
    );
    crate::ensure!(data.len() == expected, "expected {expected} bytes of tensors, found {}", data.len());
    Ok((header, bytes.len() - data.len()))
}

/// The tensors of a header in file order. The deserializer of the safetensors crate would take
/// fifty times the memory of the header.
struct Entries(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?; // free text, not needed
                continue;
            }
            let info = map.next_value().map_err(|e| A::Error::custom(format!("tensor '{name}': {e}")))?;
            entries.push((name, info));
        }
        Ok(Entries(entries))
    }
}

/// The shard files of an index, each with the names of its tensors.
fn read_index(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let read = || -> Result<Index> { Ok(serde_json::from_slice(&small_file::read_bytes(path, MAX_HEADER_BYTES)?)?) };
    let index = read().with_context(|| format!("reading {}", path.display()))?;
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for (name, file) in index.weight_map {
        let plain = Path::new(&file).file_name().is_some_and(|f| f == file.as_str());
        crate::ensure!(plain, "{}: {file:?} is no plain file name: shards must be in the same folder", path.display());
        files.entry(file).or_default().push(name);
    }
    crate::ensure!(!files.is_empty(), "{} lists no tensors", path.display());
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::safetensors_write::write_safetensors;
    use std::fs;

    fn two() -> Vec<(String, HostTensor)> {
        let half = HostTensor::new(DType::BF16, vec![2], vec![0x80, 0x3f, 0x00, 0x40]).unwrap();
        vec![("b".into(), half), ("a".into(), HostTensor::from_f32(&[1, 2], &[3.0, 4.0]))]
    }

    fn error_of(path: &Path) -> String {
        Checkpoint::open(path).err().expect("must be refused").to_string()
    }

    #[test]
    fn a_file_and_its_folder_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(SINGLE);
        write_safetensors(&file, &two(), &[]).unwrap();
        for path in [file.as_path(), dir.path()] {
            let checkpoint = Checkpoint::open(path).unwrap();
            assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(checkpoint.info("b").unwrap(), (DType::BF16, vec![2]));
            assert_eq!(checkpoint.read("b").unwrap().to_f32().unwrap(), [1.0, 2.0]);
            assert_eq!(checkpoint.read("a").unwrap(), two()[1].1);
            assert!(checkpoint.read("c").unwrap_err().to_string().contains("'c'"));
        }
    }

    #[test]
    fn shards_are_found_through_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let index = |map: &str| fs::write(dir.path().join(INDEX), format!("{{\"weight_map\":{map}}}")).unwrap();
        write_safetensors(&dir.path().join("one.safetensors"), &two()[..1], &[]).unwrap();
        index(r#"{"a":"two.safetensors","b":"one.safetensors"}"#);
        assert!(error_of(dir.path()).contains("two.safetensors"), "the missing shard is named");
        write_safetensors(&dir.path().join("two.safetensors"), &two()[1..], &[]).unwrap();
        assert_eq!(Checkpoint::open(dir.path()).unwrap().read("a").unwrap(), two()[1].1);
        index(r#"{"a":"one.safetensors"}"#);
        assert!(error_of(dir.path()).contains("has tensor 'a', but it does not"));
        index(r#"{"a":"../one.safetensors"}"#);
        assert!(error_of(dir.path()).contains("no plain file name"));
        index("7");
        assert!(error_of(dir.path()).contains(INDEX));
    }

    #[test]
    fn damage_is_named_and_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.safetensors");
        write_safetensors(&file, &two(), &[]).unwrap();
        let whole = fs::read(&file).unwrap();
        for n in 0..whole.len() {
            assert!(read_header(&whole[..n]).is_err(), "cut to {n}");
        }
        for at in 0..whole.len() - 12 {
            for change in [0, b'0', b'9', b'}', 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = change;
                let _ = read_header(&bytes);
            }
        }
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        let e = error_of(&file);
        assert!(e.contains("x.safetensors") && e.contains("expected 12 bytes") && e.contains("found 11"), "{e}");
        fs::write(&file, b"GGUF\x03\0\0\0 and so on").unwrap();
        assert!(error_of(&file).contains("another kind of file"));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        // Eight tensors of the largest size: together they end 8 bytes before the largest u64.
        let size = u64::MAX / 8;
        let entries: Vec<_> = (0..8)
            .map(|i| {
                let (start, end) = (i * size, (i + 1) * size);
                format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
            })
            .collect();
        let header = format!("{{{}}}", entries.join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        assert!(read_header(&bytes).err().unwrap().to_string().contains("truncated"));
    }

    #[test]
    fn a_folder_without_weights_says_what_was_expected() {
        let dir = tempfile::tempdir().unwrap();
        assert!(error_of(dir.path()).contains(INDEX));
        fs::write(dir.path().join("pytorch_model.bin"), b"").unwrap();
        assert!(error_of(dir.path()).contains("save the model as safetensors"));
    }
}
