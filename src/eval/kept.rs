//! The tokens of a text that the cache keeps, in each layer and head.

use std::cell::RefCell;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::attention::{Attention, Lrsa, Pass, Stream, StreamChunk, chunks_of};
use crate::autograd::Tape;
use crate::data::batch::Batch;
use crate::data::dataset::{Example, IGNORED};
use crate::error::{Error, Result};
use crate::gpu::{Executor, upload_words};
use crate::kernels::embedding::TokenIndex;
use crate::model::block::{KeptLog, StreamContext};
use crate::model::llama::Llama;
use crate::nn::Adapters;
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

/// Tokens of a chunk. A text that is longer streams, so its length costs little memory.
const CHUNK: usize = 4096;

/// Tokens of a chunk where somebody watches, and may stop the work after any of them.
pub const WATCHED_CHUNK: usize = 1024;

/// Runs the model over a text as in training and records the selected tokens. Prefill selects the
/// same tokens.
pub fn kept_map(
    device: &mut dyn Executor,
    model: &mut Llama,
    tokenizer: &Tokenizer,
    ids: &[u32],
    lrsa: Lrsa,
) -> Result<KeptMap> {
    let map = kept_map_in_chunks(device, model, tokenizer, ids, lrsa, CHUNK, &mut |_| ControlFlow::Continue(()))?;
    Ok(map.expect("nothing stopped it"))
}

/// [`kept_map`] in chunks of about `chunk` tokens. `watch` hears how many tokens have been read;
/// `None` if it stops the work.
pub fn kept_map_in_chunks(
    device: &mut dyn Executor,
    model: &mut Llama,
    tokenizer: &Tokenizer,
    ids: &[u32],
    lrsa: Lrsa,
    chunk: usize,
    watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<KeptMap>> {
    if ids.is_empty() {
        return Err(Error::usage("the text has no tokens"));
    }
    let chunks = chunks_of(Attention::Lrsa(lrsa), ids.len(), chunk);
    let selected = match chunks.len() {
        1 => Some(selected_at_once(device, model, ids, lrsa)?),
        _ => selected_in(device, model, ids, lrsa, chunks, watch)?,
    };
    let Some(selected) = selected else { return Ok(None) };
    let (heads, kept) = (model.config.n_kv_heads, lrsa.kept());
    let mut layers = Vec::new();
    let attentions = model.config.layer_attentions(Attention::Lrsa(lrsa));
    for (rows, attention) in selected.into_iter().zip(&attentions) {
        let mut of_heads = vec![Vec::new(); if attention.lrsa().is_some() { heads } else { 0 }];
        for (i, row) in rows.into_iter().enumerate() {
            of_heads[i / kept % heads].push(row as usize);
        }
        layers.push(of_heads);
    }
    let judged = lrsa.partitions(ids.len()).saturating_sub(1) * lrsa.lag();
    Ok(Some(KeptMap {
        tokens: tokenizer.pieces(ids)?,
        sink: lrsa.sink().min(ids.len()),
        lag: lrsa.lag(),
        keep: lrsa.keep(),
        recent_start: (lrsa.sink() + judged).min(ids.len()),
        kept: layers,
    }))
}

/// The positions that each layer selects, of partition after partition: [partitions, Hk, K].
fn selected_at_once(device: &mut dyn Executor, model: &mut Llama, ids: &[u32], lrsa: Lrsa) -> Result<Vec<Vec<u32>>> {
    let batch = Batch::new(&[Example { ids: ids.to_vec(), labels: vec![IGNORED; ids.len()], rejected: None }]);
    let log: KeptLog = Rc::new(RefCell::new(Vec::new()));
    let attention = Attention::Lrsa(lrsa);
    let objective =
        Objective { attention, scale: 1.0, dropout: None, distill: None, preference: None, kept: Some(log.clone()) };
    let uploaded = UploadedBatch::new(device, model, &batch, &objective)?;
    let mut tape = Tape::inference();
    uploaded.hidden(&mut tape, model)?;
    device.run(&tape.rec)?;
    log.borrow().iter().map(|span| span.as_ref().map_or(Ok(vec![]), |span| device.read_words(span))).collect()
}

/// [`selected_at_once`], chunk by chunk. `None` if `watch` stops it.
fn selected_in(
    device: &mut dyn Executor,
    model: &mut Llama,
    ids: &[u32],
    lrsa: Lrsa,
    chunks: Vec<Range<usize>>,
    watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Vec<u32>>>> {
    model.check_ids(ids)?;
    model.reserve_positions(device, ids.len())?;
    let layers = model.config.layer_attentions(Attention::Lrsa(lrsa));
    let max_elements = device.limits().max_elements();
    let stream = Rc::new(Stream::new(&layers, model.heads(), chunks.clone(), false, max_elements)?);
    for (i, Range { start, end }) in chunks.into_iter().enumerate() {
        let positions: Vec<u32> = (start as u32..end as u32).collect();
        let context = StreamContext {
            stream: stream.clone(),
            chunk: Rc::new(StreamChunk::upload(device, &stream, i)?),
            pass: Pass::First,
            positions: upload_words(device, "positions", &positions)?,
            rotations: model.rotations(),
            adapters: Adapters::On(None),
            noise: None,
        };
        let mut tape = Tape::inference();
        let tokens = TokenIndex::upload(device, &ids[start..end], false)?;
        model.forward_streamed(&mut tape, &tokens, &context)?;
        device.run(&tape.rec)?;
        if watch(end).is_break() {
            return Ok(None);
        }
    }
    (0..layers.len())
        .map(|layer| Ok(stream.selected(device, layer)?.unwrap_or_default()))
        .collect::<Result<_>>()
        .map(Some)
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
