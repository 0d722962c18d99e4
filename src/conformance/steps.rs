//! Report rows of whole runs of a real model: a training step, and prefill with decode.
//!
//! A walk runs each dispatch alone and names the first wrong kernel. Run as one recording, the same
//! dispatches share memory and submits; two such runs must give the same bits.

use std::time::Instant;

use super::row::{Direction, Place, Row, Status, row_of};
use crate::attention::{Attention, Lrsa};
use crate::autograd::Tape;
use crate::checkpoint::adapter_config::AdapterConfig;
use crate::checkpoint::adapter_file::Adapter;
use crate::checkpoint::adapter_targets::{ALL_LINEAR, ModuleSet, Targets};
use crate::checkpoint::bundled;
use crate::checkpoint::load::{Decay, Loaded, Train, load};
use crate::checkpoint::weights::WeightSource;
use crate::data::batch::Batch;
use crate::data::dataset::Example;
use crate::error::Result;
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Buffer, Executor, Kind, Recording, Span, upload_words};
use crate::kernels::case::{Tolerance, random};
use crate::kernels::embedding::TokenIndex;
use crate::kernels::head::logits;
use crate::kernels::sample::{Changes, Sampling, sample};
use crate::nn::Dropout;
use crate::optim::{Optimizer, OptimizerKind, OptimizerSettings};
use crate::train::{GradientStep, Objective};
use crate::verify::walk;

/// The tolerance of one dispatch of a whole run.
pub const WALK: Tolerance = Tolerance {
    relative: 2e-5,
    absolute: 1e-6,
    reason: "f32 sums over hundreds of terms in another order, and exp to the accuracy that WGSL grants",
};

/// The models that the rows run.
pub struct Models {
    source: WeightSource,
    attention: Attention,
}

impl Models {
    /// The bundled model.
    pub fn open() -> Result<Self> {
        Ok(Self { source: bundled::stories()?, attention: Attention::Lrsa(Lrsa::new(3, 10, 0.4)?) })
    }
}

/// Reproducible, unpatterned ids below `vocab`.
fn ids(n: usize, vocab: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % vocab) as u32).collect()
}

/// A ragged batch: several partitions, a sequence shorter than the sink, and masked labels.
fn batch(vocab: usize) -> Batch {
    let example = |n: usize, masked: usize, seed: usize| {
        let ids = ids(n, vocab, seed);
        let label = |(i, &id): (usize, &u32)| if i < masked { -100 } else { id as i32 };
        Example { labels: ids.iter().enumerate().map(label).collect(), ids, rejected: None }
    };
    Batch::new(&[example(61, 0, 0), example(2, 0, 1), example(30, 17, 2)])
}

/// Walks a recording and returns one row per kernel.
pub(super) fn walk_rows(device: &mut dyn Executor, recording: &Recording, place: Place<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut first_wrong = None;
    walk::visit(device, recording, |device, check| {
        let row = row_of(&mut rows, place, check.dispatch.kernel, Direction::Step, &WALK);
        row.examine(device, &check, place.variant, &WALK)?;
        if row.status != Status::Passed && first_wrong.is_none() {
            first_wrong = Some(check.dispatch.kernel);
        }
        Ok(())
    })?;
    if let Some(first) = first_wrong {
        let row = row_of(&mut rows, place, first, Direction::Step, &WALK);
        row.reason = format!("first wrong kernel of the run: {}", row.reason);
    }
    Ok(rows)
}

/// Runs a recording twice as a whole and once dispatch by dispatch: the outputs must have the same
/// bits.
fn same_bits_row(device: &mut dyn Executor, recording: &Recording, outputs: &[Span], place: Place<'_>) -> Result<Row> {
    let mut row =
        Row::new(place, "whole recording".to_string(), place.variant.of_all(), Direction::Step, &Tolerance::EXACT);
    row.reason = "run twice as one recording and once dispatch by dispatch, with the same bits".to_string();
    let start = Instant::now();
    let mut bits = |recording: &Recording, alone: bool| -> Result<Vec<Vec<u32>>> {
        if alone {
            walk::visit(device, recording, |device, check| device.run(&check.alone()))?;
        } else {
            device.run(recording)?;
        }
        outputs.iter().map(|o| Ok(device.read_real(o)?.iter().map(|x| x.to_bits()).collect())).collect()
    };
    let (first, second, alone) = (bits(recording, false)?, bits(recording, false)?, bits(recording, true)?);
    if first != second {
        row.fail("two runs of the recording gave different bits: the order of execution is not fixed".to_string());
    } else if first != alone {
        row.fail(
            "the recording gives different bits than its dispatches alone: suspect shared memory or a missing barrier"
                .to_string(),
        );
    }
    row.seconds = start.elapsed().as_secs_f64();
    Ok(row)
}

