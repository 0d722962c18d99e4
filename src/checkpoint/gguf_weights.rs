//! The weights of a model in a GGUF file: where each lies, and its rows in Hugging Face's order.
//!
//! [`weight_names`](super::weight_names) has the names. llama.cpp's converter can put the rows of
//! q, k and v in one tensor `attn_qkv` for any architecture; the parts are then read from it.
//! [`weights`](super::weights) opens the files.

use super::rope_gguf;
use super::weight_names::{Weight, weights};
use crate::error::Result;
use crate::formats::dtype::DType;
use crate::formats::gguf::{Gguf, TensorInfo};
use crate::formats::host_tensor::HostTensor;
use crate::model::config::ModelConfig;
use std::collections::BTreeSet;

/// The tensor that holds a weight, and its rows there.
struct Place {
    tensor: String,
    /// First row, where the tensor also has the rows of other weights.
    first_row: Option<usize>,
}

/// Where a weight lies: in a tensor of its own, or among the rows of q, k and v.
fn place(gguf: &Gguf, config: &ModelConfig, weight: &Weight) -> Place {
    let own = Place { tensor: weight.gguf.clone(), first_row: None };
    if gguf.info(&own.tensor).is_some() {
        return own;
    }
    let (q, kv) = (config.q_channels(), config.kv_channels());
    for (part, first_row) in [(".attn_q.", 0), (".attn_k.", q), (".attn_v.", q + kv)] {
        let tensor = weight.gguf.replace(part, ".attn_qkv.");
        let has_whole_rows = |info: &&TensorInfo| {
            info.shape.first() == Some(&(q + 2 * kv)) && (info.shape.len() > 1 || !info.dtype.is_quantised())
        };
        if tensor != weight.gguf && gguf.info(&tensor).filter(has_whole_rows).is_some() {
            return Place { tensor, first_row: Some(first_row) };
        }
    }
    own
}

/// Type and shape of a weight, if the file has it.
pub(super) fn info(gguf: &Gguf, config: &ModelConfig, weight: &Weight) -> Option<(DType, Vec<usize>)> {
    let place = place(gguf, config, weight);
    let info = gguf.info(&place.tensor)?;
    let mut shape = info.shape.clone();
    if place.first_row.is_some() {
        shape[0] = weight.shape[0];
    }
    Some((info.dtype, shape))
}

/// Reads a weight, whose shape has been checked.
pub(super) fn read(gguf: &Gguf, config: &ModelConfig, weight: &Weight) -> Result<HostTensor> {
    let place = place(gguf, config, weight);
    let mut tensor = gguf.mapped(&place.tensor)?;
    if let (Some(first), Some(bytes)) = (place.first_row, tensor.bytes.mapped()) {
        let row_bytes = bytes.len() / tensor.shape[0];
        let rows = bytes.slice(first * row_bytes..(first + weight.shape[0]) * row_bytes);
        tensor = HostTensor::mapped(tensor.dtype, weight.shape.clone(), rows)?;
    }
    Ok(from_gguf_order(tensor, weight.permuted_heads))
}

/// The tensors of the file that no model of this configuration has: parts of the model that the
/// computation would ignore.
pub(super) fn unknown<'a>(gguf: &'a Gguf, config: &ModelConfig) -> impl Iterator<Item = &'a str> {
    let mut known: BTreeSet<String> = weights(config).iter().map(|weight| place(gguf, config, weight).tensor).collect();
    known.extend(rope_gguf::TENSORS.map(String::from));
    gguf.tensors().map(|(name, _)| name).filter(move |name| !known.contains(*name) && !is_of_images(name))
}

/// Whether a tensor belongs to the part that reads images, which some files hold beside the text model.
fn is_of_images(name: &str) -> bool {
    name.starts_with("v.") || name.starts_with("mm.")
}

/// A sentence about the tensors that are not part of the text model, if there are any.
pub(super) fn image_note(gguf: &Gguf) -> Option<String> {
    let n = gguf.tensors().filter(|(name, _)| is_of_images(name)).count();
    (n > 0)
        .then(|| format!("{n} tensors of the file read images. They are not part of the text model and are not used"))
}

/// Undoes llama.cpp's row order. In each head, it stores the pair (i, i + d/2), which RoPE rotates
/// together, in rows (2i, 2i+1).
fn unpermute_rows(tensor: HostTensor, n_heads: usize) -> HostTensor {
    let n_rows = tensor.shape[0];
    let (row_bytes, half) = (tensor.bytes.len() / n_rows, n_rows / n_heads / 2);
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for head in 0..n_heads {
        for part in 0..2 {
            for i in 0..half {
                let stored = (head * half + i) * 2 + part;
                bytes.extend_from_slice(&tensor.bytes[stored * row_bytes..][..row_bytes]);
            }
        }
    }
    tensor.bytes.release_all();
    HostTensor { bytes: bytes.into(), ..tensor }
}

/// Puts rows of a weight into llama.cpp's order, the inverse of `unpermute_rows`.
fn permute_rows(tensor: HostTensor, n_heads: usize) -> HostTensor {
    let n_rows = tensor.shape[0];
    let (row_bytes, half) = (tensor.bytes.len() / n_rows, n_rows / n_heads / 2);
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for head in 0..n_heads {
        for i in 0..half {
            for part in 0..2 {
                let own = (head * 2 + part) * half + i;
                bytes.extend_from_slice(&tensor.bytes[own * row_bytes..][..row_bytes]);
            }
        }
    }
    HostTensor { bytes: bytes.into(), ..tensor }
}

