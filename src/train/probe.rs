//! Results of one forward and backward pass under Hugging Face's names, to compare frameworks.

use std::cell::RefCell;
use std::rc::Rc;

use super::distill::{Counts, Distill};
use super::gradient_step::GradientStep;
use super::objective::{Objective, UploadedBatch};
use super::stepper::LossParts;
use super::streamed::{Piece, StreamedSequence, pieces};
use crate::attention::Attention;
use crate::autograd::Tape;
use crate::checkpoint::adapter_file::MAGNITUDE;
use crate::checkpoint::load::Loaded;
use crate::data::batch::Batch;
use crate::data::dataset::{Example, IGNORED};
use crate::error::{Error, Result};
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Executor, Recording};
use crate::kernels::head::logits_into;
use crate::kernels::matmul::Rows;
use crate::model::block::KeptLog;
use crate::tensor::{Format, Tensor, copy_tensor};

/// Elements of one chunk of logits to read back.
const LOGITS_CHUNK: usize = 1 << 22;

/// The inputs and the tensors to compute.
#[derive(Clone, Debug)]
pub struct ProbeRequest<'a> {
    /// Token ids of each sequence; lengths may differ.
    pub ids: &'a [Vec<u32>],
    /// Labels as long as the ids, -100 ignored, shifted internally as in transformers.
    pub labels: Option<&'a [Vec<i32>]>,
    /// Whether to compute gradients (needs labels and a model loaded with trainable parameters).
    pub grads: bool,
    /// Recompute activations in the backward pass.
    pub recompute: bool,
    /// Dense or LRSA.
    pub attention: Attention,
    /// Distillation from the dense model; adds `ce` and `kl` to the loss (needs labels).
    pub distill: Option<Distill>,
    /// Stream longer sequences in chunks of about this many tokens.
    pub chunk: Option<usize>,
}

/// Computes `logits` [B, T, V], `loss` `[1]` (with distillation also its parts `ce` and `kl`),
/// `grad.NAME`, and `kept.LAYER` [B, Hk, P-1, K] of compressed layers; LAYER counts all layers.
///
/// Pads rows shorter than the longest: logits with 0, kept with -1.
pub fn probe(
    device: &mut dyn Executor,
    loaded: &mut Loaded,
    request: &ProbeRequest<'_>,
) -> Result<Vec<(String, HostTensor)>> {
    let examples = examples(request)?;
    let batch = Batch::new(&examples);
    let n_targets = if request.labels.is_some() { batch.n_targets } else { 0 };
    let counts = Counts::of([&batch]);
    let scales = counts.scales(request.distill);
    let objective = Objective {
        attention: request.attention,
        scale: scales.ce,
        dropout: None,
        distill: request.distill.map(|d| (d.teacher, scales.kl)),
        preference: None,
        kept: None,
    };
    let Forward { logits, kept } = forward(device, loaded, &batch, &objective, request.chunk)?;
    let mut out = vec![("logits".to_string(), padded_logits(&logits, &batch, loaded.model.config.vocab))];
    if n_targets > 0 || request.distill.is_some() {
        let step = GradientStep::new(device, request.recompute, request.chunk)?;
        let loss = if request.grads || request.distill.is_some() {
            step.clear(device, loaded)?;
            step.accumulate(device, loaded, &batch, &objective)?
        } else {
            let (sum, n) = step.evaluate(device, loaded, &batch, request.attention)?;
            sum / n as f64
        };
        let mut push = |name: &str, value: f64| out.push((name.into(), HostTensor::from_f32(&[1], &[value as f32])));
        push("loss", loss);
        if request.distill.is_some() {
            let [ce, kl] = step.parts();
            let sums = [device.read_f64(ce)?[0], device.read_f64(kl)?[0]];
            let parts = LossParts::of(sums, counts);
            parts.ce.into_iter().for_each(|ce| push("ce", ce));
            push("kl", parts.kl);
        }
    }
    if request.grads {
        for t in &loaded.trainables {
            let values = t.grad.read(device)?;
            out.push((format!("grad.{}", t.name), HostTensor::from_f32(&file_shape(&t.name, &t.grad), &values)));
        }
    }
    out.extend(kept_tensors(loaded, request, &batch, &kept));
    Ok(out)
}

