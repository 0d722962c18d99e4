//! A model with its adapter merged in: the weights that exported files hold.
//!
//! Weights that the adapter leaves alone keep their stored type; merged ones are f32.

use rayon::prelude::*;

use super::adapter_file::{Adapter, AdapterPair};
use super::model_files::ModelFiles;
use super::weight_names::{Weight, weights};
use super::weights::{WeightSource, moved};
use crate::error::{Context, Result};
use crate::formats::host_tensor::HostTensor;
use crate::model::config::ModelConfig;

/// The weights of a model and its adapter, merged when they are read.
pub struct Merged<'a> {
    source: &'a WeightSource,
    adapter: Option<&'a Adapter>,
    /// The model's configuration; an adapter may untie head and embedding.
    pub config: ModelConfig,
    /// All weights of the merged model.
    pub weights: Vec<Weight>,
}

impl<'a> Merged<'a> {
    /// The merged model of the files.
    pub fn new(files: &'a ModelFiles) -> Self {
        let adapter = files.adapter.as_ref();
        let mut config = files.config().clone();
        config.tied &= !adapter.is_some_and(|a| a.config.targets.unties(&config));
        Self { source: &files.source, adapter, weights: weights(&config), config }
    }

    /// Whether the adapter changes a weight.
    pub fn is_changed(&self, weight: &Weight) -> bool {
        self.adapter.is_some_and(|a| a.saved(&weight.name).is_some()) || self.pair(weight).is_some()
    }

    fn pair(&self, weight: &Weight) -> Option<&'a AdapterPair> {
        let module = weight.name.strip_suffix(".weight")?;
        self.adapter?.pairs.iter().find(|pair| pair.module == module)
    }

    /// A weight as the computation takes it, rows in Hugging Face's order.
    pub fn read(&self, weight: &Weight) -> Result<HostTensor> {
        if let Some(saved) = self.adapter.and_then(|adapter| adapter.saved(&weight.name)) {
            return if weight.offset == 0.0 { Ok(saved.clone()) } else { moved(saved, weight.offset) };
        }
        let is_untied_head = weight.name == "lm_head.weight" && self.source.config().tied;
        let name = if is_untied_head { "model.embed_tokens.weight" } else { &weight.name };
        let stored = self.source.read(name, &weight.shape)?;
        match self.pair(weight) {
            Some(pair) => merge(&stored, pair).with_context(|| format!("merging {}", pair.module)),
            None => Ok(stored),
        }
    }

    /// A weight as Hugging Face files hold it.
    pub fn read_as_stored(&self, weight: &Weight) -> Result<HostTensor> {
        self.source.as_stored(&weight.name, self.read(weight)?)
    }
}

/// W + s·B A [out, in] in f32; with DoRA each row scaled to its magnitude.
fn merge(weight: &HostTensor, pair: &AdapterPair) -> Result<HostTensor> {
    let (mut w, a, b) = (weight.to_f32()?, pair.a.to_f32()?, pair.b.to_f32()?);
    let magnitudes = pair.magnitude.as_ref().map(HostTensor::to_f32).transpose()?;
    let (n_in, rank, scale) = (weight.shape[1], pair.a.shape[0], pair.scale as f32);
    w.par_chunks_exact_mut(n_in).zip(b.par_chunks_exact(rank)).enumerate().for_each(|(row, (w, b))| {
        for (&b, a) in b.iter().zip(a.chunks_exact(n_in)) {
            w.iter_mut().zip(a).for_each(|(w, a)| *w += scale * b * a);
        }
        if let Some(magnitudes) = &magnitudes {
            let norm = w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            let factor = (f64::from(magnitudes[row]) / norm) as f32;
            w.iter_mut().for_each(|w| *w *= factor);
        }
    });
    Ok(HostTensor::from_f32(&weight.shape, &w))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(magnitude: Option<&[f32]>) -> AdapterPair {
        AdapterPair {
            module: "m".into(),
            a: HostTensor::from_f32(&[1, 2], &[1.0, -1.0]),
            b: HostTensor::from_f32(&[2, 1], &[2.0, 3.0]),
            magnitude: magnitude.map(|m| HostTensor::from_f32(&[2], m)),
            scale: 0.5,
        }
    }

    #[test]
    fn a_merged_weight_is_the_sum_and_dora_sets_the_length_of_rows() {
        let w = HostTensor::from_f32(&[2, 2], &[2.0, 5.0, 0.5, 1.5]);
        assert_eq!(merge(&w, &pair(None)).unwrap().to_f32().unwrap(), [3.0, 4.0, 2.0, 0.0]);
        assert_eq!(merge(&w, &pair(Some(&[10.0, 1.0]))).unwrap().to_f32().unwrap(), [6.0, 8.0, 1.0, 0.0]);
    }
}
