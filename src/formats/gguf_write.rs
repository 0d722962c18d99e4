//! Writes GGUF files (version 3) as llama.cpp reads them.
//!
//! Integers and floats of the metadata take 32 bits where they fit, the types that llama.cpp's
//! loader asks for. Tensors are read one by one while the file is written, so a model need not fit
//! into memory. [`gguf`](super::gguf) reads the files.

use std::io::Write;
use std::path::Path;

use super::gguf_metadata::{Metadata, Value};
use super::host_tensor::{HostTensor, TensorSpec};
use crate::atomic_file::write_atomic;
use crate::error::{Context, Result};

/// Alignment of tensors in the file, in bytes: the default of the format.
const ALIGNMENT: usize = 32;

/// Writes a file with these pairs and tensors, in their order. `read` gives the content of the
/// tensor with a number. Fails if a tensor has another type or shape than announced.
pub fn write_gguf(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorSpec],
    read: &mut dyn FnMut(usize) -> Result<HostTensor>,
) -> Result<()> {
    let header = header(metadata, tensors)?;
    write_atomic(path, |out| {
        out.write_all(&header)?;
        for (i, spec) in tensors.iter().enumerate() {
            let tensor = read(i).with_context(|| format!("tensor '{}'", spec.name))?;
            spec.check(&tensor)?;
            out.write_all(&tensor.bytes)?;
            pad(out, tensor.bytes.len())?;
        }
        Ok(())
    })
}

/// Writes zeros from `length` to the next aligned place.
fn pad(out: &mut dyn Write, length: usize) -> Result<()> {
    Ok(out.write_all(&[0; ALIGNMENT][..length.next_multiple_of(ALIGNMENT) - length])?)
}

/// Everything before the data of the tensors.
fn header(metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Vec<u8>> {
    let pairs: Vec<_> = metadata.iter().filter(|(key, _)| *key != "general.alignment").collect();
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        put_string(&mut out, key);
        out.extend(type_of(value).number().to_le_bytes());
        put_value(&mut out, value, type_of(value))?;
    }
    let mut offset = 0;
    for spec in tensors {
        put_string(&mut out, &spec.name);
        out.extend(u32::try_from(spec.shape.len())?.to_le_bytes());
        spec.shape.iter().rev().for_each(|&n| out.extend((n as u64).to_le_bytes()));
        out.extend(spec.dtype.ggml().to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += spec.n_bytes()?.next_multiple_of(ALIGNMENT);
    }
    let length = out.len();
    pad(&mut out, length)?;
    Ok(out)
}

/// Types of metadata values in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
}

impl Type {
    fn number(self) -> u32 {
        match self {
            Self::U32 => 4,
            Self::I32 => 5,
            Self::F32 => 6,
            Self::Bool => 7,
            Self::String => 8,
            Self::Array => 9,
            Self::U64 => 10,
            Self::I64 => 11,
        }
    }
}

fn type_of(value: &Value) -> Type {
    match value {
        Value::U64(v) if u32::try_from(*v).is_err() => Type::U64,
        Value::U64(_) => Type::U32,
        Value::I64(v) if i32::try_from(*v).is_err() => Type::I64,
        Value::I64(_) => Type::I32,
        Value::F64(_) => Type::F32,
        Value::Bool(_) => Type::Bool,
        Value::String(_) => Type::String,
        Value::Array(_) => Type::Array,
    }
}

/// The type of the elements of an array: that of the widest.
fn element_type(values: &[Value]) -> Type {
    let wide = |t: &Type| matches!(t, Type::U64 | Type::I64);
    let types = || values.iter().map(type_of);
    types().find(wide).or(types().next()).unwrap_or(Type::U32)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value, as_type: Type) -> Result<()> {
    match (value, as_type) {
        (Value::U64(v), Type::U32) => out.extend((*v as u32).to_le_bytes()),
        (Value::U64(v), Type::U64) => out.extend(v.to_le_bytes()),
        (Value::I64(v), Type::I32) => out.extend((*v as i32).to_le_bytes()),
        (Value::I64(v), Type::I64) => out.extend(v.to_le_bytes()),
        (Value::F64(v), Type::F32) => out.extend((*v as f32).to_le_bytes()),
        (Value::Bool(v), Type::Bool) => out.push(u8::from(*v)),
        (Value::String(v), Type::String) => put_string(out, v),
        (Value::Array(values), Type::Array) => {
            let element = element_type(values);
            out.extend(element.number().to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().try_for_each(|value| put_value(out, value, element))?;
        }
        (value, as_type) => crate::bail!("a metadata array holds {} among values of {as_type:?}", value.describe()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::dtype::DType;
    use crate::formats::gguf::Gguf;

    #[test]
    fn the_reader_reads_what_we_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let strings = ["a", "ß", ""].map(|s| Value::String(s.into())).to_vec();
        let pairs = [
            ("general.alignment", Value::U64(64)),
            ("large", Value::U64(1 << 40)),
            ("list", Value::Array(vec![Value::I64(-1), Value::I64(7)])),
            ("number", Value::F64(0.5)),
            ("size", Value::U64(12)),
            ("texts", Value::Array(strings)),
            ("yes", Value::Bool(true)),
        ];
        let mut metadata = Metadata::default();
        pairs.iter().for_each(|(key, value)| assert!(metadata.insert(*key, value.clone())));
        let tensors = [
            HostTensor::from_f32(&[3], &[1.0, 2.0, 3.0]),
            HostTensor::new(DType::Q8_0, vec![2, 32], (0..68).collect()).unwrap(),
        ];
        let spec =
            |(name, t): (&str, &HostTensor)| TensorSpec { name: name.into(), dtype: t.dtype, shape: t.shape.clone() };
        let specs: Vec<_> = ["x", "y"].into_iter().zip(&tensors).map(spec).collect();
        write_gguf(&path, &metadata, &specs, &mut |i| Ok(tensors[i].clone())).unwrap();
        let read = Gguf::open(&path).unwrap();
        for (key, value) in &pairs[1..] {
            assert_eq!(read.metadata.get(key), Some(value), "{key}");
        }
        assert!(!read.metadata.contains("general.alignment"), "the file has the default alignment");
        assert_eq!([read.read("x").unwrap(), read.read("y").unwrap()], tensors);
    }

    #[test]
    fn mixed_arrays_and_unannounced_tensors_leave_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let mut metadata = Metadata::default();
        metadata.insert("mixed", Value::Array(vec![Value::Bool(true), Value::F64(1.0)]));
        assert!(write_gguf(&path, &metadata, &[], &mut |_| unreachable!()).is_err());
        let spec = TensorSpec { name: "x".into(), dtype: DType::F16, shape: vec![2] };
        let e = write_gguf(&path, &Metadata::default(), &[spec], &mut |_| Ok(HostTensor::from_f32(&[2], &[0.0; 2])));
        assert!(e.unwrap_err().to_string().contains("'x': announced as F16"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