/// The shape of a trained tensor in Hugging Face's files; norm weights, biases and magnitudes have
/// one axis.
pub fn file_shape(name: &str, tensor: &Tensor) -> Vec<usize> {
    let is_vector = ["norm.weight", ".bias", MAGNITUDE].iter().any(|end| name.ends_with(end));
    if is_vector { vec![tensor.cols] } else { vec![tensor.rows, tensor.cols] }
}

fn examples(request: &ProbeRequest<'_>) -> Result<Vec<Example>> {
    if request.grads && request.labels.is_none() {
        return Err(Error::usage("`grads` needs `labels`: gradients are gradients of the loss"));
    }
    if request.distill.is_some() && request.labels.is_none() {
        return Err(Error::usage("`distill` needs `labels`: they are a part of its loss"));
    }
    if request.ids.is_empty() || request.ids.iter().any(Vec::is_empty) {
        return Err(Error::usage("every row of the ids needs at least one token"));
    }
    if let Some(labels) = request.labels
        && (labels.len() != request.ids.len() || labels.iter().zip(request.ids).any(|(l, i)| l.len() != i.len()))
    {
        return Err(Error::usage("the labels need the same rows and lengths as the ids"));
    }
    let label = |(row, ids): (usize, &Vec<u32>)| Example {
        ids: ids.clone(),
        labels: request.labels.map_or_else(|| vec![IGNORED; ids.len()], |l| l[row].clone()),
        rejected: None,
    };
    let examples: Vec<Example> = request.ids.iter().enumerate().map(label).collect();
    let counts = Counts::of([&Batch::new(&examples)]);
    if request.labels.is_some() && counts.targets == 0 && !counts.trains(request.distill) {
        return Err(Error::usage("the labels ignore every token: there is no loss to compute"));
    }
    Ok(examples)
}

fn read_logits(device: &mut dyn Executor, loaded: &Loaded, states: &Tensor) -> Result<Vec<f32>> {
    let head = loaded.model.output();
    let vocab = head.weight.rows;
    let step = (LOGITS_CHUNK / vocab).clamp(1, states.rows);
    let chunk = Tensor::persistent("logits chunk", Format::F32, step, vocab, &device.limits())?;
    let mut all = Vec::with_capacity(states.rows * vocab);
    for first in (0..states.rows).step_by(step) {
        let n = step.min(states.rows - first);
        let mut tape = Tape::inference();
        logits_into(&mut tape.rec, Rows::new(states, first, n), head, &chunk);
        device.run(&tape.rec)?;
        all.extend(device.read_real(&chunk.span().prefix(n * vocab))?);
    }
    Ok(all)
}

fn padded_logits(flat: &[f32], batch: &Batch, vocab: usize) -> HostTensor {
    let longest = batch.sequences.iter().map(|s| s.1).max().unwrap_or(0);
    let mut values = vec![0.0; batch.sequences.len() * longest * vocab];
    for (row, &(start, n)) in batch.sequences.iter().enumerate() {
        let at = row * longest * vocab;
        values[at..at + n * vocab].copy_from_slice(&flat[start * vocab..(start + n) * vocab]);
    }
    HostTensor::from_f32(&[batch.sequences.len(), longest, vocab], &values)
}

