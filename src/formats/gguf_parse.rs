//! Parser for the header of a GGUF file from untrusted bytes.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3,
//! little-endian. Before it allocates, the parser checks every count against the remaining bytes.
//! It also limits the total number of values. So a damaged or hostile file gives an error instead
//! of a crash. [`gguf`](super::gguf) uses the result.

use super::dtype::DType;
use super::gguf_metadata::{Metadata, Value};
use crate::error::{Context, Error, Result};
use std::collections::BTreeMap;

/// Most values in the metadata of a file: several times the largest vocabularies with their merges,
/// scores and types.
const MAX_VALUES: u64 = 1 << 24;
/// Most values of one or two bytes in all arrays. They take an order of magnitude more in memory.
/// Known files have a few thousand.
const MAX_SMALL_VALUES: u64 = 1 << 20;
/// Deepest nesting of arrays. No known file has more than one level.
const MAX_DEPTH: usize = 3;
/// Most dimensions of a tensor (ggml's limit).
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// Type, shape and position of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub dtype: DType,
    /// Row-major; the last dimension is contiguous (the reverse of ggml's order).
    pub shape: Vec<usize>,
    /// Bytes from the start of its file.
    pub offset: usize,
    pub n_bytes: usize,
}

/// Everything before the tensor data.
pub struct Header {
    pub metadata: Metadata,
    /// By name. Offsets are from the start of the file and lie within it.
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// Parses the header of the file in `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Header> {
    let mut at = Cursor { bytes, position: 0, values_left: MAX_VALUES, small_left: MAX_SMALL_VALUES };
    let magic = at.take(4, "the magic number")?;
    crate::ensure!(magic == b"GGUF", "not a GGUF file: expected the magic number \"GGUF\", found {magic:02x?}");
    let version = at.u32("the version")?;
    if version.swap_bytes() < 16 {
        crate::bail!("big-endian GGUF files are not supported; expected a little-endian one");
    }
    crate::ensure!((2..=3).contains(&version), "GGUF version {version} is not supported; expected 2 or 3");
    // The smallest tensor info has 24 bytes (empty name, no dimensions), the smallest pair 13.
    let n_tensors = at.count(24, "tensors")?;
    let n_pairs = at.count(13, "metadata pairs")?;
    let metadata = at.metadata(n_pairs)?;
    let infos = at.tensor_infos(n_tensors)?;
    let tensors = place(infos, &metadata, at.position, bytes.len())?;
    Ok(Header { metadata, tensors })
}

/// Converts the offsets of tensors to offsets in the file. The data starts at the first aligned
/// byte after the header.
fn place(
    infos: Vec<(String, TensorInfo)>,
    metadata: &Metadata,
    header_bytes: usize,
    file_bytes: usize,
) -> Result<BTreeMap<String, TensorInfo>> {
    let alignment = match metadata.get("general.alignment") {
        Some(_) => metadata.u64("general.alignment")?,
        None => DEFAULT_ALIGNMENT,
    };
    crate::ensure!(
        alignment.is_power_of_two() && alignment <= 1 << 30,
        "GGUF metadata key 'general.alignment': expected a power of two, found {alignment}"
    );
    let data_start = header_bytes.checked_next_multiple_of(alignment as usize).unwrap_or(usize::MAX);
    let mut tensors = BTreeMap::new();
    for (name, mut info) in infos {
        crate::ensure!(
            (info.offset as u64).is_multiple_of(alignment),
            "tensor '{name}' starts at offset {}, which is no multiple of the alignment {alignment}",
            info.offset
        );
        let start = data_start.checked_add(info.offset);
        let end = start.and_then(|s| s.checked_add(info.n_bytes));
        let (Some(start), Some(end)) = (start, end) else {
            crate::bail!("tensor '{name}' has the impossible offset {}", info.offset)
        };
        crate::ensure!(
            end <= file_bytes,
            "tensor '{name}' ends at byte {end}, but the file has only {file_bytes} bytes: it is truncated; download it again"
        );
        info.offset = start;
        crate::ensure!(tensors.insert(name.clone(), info).is_none(), "tensor '{name}' is listed twice");
    }
    refuse_overlaps(&tensors)?;
    Ok(tensors)
}

