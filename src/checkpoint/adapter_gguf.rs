//! LoRA adapters as GGUF files, as llama.cpp reads them.
//!
//! The matrices of a layer lie under the layer's GGUF name with `.lora_a` [r, in] and `.lora_b`
//! [out, r], the rows of B in the order of the layer's rows. llama.cpp multiplies B A by
//! `adapter.lora.alpha` / r.

use std::path::Path;

use super::adapter_config::AdapterConfig;
use super::adapter_file::{Adapter, AdapterPair};
use super::adapter_targets::{ModuleSet, Targets};
use super::families;
use super::gguf_weights::{from_gguf_order, in_gguf_order};
use super::weight_names::{Weight, weights};
use crate::error::{Context, Result};
use crate::formats::dtype::DType;
use crate::formats::gguf::{Gguf, Metadata, Value};
use crate::formats::gguf_write::write_gguf;
use crate::formats::host_tensor::{HostTensor, TensorSpec};
use crate::formats::quantise::quantise;
use crate::model::config::ModelConfig;

const ALPHA: &str = "adapter.lora.alpha";

/// Writes an adapter of a model with matrices of type `dtype`. `more` are further metadata.
///
/// Fails for what llama.cpp's adapters cannot hold: DoRA, and weights that are saved whole.
pub fn write_gguf_adapter(
    path: &Path,
    adapter: &Adapter,
    model: &ModelConfig,
    dtype: DType,
    more: &[(&str, Value)],
) -> Result<()> {
    let cannot = if adapter.config.use_dora {
        "DoRA"
    } else if adapter.saved.is_empty() {
        ""
    } else {
        "weights that are saved whole (`modules_to_save`)"
    };
    crate::ensure!(cannot.is_empty(), "a GGUF adapter cannot hold {cannot}: merge the adapter with `to` gguf instead");
    // One alpha for all layers; a layer with another scale has it in its B.
    let alpha = adapter.pairs.first().map_or(1.0, |pair| pair.scale * pair.a.shape[0] as f64);
    let table = weights(model);
    let (mut specs, mut tensors) = (Vec::new(), Vec::new());
    for pair in &adapter.pairs {
        let weight = weight_of(&table, pair)?;
        let (rank, mut b) = (pair.a.shape[0], pair.b.to_f32()?);
        let factor = pair.scale * rank as f64 / alpha;
        if (factor - 1.0).abs() > 1e-9 {
            b.iter_mut().for_each(|b| *b = (f64::from(*b) * factor) as f32);
        }
        let b = in_gguf_order(HostTensor::from_f32(&pair.b.shape, &b), weight.permuted_heads);
        for (end, tensor) in [(".lora_a", &pair.a), (".lora_b", &b)] {
            let name = format!("{}{end}", weight.gguf);
            specs.push(TensorSpec { name, dtype, shape: tensor.shape.clone() });
            tensors.push(quantise(&tensor.to_f32()?, &tensor.shape, dtype)?);
        }
    }
    let text = |text: &str| Value::String(text.into());
    let mut metadata = Metadata::default();
    for (key, value) in [
        ("general.architecture", text(families::of(model.architecture).gguf[0])),
        ("general.type", text("adapter")),
        ("adapter.type", text("lora")),
        (ALPHA, Value::F64(alpha)),
    ] {
        metadata.insert(key, value);
    }
    for (key, value) in more {
        metadata.insert(*key, value.clone());
    }
    write_gguf(path, &metadata, &specs, &mut |i| Ok(tensors[i].clone()))
}

fn weight_of<'a>(table: &'a [Weight], pair: &AdapterPair) -> Result<&'a Weight> {
    let name = format!("{}.weight", pair.module);
    let Some(weight) = table.iter().find(|weight| weight.name == name) else {
        crate::bail!("the model has no layer {}", pair.module)
    };
    Ok(weight)
}

/// Whether a path names a GGUF file.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) && path.is_file()
}