/// The kept positions of each layer and sequence: [pairs, Hk, K]; empty where nothing is selected.
fn kept_tensors(
    loaded: &Loaded,
    request: &ProbeRequest<'_>,
    batch: &Batch,
    kept: &[Vec<Vec<u32>>],
) -> Vec<(String, HostTensor)> {
    let Attention::Lrsa(lrsa) = request.attention else { return vec![] };
    let (heads, n_kept) = (loaded.model.config.n_kv_heads, lrsa.kept());
    let n_pairs = |n: usize| lrsa.partitions(n).saturating_sub(1);
    let most = batch.sequences.iter().map(|s| n_pairs(s.1)).max().unwrap_or(0);
    let mut out = Vec::new();
    for (layer, sequences) in kept.iter().enumerate().filter(|(_, s)| s.iter().any(|s| !s.is_empty())) {
        let mut values = vec![-1i32; batch.sequences.len() * heads * most * n_kept];
        for (b, positions) in sequences.iter().enumerate() {
            for (i, &position) in positions.iter().enumerate() {
                let (pair, head, place) = (i / n_kept / heads, i / n_kept % heads, i % n_kept);
                values[((b * heads + head) * most + pair) * n_kept + place] = position as i32;
            }
        }
        let shape = [batch.sequences.len(), heads, most, n_kept];
        out.push((format!("kept.{layer}"), HostTensor::from_i32(&shape, &values)));
    }
    out
}

/// The results of a forward pass, for all sequences.
struct Forward {
    /// [tokens, vocabulary]
    logits: Vec<f32>,
    /// Positions of each layer and sequence.
    kept: Vec<Vec<Vec<u32>>>,
}

fn forward(
    device: &mut dyn Executor,
    loaded: &mut Loaded,
    batch: &Batch,
    objective: &Objective,
    chunk: Option<usize>,
) -> Result<Forward> {
    let n_layers = loaded.model.config.n_layers();
    let mut all = Forward { logits: Vec::new(), kept: vec![Vec::new(); n_layers] };
    for piece in pieces(batch, objective, chunk) {
        match piece {
            Piece::AtOnce(part, _) => {
                let log: KeptLog = Rc::new(RefCell::new(Vec::new()));
                let objective = Objective { kept: Some(log.clone()), distill: None, ..objective.clone() };
                let uploaded = UploadedBatch::new(device, &mut loaded.model, &part, &objective)?;
                let mut tape = Tape::inference();
                let hidden = uploaded.hidden(&mut tape, &loaded.model)?.tensor;
                all.logits.extend(run_and_read_logits(device, loaded, tape.rec, &hidden)?);
                for (layer, rows) in log.borrow().iter().enumerate() {
                    let rows = rows.as_ref().map(|span| device.read_words(span)).transpose()?.unwrap_or_default();
                    all.kept[layer].extend(positions_of(&rows, &part));
                }
            }
            Piece::StreamedPair(_) => unreachable!("a probe has no pairs"),
            Piece::Streamed(tokens) => {
                let at = (batch, tokens);
                let chunk = chunk.expect("only with chunks a sequence streams");
                let sequence = StreamedSequence::new(device, &mut loaded.model, at, objective, chunk, false)?;
                for c in 0..sequence.stream().chunks().len() {
                    let (rec, hidden) = sequence.record_hidden(device, &loaded.model, c)?;
                    all.logits.extend(run_and_read_logits(device, loaded, rec, &hidden)?);
                }
                for (layer, kept) in all.kept.iter_mut().enumerate() {
                    kept.push(sequence.stream().selected(device, layer)?.unwrap_or_default());
                }
            }
        }
    }
    Ok(all)
}

/// Splits the kept rows of a batch, sequence after sequence, and makes them positions. A sequence
/// ends where rows lie beyond it.
fn positions_of(rows: &[u32], batch: &Batch) -> Vec<Vec<u32>> {
    let mut rest = rows;
    let of = |&(start, n): &(usize, usize)| {
        let end = rest.iter().position(|&row| row as usize >= start + n).unwrap_or(rest.len());
        let (own, others) = rest.split_at(end);
        rest = others;
        own.iter().map(|&row| row - start as u32).collect()
    };
    batch.sequences.iter().map(of).collect()
}

/// Runs a forward pass and reads the logits of its hidden states.
fn run_and_read_logits(
    device: &mut dyn Executor,
    loaded: &Loaded,
    mut rec: Recording,
    hidden: &Tensor,
) -> Result<Vec<f32>> {
    let limits = device.limits();
    let states = Tensor::persistent("final hidden states", Format::F32, hidden.rows, hidden.cols, &limits)?;
    copy_tensor(&mut rec, hidden, &states);
    device.run(&rec)?;
    read_logits(device, loaded, &states)
}
