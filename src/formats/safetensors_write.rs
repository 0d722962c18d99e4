//! Writes safetensors files atomically, in the layout that PyTorch programs expect.
//!
//! Tensors keep their types. [`safetensors_file`](super::safetensors_file) reads files.

use super::host_tensor::HostTensor;
use crate::atomic_file::write_atomic;
use crate::error::{Context, Result};
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::HashMap;
use std::path::Path;

/// Writes named tensors, with `format: pt` (transformers requires it) and `metadata` in the header.
///
/// Streams the bytes without copying them. Errors: quantised types, duplicate names, and disk
/// errors.
pub fn write_safetensors(path: &Path, tensors: &[(String, HostTensor)], metadata: &[(&str, &str)]) -> Result<()> {
    // Largest elements first, so that each tensor is aligned to its element size; then by name.
    let mut order: Vec<&(String, HostTensor)> = tensors.iter().collect();
    order.sort_by_key(|(name, t)| (std::cmp::Reverse(t.dtype.block_bytes()), name.as_str()));
    let header = header(&order, metadata).with_context(|| format!("writing {}", path.display()))?;
    write_atomic(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (_, tensor) in &order {
            out.write_all(&tensor.bytes)?;
        }
        Ok(())
    })
}

/// The JSON header, padded with spaces to a multiple of 8 bytes.
fn header(order: &[&(String, HostTensor)], metadata: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut infos = Vec::new();
    let mut end = 0;
    let mut names = std::collections::HashSet::new();
    for (name, tensor) in order {
        crate::ensure!(names.insert(name), "tensor '{name}' is given twice");
        let dtype = tensor.dtype.to_safetensors().with_context(|| format!("tensor '{name}'"))?;
        let start = end;
        end += tensor.bytes.len();
        infos.push((name.clone(), TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (start, end) }));
    }
    let pairs = [("format", "pt")].iter().chain(metadata);
    let pairs: HashMap<String, String> = pairs.map(|(k, v)| (k.to_string(), v.to_string())).collect();
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
        assert_eq!(file.tensor("x").unwrap().data(), tensors[1].1.bytes);
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