/// A weight with its rows in the order of GGUF files. Also takes the rows of a vector, and of B of
/// an adapter [out, r].
pub fn in_gguf_order(tensor: HostTensor, permuted_heads: Option<usize>) -> HostTensor {
    match permuted_heads {
        Some(n_heads) => permute_rows(tensor, n_heads),
        None => tensor,
    }
}

/// The inverse of [`in_gguf_order`].
pub(super) fn from_gguf_order(tensor: HostTensor, permuted_heads: Option<usize>) -> HostTensor {
    match permuted_heads {
        Some(n_heads) => unpermute_rows(tensor, n_heads),
        None => tensor,
    }
}

/// Writes models as GGUF files, as llama.cpp's converter does, for the tests of this folder.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::formats::gguf::testing::gguf_bytes;

    /// A GGUF file of a model with these weights, under Hugging Face's names but with the values
    /// of the computation. With `fuse`, q, k and v are one tensor.
    pub fn gguf_file(
        config: &ModelConfig,
        weights_of_model: &[(String, HostTensor)],
        more: &[(&str, HostTensor)],
        fuse: bool,
    ) -> tempfile::NamedTempFile {
        let described = config.to_gguf().unwrap();
        let mut stored = described.tensors;
        for weight in weights(config) {
            let (_, tensor) =
                weights_of_model.iter().find(|(name, _)| *name == weight.name).expect("a weight of each name");
            let tensor = in_gguf_order(tensor.clone(), weight.permuted_heads);
            let parts = [".attn_q.", ".attn_k.", ".attn_v."];
            let fused = parts.iter().find(|part| fuse && weight.gguf.contains(**part));
            let name = fused.map_or(weight.gguf.clone(), |part| weight.gguf.replace(part, ".attn_qkv."));
            match stored.iter_mut().find(|(other, _)| *other == name) {
                Some((_, whole)) => {
                    whole.shape[0] += tensor.shape[0];
                    whole.bytes = [&whole.bytes[..], &tensor.bytes].concat().into();
                }
                None => stored.push((name, tensor)),
            }
        }
        let pairs: Vec<_> = described.metadata.iter().map(|(k, v)| (k, v.clone())).collect();
        let mut tensors: Vec<_> = stored.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        tensors.extend(more.iter().cloned());
        let file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        std::fs::write(file.path(), gguf_bytes(&pairs, &tensors)).unwrap();
        file
    }
}

#[cfg(test)]
mod tests {
    use super::testing::gguf_file;
    use super::*;
    use crate::checkpoint::weight_names::expected_names;
    use crate::checkpoint::weights::WeightSource;
    use crate::model::config::LayerConfig;
    use crate::model::rope_config::RopeScaling;
    use std::path::{Path, PathBuf};

    /// The golden models whose configuration GGUF files can express.
    fn golden() -> Vec<(PathBuf, WeightSource)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let open = |path: PathBuf| Some((path.clone(), WeightSource::open(&path).ok()?));
        let can_be_written = |(_, source): &(PathBuf, WeightSource)| {
            let scaling = &source.config().ropes[0].scaling;
            // Llama 3's scaling comes back as its divisors.
            !matches!(scaling, RopeScaling::Dynamic { .. } | RopeScaling::Llama3 { .. })
        };
        folders.filter_map(open).filter(can_be_written).collect()
    }

    fn all_weights(source: &WeightSource) -> Vec<(String, HostTensor)> {
        let read = |(name, shape): (String, Vec<usize>)| {
            let tensor = source.read(&name, &shape).unwrap();
            (name, tensor)
        };
        expected_names(source.config()).into_iter().map(read).collect()
    }

    #[test]
    fn a_model_of_each_family_is_the_same_from_a_folder_and_from_a_gguf_file() {
        let mut families = BTreeSet::new();
        for (path, folder) in golden() {
            let config = folder.config();
            families.insert(config.architecture.model_type());
            let tensors = all_weights(&folder);
            for fuse in [false, true] {
                let file = gguf_file(config, &tensors, &[], fuse);
                let gguf = WeightSource::open(file.path()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                // End tokens come with the tokenizer, which these models do not have.
                let (bos, eos, hf_json) = (config.bos, config.eos.clone(), config.hf_json.clone());
                // A window as long as the model is not written.
                let layer = |i: usize| LayerConfig { window: config.window(i), ..config.layers[i].clone() };
                let layers = (0..config.n_layers()).map(layer).collect();
                let written = ModelConfig { layers, ..config.clone() };
                assert_eq!(ModelConfig { bos, eos, hf_json, ..gguf.config().clone() }, written, "{}", path.display());
                for (name, tensor) in &tensors {
                    assert_eq!(&gguf.read(name, &tensor.shape).unwrap(), tensor, "{}: {name}", path.display());
                }
            }
        }
        for family in crate::checkpoint::families::ALL {
            let name = family.architecture.model_type();
            assert!(families.contains(name), "no golden model of {name}");
        }
    }
}
