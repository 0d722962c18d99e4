//! Fingerprints of models: tell whether two files hold the same weights, without reading them whole.

use super::adapter_file::Adapter;
use super::weights::WeightSource;
use crate::error::Result;
use crate::formats::host_tensor::HostTensor;

/// Bytes at either end of a tensor that count.
const END: usize = 4096;

/// The SHA-256 over the name, the size in bytes, and the first and last 4 KiB of each tensor of a
/// model, in the order of their names. `None` for random weights.
///
/// A model whose weights were converted or quantised has another fingerprint.
pub fn fingerprint(source: &WeightSource) -> Result<Option<String>> {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let is_known = source.each_tensor(&mut |name, bytes| {
        digest.update(format!("{name} {}\n", bytes.len()).as_bytes());
        digest.update(&bytes[..bytes.len().min(END)]);
        digest.update(&bytes[bytes.len().saturating_sub(END)..]);
    })?;
    Ok(is_known.then(|| format!("sha256 {}", hex(digest.finish().as_ref()))))
}

/// The SHA-256 over all weights of an adapter with their names, shapes and scales.
pub fn adapter_fingerprint(adapter: &Adapter) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut take = |name: &str, tensor: &HostTensor| {
        digest.update(format!("{name} {} {:?}\n", tensor.dtype, tensor.shape).as_bytes());
        digest.update(&tensor.bytes);
    };
    for pair in &adapter.pairs {
        take(&format!("{} a {:?}", pair.module, pair.scale), &pair.a);
        take("b", &pair.b);
        pair.magnitude.iter().for_each(|magnitude| take("magnitude", magnitude));
    }
    adapter.saved.iter().for_each(|(name, tensor)| take(name, tensor));
    format!("sha256 {}", hex(digest.finish().as_ref()))
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::weight_names::expected_names;
    use crate::formats::host_tensor::HostTensor;
    use crate::formats::safetensors_write::write_safetensors;
    use crate::model::config::testing::small;

    #[test]
    fn a_changed_weight_changes_the_fingerprint() {
        let config = small();
        let of = |changed: Option<&str>| {
            let fill = |(name, shape): (String, Vec<usize>)| {
                let mut values = vec![0.5; shape.iter().product()];
                if Some(name.as_str()) == changed {
                    *values.last_mut().unwrap() = 0.25;
                }
                (name, HostTensor::from_f32(&shape, &values))
            };
            let tensors: Vec<_> = expected_names(&config).into_iter().map(fill).collect();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.json"), config.to_hf_json().unwrap()).unwrap();
            write_safetensors(&dir.path().join("model.safetensors"), &tensors, &[]).unwrap();
            fingerprint(&WeightSource::open(dir.path()).unwrap()).unwrap().unwrap()
        };
        let all = [of(None), of(Some("model.norm.weight")), of(Some("model.embed_tokens.weight"))];
        assert!(all[0] == of(None) && all[0] != all[1] && all[0] != all[2] && all[1] != all[2], "{all:?}");
        assert!(all[0].starts_with("sha256 ") && all[0].len() == 7 + 64);
        assert_eq!(fingerprint(&WeightSource::random(config.clone(), 1).unwrap()).unwrap(), None);
    }
}