/// Checks that no two tensors overlap, so that all tensors together are never larger than the file.
fn refuse_overlaps(tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
    let mut spans: Vec<_> = tensors.iter().map(|(name, t)| (t.offset, t.offset + t.n_bytes, name)).collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        let [(_, end, first), (start, _, second)] = pair else { continue };
        crate::ensure!(end <= start, "tensors '{first}' and '{second}' overlap: the file is damaged");
    }
    Ok(())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    values_left: u64,
    small_left: u64,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8]> {
        let left = &self.bytes[self.position..];
        let taken = usize::try_from(n).ok().and_then(|n| left.get(..n));
        let Some(taken) = taken else {
            crate::bail!(
                "the file ends in {what}: expected {n} bytes at byte {}, found {}; it is truncated or damaged",
                self.position,
                left.len()
            )
        };
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Reads a count of items of at least `least_bytes` bytes each. Fails if they cannot fit in the
    /// rest of the file.
    fn count(&mut self, least_bytes: u64, what: &str) -> Result<u64> {
        let n = self.u64(what)?;
        let left = (self.bytes.len() - self.position) as u64;
        crate::ensure!(
            n <= left / least_bytes,
            "the file declares {n} {what}, but only {left} bytes are left: it is truncated or damaged"
        );
        Ok(n)
    }

    fn string(&mut self, what: &str) -> Result<String> {
        let n = self.u64(what)?;
        let start = self.position;
        let bytes = self.take(n, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(Error::new(format!("{what} at byte {start} is not valid UTF-8 ({e})"))),
        }
    }

    fn metadata(&mut self, n_pairs: u64) -> Result<Metadata> {
        let mut metadata = Metadata::default();
        for _ in 0..n_pairs {
            let key = self.string("a metadata key")?;
            let context = || format!("GGUF metadata key '{key}'");
            let kind = self.u32("a value type").with_context(context)?;
            let value = self.value(kind, 0).with_context(context)?;
            crate::ensure!(metadata.insert(&key, value), "GGUF metadata key '{key}' is listed twice");
        }
        Ok(metadata)
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        let Some(left) = self.values_left.checked_sub(1) else {
            crate::bail!("the file has more than {MAX_VALUES} metadata values: it is damaged")
        };
        self.values_left = left;
        let what = "a metadata value";
        Ok(match kind {
            0 => Value::U64(self.array::<1>(what)?[0].into()),
            1 => Value::I64(i8::from_le_bytes(self.array(what)?).into()),
            2 => Value::U64(u16::from_le_bytes(self.array(what)?).into()),
            3 => Value::I64(i16::from_le_bytes(self.array(what)?).into()),
            4 => Value::U64(self.u32(what)?.into()),
            5 => Value::I64(i32::from_le_bytes(self.array(what)?).into()),
            6 => Value::F64(f32::from_le_bytes(self.array(what)?).into()),
            7 => match self.array::<1>(what)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => crate::bail!("expected 0 or 1 for a boolean, found {other}"),
            },
            8 => Value::String(self.string("a string value")?),
            9 => self.array_value(depth)?,
            10 => Value::U64(self.u64(what)?),
            11 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            12 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            other => crate::bail!("unknown value type {other}; expected 0 to 12"),
        })
    }

    fn array_value(&mut self, depth: usize) -> Result<Value> {
        crate::ensure!(depth < MAX_DEPTH, "arrays nested more than {MAX_DEPTH} deep");
        let kind = self.u32("an array's type")?;
        let least_bytes = match kind {
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            _ => 1,
        };
        let n = self.count(least_bytes, "array values")?;
        let most = if least_bytes < 4 { self.small_left } else { self.values_left };
        crate::ensure!(n <= most, "an array has {n} values, more than the limit of {most}: the file is damaged");
        if least_bytes < 4 {
            self.small_left -= n;
        }
        let mut values = Vec::with_capacity(n as usize);
        for _ in 0..n {
            values.push(self.value(kind, depth + 1)?);
        }
        Ok(Value::Array(values))
    }

    fn tensor_infos(&mut self, n_tensors: u64) -> Result<Vec<(String, TensorInfo)>> {
        let mut infos = Vec::new();
        for _ in 0..n_tensors {
            let name = self.string("a tensor name")?;
            let info = self.tensor_info().with_context(|| format!("tensor '{name}'"))?;
            infos.push((name, info));
        }
        Ok(infos)
    }

    /// Reads type, shape and offset; the offset is still relative to the data.
    fn tensor_info(&mut self) -> Result<TensorInfo> {
        let n_dims = self.u32("a tensor info")?;
        crate::ensure!(n_dims <= MAX_DIMS, "expected at most {MAX_DIMS} dimensions, found {n_dims}");
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            shape.push(usize::try_from(self.u64("a tensor info")?).context("dimension")?);
        }
        shape.reverse(); // ggml lists the contiguous dimension first
        crate::ensure!(!shape.contains(&0), "expected a shape without zeros, found {shape:?}");
        let dtype = DType::from_ggml(self.u32("a tensor info")?)?;
        let offset = usize::try_from(self.u64("a tensor info")?).context("offset")?;
        let Some(n_bytes) = dtype.bytes_of(&shape) else {
            crate::bail!(
                "the shape {shape:?} is impossible for {dtype}, whose rows are multiples of {} elements",
                dtype.block_len()
            )
        };
        Ok(TensorInfo { dtype, shape, offset, n_bytes })
    }
}