/// Reads an adapter for a model, and the metadata beside it.
///
/// Errors: not a LoRA adapter, another architecture, tensors that do not belong to the model, wrong
/// shapes.
pub fn read_gguf_adapter(path: &Path, model: &ModelConfig) -> Result<(Adapter, Metadata)> {
    let read = || -> Result<(Adapter, Metadata)> {
        let gguf = Gguf::open(path)?;
        for (key, expected) in [("general.type", "adapter"), ("adapter.type", "lora")] {
            let found = gguf.metadata.str(key)?;
            crate::ensure!(found == expected, "{key} is '{found}'; expected '{expected}'");
        }
        let names = families::of(model.architecture).gguf;
        let of = gguf.metadata.str("general.architecture")?;
        crate::ensure!(names.contains(&of), "the adapter is one for {of}, and the model is a {}", names[0]);
        let alpha = gguf.metadata.f64(ALPHA)?;
        let (mut pairs, mut known) = (Vec::new(), 0);
        for weight in weights(model) {
            let [a, b] = ["lora_a", "lora_b"].map(|end| format!("{}.{end}", weight.gguf));
            let Some(module) = weight.name.strip_suffix(".weight").filter(|_| gguf.info(&a).is_some()) else {
                continue;
            };
            let (a, b) = (gguf.read(&a)?, gguf.read(&b)?);
            let rank = a.shape.first().copied().unwrap_or(0);
            let [n_out, n_in] = weight.shape[..] else { crate::bail!("{module} is no linear layer") };
            let fits = rank > 0 && a.shape == [rank, n_in] && b.shape == [n_out, rank];
            crate::ensure!(
                fits,
                "{module}: expected A [r, {n_in}] and B [{n_out}, r], found {:?} and {:?}",
                a.shape,
                b.shape
            );
            known += 2;
            pairs.push(AdapterPair {
                module: module.to_string(),
                a,
                b: from_gguf_order(b, weight.permuted_heads),
                magnitude: None,
                scale: alpha / rank as f64,
            });
        }
        let n = gguf.tensors().count();
        crate::ensure!(known == n && n > 0, "{} of {n} tensors do not belong to this model", n - known);
        Ok((Adapter { config: config_of(&pairs, alpha, model)?, pairs, saved: vec![] }, gguf.metadata))
    };
    read().with_context(|| format!("adapter {}", path.display()))
}

/// PEFT's configuration of these pairs.
fn config_of(pairs: &[AdapterPair], alpha: f64, model: &ModelConfig) -> Result<AdapterConfig> {
    let modules = ModuleSet::Names(pairs.iter().map(|pair| pair.module.clone()).collect());
    let rank = |pair: &AdapterPair| pair.a.shape[0];
    let r = pairs.first().map_or(1, rank);
    let others = pairs.iter().filter(|pair| rank(pair) != r);
    let config = AdapterConfig {
        rank_pattern: others.map(|pair| (pair.module.replace('.', "\\."), rank(pair))).collect(),
        ..AdapterConfig::new(r, alpha, Targets::of(modules))
    };
    config.validate(model)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::testing::small;

    fn adapter(model: &ModelConfig) -> Adapter {
        let targets = Targets::of(ModuleSet::Names(vec!["q_proj".into(), "down_proj".into()]));
        let config =
            AdapterConfig { rank_pattern: vec![("down_proj".into(), 3)], ..AdapterConfig::new(2, 5.0, targets) };
        let mut adapter = Adapter::fresh(config, model, 1).unwrap();
        for pair in &mut adapter.pairs {
            let n: usize = pair.b.shape.iter().product();
            let values: Vec<f32> = (0..n).map(|i| i as f32 - 3.0).collect();
            pair.b = HostTensor::from_f32(&pair.b.shape, &values);
        }
        adapter
    }

    #[test]
    fn an_adapter_reads_back_with_the_same_products() {
        let model = small();
        let adapter = adapter(&model);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let more = [("general.name", Value::String("x".into()))];
        write_gguf_adapter(&path, &adapter, &model, DType::F32, &more).unwrap();
        let (read, metadata) = read_gguf_adapter(&path, &model).unwrap();
        assert_eq!(metadata.str("general.name").unwrap(), "x");
        assert_eq!(read.pairs.len(), adapter.pairs.len());
        for (a, b) in read.pairs.iter().zip(&adapter.pairs) {
            assert_eq!((&a.module, &a.a), (&b.module, &b.a));
            let scaled = |pair: &AdapterPair| -> Vec<f64> {
                pair.b.to_f32().unwrap().iter().map(|v| f64::from(*v) * pair.scale).collect()
            };
            for (x, y) in scaled(a).iter().zip(scaled(b)) {
                assert!((x - y).abs() <= 1e-6 * y.abs(), "{x} and {y}");
            }
        }
        assert_eq!(read.config.modules(&model).unwrap().len(), read.pairs.len());
        let other = ModelConfig { inner: model.inner + 4, ..model };
        assert!(read_gguf_adapter(&path, &other).unwrap_err().to_string().contains("down_proj"));
    }

    #[test]
    fn dora_and_saved_modules_have_no_place() {
        let model = small();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gguf");
        let mut dora = adapter(&model);
        dora.config.use_dora = true;
        let e = write_gguf_adapter(&path, &dora, &model, DType::F32, &[]).unwrap_err().to_string();
        assert!(e.contains("DoRA") && e.contains("`to` gguf"), "{e}");
        let mut saved = adapter(&model);
        saved.saved.push(("lm_head.weight".into(), HostTensor::from_f32(&[1, 1], &[0.0])));
        assert!(write_gguf_adapter(&path, &saved, &model, DType::F32, &[]).is_err());
        assert!(!path.exists());
    }
}
