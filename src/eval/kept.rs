//! The tokens of a text that the cache keeps, in each layer and head.

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::attention::{Attention, Lrsa};
use crate::autograd::Tape;
use crate::data::batch::Batch;
use crate::data::dataset::{Example, IGNORED};
use crate::error::{Error, Result};
use crate::gpu::Executor;
use crate::model::block::KeptLog;
use crate::model::llama::Llama;
use crate::text::tokenizer::Tokenizer;
use crate::train::{Objective, UploadedBatch};

/// The tokens of a text, and which of them each head keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeptMap {
    /// Text of each token.
    pub tokens: Vec<String>,
    /// S.
    pub sink: usize,
    /// L.
    pub lag: usize,
    /// r.
    pub keep: f64,
    /// Start of the recent part, where every token is still in the cache because it has no score
    /// yet.
    #[serde(rename = "tail_start")]
    pub recent_start: usize,
    /// Layer, head, then the positions kept between the sink and the recent part, ascending. A
    /// layer with a sliding window of the model itself is not compressed and has no heads here.
    pub kept: Vec<Vec<Vec<usize>>>,
}

/// Runs the model over a text as in training and records the selected tokens. Prefill selects the
/// same tokens.
pub fn kept_map(
    device: &mut dyn Executor,
    model: &mut Llama,
    tokenizer: &Tokenizer,
    ids: &[u32],
    lrsa: Lrsa,
) -> Result<KeptMap> {
    if ids.is_empty() {
        return Err(Error::usage("the text has no tokens"));
    }
    let batch = Batch::new(&[Example { ids: ids.to_vec(), labels: vec![IGNORED; ids.len()], rejected: None }]);
    let log: KeptLog = Rc::new(RefCell::new(Vec::new()));
    let attention = Attention::Lrsa(lrsa);
    let objective =
        Objective { attention, scale: 1.0, dropout: None, distill: None, preference: None, kept: Some(log.clone()) };
    let uploaded = UploadedBatch::new(device, model, &batch, &objective)?;
    let mut tape = Tape::inference();
    uploaded.hidden(&mut tape, model)?;
    device.run(&tape.rec)?;
    let (heads, kept) = (model.config.n_kv_heads, lrsa.kept());
    let mut layers = Vec::new();
    let attentions = model.config.layer_attentions(attention);
    for (span, attention) in log.borrow().iter().zip(&attentions) {
        let mut of_heads = vec![Vec::new(); if attention.lrsa().is_some() { heads } else { 0 }];
        if let Some(span) = span {
            let rows = device.read_words(span)?; // [pairs, Hk, K]
            for (i, row) in rows.into_iter().enumerate() {
                of_heads[i / kept % heads].push(row as usize);
            }
        }
        layers.push(of_heads);
    }
    let judged = lrsa.partitions(ids.len()).saturating_sub(1) * lrsa.lag();
    Ok(KeptMap {
        tokens: tokenizer.pieces(ids)?,
        sink: lrsa.sink().min(ids.len()),
        lag: lrsa.lag(),
        keep: lrsa.keep(),
        recent_start: (lrsa.sink() + judged).min(ids.len()),
        kept: layers,
    })
}

impl KeptMap {
    /// The layers that are compressed.
    pub fn compressed_layers(&self) -> impl Iterator<Item = usize> {
        self.kept.iter().enumerate().filter(|(_, heads)| !heads.is_empty()).map(|(layer, _)| layer)
    }

    /// Key-value heads of a compressed layer.
    pub fn n_heads(&self) -> usize {
        self.kept.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// For each token the share of heads that keep it, 0 to 1: of all compressed layers, of one, or
    /// of one head of a layer. Tokens of the sink and the recent part have 1.
    pub fn shares(&self, layer: Option<usize>, head: Option<usize>) -> Result<Vec<f64>> {
        let (n_layers, n_heads) = (self.kept.len(), self.n_heads());
        for (what, picked, n) in [("layer", layer, n_layers), ("head", head, n_heads)] {
            if let Some(i) = picked.filter(|&i| i >= n) {
                return Err(Error::usage(format!(
                    "there is no {what} {i}: the valid range is 0 to {}",
                    n.saturating_sub(1)
                )));
            }
        }
        if let Some(layer) = layer.filter(|&layer| self.kept[layer].is_empty()) {
            return Err(Error::usage(format!(
                "layer {layer} has a sliding window of its own and is not compressed: choose a layer with full attention"
            )));
        }
        let mut counts = vec![0usize; self.tokens.len()];
        let mut lists = 0;
        for (_, heads) in self.kept.iter().enumerate().filter(|(l, _)| layer.is_none_or(|x| x == *l)) {
            for (_, positions) in heads.iter().enumerate().filter(|(h, _)| head.is_none_or(|x| x == *h)) {
                lists += 1;
                positions.iter().for_each(|&p| counts[p] += 1);
            }
        }
        let share = |(at, n): (usize, usize)| {
            let is_whole = at < self.sink || at >= self.recent_start;
            if is_whole { 1.0 } else { n as f64 / lists.max(1) as f64 }
        };
        Ok(counts.into_iter().enumerate().map(share).collect())
    }
}
