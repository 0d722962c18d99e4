//! Writes safetensors files atomically, in the layout that PyTorch programs expect.
//!
//! Tensors keep their types. [`safetensors_file`](super::safetensors_file) reads files.

use super::host_tensor::{HostTensor, TensorSpec};
use crate::atomic_file::write_atomic;
use crate::error::{Context, Result};
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Writes named tensors, with `format: pt` (transformers requires it) and `metadata` in the header.
///
/// Streams the bytes without copying them. Errors: quantised types, duplicate names, and disk
/// errors.
pub fn write_safetensors(path: &Path, tensors: &[(String, HostTensor)], metadata: &[(&str, &str)]) -> Result<()> {
    let spec =
        |(name, t): &(String, HostTensor)| TensorSpec { name: name.clone(), dtype: t.dtype, shape: t.shape.clone() };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let pairs: Vec<(&str, &str)> = [("format", "pt")].iter().chain(metadata).copied().collect();
    write_each(path, &specs, &pairs, &mut |i| Ok(Cow::Borrowed(&tensors[i].1)))
}

/// Writes tensors that are read one by one while the file is written, so that a model need not fit
/// into memory. `read` gives the tensor with a number; `metadata` is the whole metadata of the
/// header.
///
/// Errors as [`write_safetensors`], and a tensor of another type or shape than its spec.
pub fn stream_safetensors(
    path: &Path,
    specs: &[TensorSpec],
    metadata: &[(&str, &str)],
    read: &mut dyn FnMut(usize) -> Result<HostTensor>,
) -> Result<()> {
    write_each(path, specs, metadata, &mut |i| Ok(Cow::Owned(read(i)?)))
}

fn write_each<'a>(
    path: &Path,
    specs: &[TensorSpec],
    metadata: &[(&str, &str)],
    read: &mut dyn FnMut(usize) -> Result<Cow<'a, HostTensor>>,
) -> Result<()> {
    // Largest elements first, so that each tensor is aligned to its element size; then by name.
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(specs[i].dtype.block_bytes()), specs[i].name.as_str()));
    let header = header(&order, specs, metadata).with_context(|| format!("writing {}", path.display()))?;
    write_atomic(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for &i in &order {
            let tensor = read(i).with_context(|| format!("tensor '{}'", specs[i].name))?;
            specs[i].check(&tensor)?;
            out.write_all(&tensor.bytes)?;
        }
        Ok(())
    })
}

/// The JSON header, padded with spaces to a multiple of 8 bytes.
fn header(order: &[usize], specs: &[TensorSpec], metadata: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut infos = Vec::new();
    let mut end = 0;
    let mut names = std::collections::HashSet::new();
    for spec in order.iter().map(|&i| &specs[i]) {
        let name = &spec.name;
        crate::ensure!(names.insert(name), "tensor '{name}' is given twice");
        let dtype = spec.dtype.to_safetensors().with_context(|| format!("tensor '{name}'"))?;
        let start = end;
        end += spec.n_bytes()?;
        infos.push((name.clone(), TensorInfo { dtype, shape: spec.shape.clone(), data_offsets: (start, end) }));
    }
    let pairs: HashMap<String, String> = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let mut json = serde_json::to_vec(&Metadata::new(Some(pairs), infos)?)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::dtype::DType;

    #[test]
    fn the_library_reads_what_we_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let half = HostTensor::new(DType::F16, vec![1], vec![0, 0x3c]).unwrap();
        let tensors = [("h".to_string(), half), ("x".to_string(), HostTensor::from_f32(&[2], &[1.0, 2.0]))];
        write_safetensors(&path, &tensors, &[("made_by", "a test")]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("x").unwrap().data(), &tensors[1].1.bytes[..]);
        assert_eq!(file.tensor("h").unwrap().dtype(), safetensors::Dtype::F16);
        let (n, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(n % 8, 0);
        let pairs = header.metadata().as_ref().unwrap();
        assert_eq!((pairs["format"].as_str(), pairs["made_by"].as_str()), ("pt", "a test"));
    }

    #[test]
    fn impossible_content_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let quantised = HostTensor::new(DType::Q8_0, vec![32], vec![0; 34]).unwrap();
        let e = write_safetensors(&path, &[("q".into(), quantised)], &[]).unwrap_err().to_string();
        assert!(e.contains("'q'") && e.contains("Q8_0"), "{e}");
        let x = ("x".to_string(), HostTensor::from_f32(&[1], &[1.0]));
        assert!(write_safetensors(&path, &[x.clone(), x], &[]).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