/// The rows of training steps (all weights; a LoRA adapter with dropout) and of prefill with
/// decode.
pub(super) fn check_steps(device: &mut dyn Executor, models: &Models, place: Place<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut all = load(device, &models.source, None, Train::All(Decay::Matrices))?;
    rows.extend(training_rows(device, &mut all, models.attention, None, place.named("training step"))?);
    let adapter = some_adapter(&models.source)?;
    let mut lora = load(device, &models.source, Some(&adapter), Train::Adapter(Decay::All))?;
    let dropout = Some(Dropout { seed: 5, step: 3, first_token: 0, neftune: 5.0 });
    rows.extend(training_rows(device, &mut lora, models.attention, dropout, place.named("LoRA training step"))?);
    rows.extend(generation_rows(device, &all, models.attention, place)?);
    Ok(rows)
}

/// An adapter on every linear layer with non-zero factors, so that both factors get a gradient.
fn some_adapter(source: &WeightSource) -> Result<Adapter> {
    let targets = Targets::of(ModuleSet::Pattern(ALL_LINEAR.into()));
    let config = AdapterConfig { dropout: 0.25, ..AdapterConfig::new(3, 6.0, targets) };
    let mut adapter = Adapter::fresh(config, source.config(), 1)?;
    for (i, pair) in adapter.pairs.iter_mut().enumerate() {
        let n: usize = pair.b.shape.iter().product();
        let values = random(i as u64, n, 0.1);
        pair.b = HostTensor::from_f32(&pair.b.shape.clone(), &values);
    }
    Ok(adapter)
}

fn training_rows(
    device: &mut dyn Executor,
    loaded: &mut Loaded,
    attention: Attention,
    dropout: Option<Dropout>,
    place: Place<'_>,
) -> Result<Vec<Row>> {
    let batch = batch(loaded.model.config.vocab);
    let step = GradientStep::new(device, true, None)?;
    let objective = Objective {
        attention,
        scale: 1.0 / batch.n_targets as f32,
        dropout,
        distill: None,
        preference: None,
        kept: None,
    };
    let backward = step.record(device, loaded, &batch, &objective)?;
    let arena = loaded.arena.as_ref().expect("a model that is trained has an arena");
    let mut recording = Recording::new();
    step.record_clear(&mut recording, loaded);
    backward.commands().iter().for_each(|c| recording.push(c.clone()));
    let grads: Vec<Span> = arena.slices.iter().map(|s| s.grads.span()).collect();
    let mut rows = walk_rows(device, &recording, place)?;
    rows.push(same_bits_row(device, &recording, &grads, place)?);
    let mut update = Recording::new();
    let clipping = step.record_norm(&mut update, arena, 0.5);
    let rule = OptimizerKind::default().info().rule(&OptimizerSettings { weight_decay: 0.01, ..Default::default() })?;
    let parameters = loaded.parameters()?;
    Optimizer::new(device, parameters, rule)?.record(&mut update, parameters, &clipping, 1e-3);
    rows.extend(walk_rows(device, &update, place.named(&format!("{}, update", place.case)))?);
    Ok(rows)
}

fn generation_rows(
    device: &mut dyn Executor,
    loaded: &Loaded,
    attention: Attention,
    place: Place<'_>,
) -> Result<Vec<Row>> {
    const PREFILL: usize = 37;
    const TOTAL: usize = 41;
    let mut cache = loaded.model.cache(attention, TOTAL, 16)?;
    let ids = ids(TOTAL, loaded.model.config.vocab, 5);
    let previous = upload_words(device, "previous ids", &ids)?;
    let sampling = Sampling {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.9,
        min_p: 0.01,
        repetition_penalty: 1.1,
        ..Sampling::default()
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut fed = 0;
    while fed < TOTAL {
        let (n, what) = if fed < PREFILL { (cache.chunk(PREFILL - fed), "prefill") } else { (1, "decode") };
        let step = cache.begin(device, n)?;
        let index = TokenIndex::upload(device, &ids[fed..fed + n], false)?;
        let mut tape = Tape::inference();
        let hidden = loaded.model.forward_cached(&mut tape, &index, &cache, &step)?;
        let logits = logits(&mut tape.rec, &hidden.tensor, loaded.model.output());
        let token = Buffer::persistent("token", Kind::U32, 1).span();
        let changes = Changes { previous: Some((&previous, fed)), added: None };
        sample(&mut tape.rec, &logits, logits.rows - 1, changes, &sampling, 0.37, &token);
        let found = walk_rows(device, &tape.rec, place.named(&format!("{what}, tokens {fed} to {}", fed + n)))?;
        merge(&mut rows, found, what);
        cache.commit(&step);
        fed += n;
    }
    Ok(rows)
}

/// Merges the rows of one chunk: a kernel that passed in all chunks has one row.
fn merge(rows: &mut Vec<Row>, found: Vec<Row>, what: &str) {
    for mut row in found {
        let same = |r: &&mut Row| r.kernel == row.kernel && r.case == what;
        match rows.iter_mut().find(same) {
            Some(old) if row.status == Status::Passed => {
                old.max_abs = old.max_abs.max(row.max_abs);
                old.max_ulp = old.max_ulp.max(row.max_ulp);
                old.max_relative = old.max_relative.max(row.max_relative);
                old.seconds += row.seconds;
            }
            _ => {
                if row.status == Status::Passed {
                    row.case = what.to_string();
                }
                rows.push(row);
            }
        }
    }
}
