//! An optimiser: an update rule with its state slots beside the arena, and a step count.
//!
//! Slots and step count can be saved and restored; the resumed run is bit for bit the same.

use std::collections::HashMap;

use super::rule::{SliceUpdate, UpdateRule};
use crate::error::{Context, Result};
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Buffer, Executor, Kind, Recording, Span};
use crate::tensor::{Arena, Tensor, Trainable};

/// The optimiser of one arena.
#[derive(Debug)]
pub struct Optimizer {
    rule: Box<dyn UpdateRule>,
    step: u64,
    /// For each slice of the arena, the rule's slots in order.
    slots: Vec<Vec<Buffer>>,
}

/// An optimiser's state on the host. Another optimiser with the same rule and parameters can
/// continue from it.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Name of the update rule.
    pub optimizer: String,
    /// Number of steps done.
    pub step: u64,
    /// Slots as f32, named `PARAMETER.SLOT`, such as `model.norm.weight.exp_avg`, in the shapes of
    /// their parameters [rows, cols].
    pub slots: Vec<(String, HostTensor)>,
}

impl Optimizer {
    /// An optimiser at step 0. Allocates its slots and fills them with zeros. Fails for invalid
    /// settings.
    pub fn new(device: &mut dyn Executor, arena: &Arena, rule: Box<dyn UpdateRule>) -> Result<Self> {
        rule.validate()?;
        let slots: Vec<Vec<Buffer>> = arena
            .slices
            .iter()
            .map(|slice| {
                let buffer = |slot: &&str| Buffer::persistent(*slot, Kind::Real, slice.values.len());
                rule.slots().iter().map(buffer).collect()
            })
            .collect();
        let mut rec = Recording::new();
        slots.iter().flatten().for_each(|buffer| rec.clear(&buffer.span()));
        device.run(&rec)?;
        Ok(Self { rule, step: 0, slots })
    }

    /// Number of state slots for each parameter.
    pub fn n_slots(&self) -> usize {
        self.rule.slots().len()
    }

    /// Number of steps recorded so far.
    pub fn n_steps(&self) -> u64 {
        self.step
    }

    /// Appends one step over every slice at learning rate `lr` and counts it. When it runs,
    /// `clipping` holds the gradient norm and the factor of the gradients.
    pub fn record(&mut self, rec: &mut Recording, arena: &Arena, clipping: &Span, lr: f64) {
        self.step += 1;
        self.append(rec, arena, clipping, self.step, lr);
    }

    /// Appends the next step without counting it, to plan its memory.
    pub fn preview(&self, rec: &mut Recording, arena: &Arena, clipping: &Span) {
        self.append(rec, arena, clipping, self.step + 1, 0.0);
    }

    fn append(&self, rec: &mut Recording, arena: &Arena, clipping: &Span, step: u64, lr: f64) {
        for (slice, slots) in arena.slices.iter().zip(&self.slots) {
            self.rule.record(rec, &SliceUpdate { slice, slots, clipping, step, lr });
        }
    }

    /// Reads slots and step count. The state is f32, so f64 executors lose digits.
    pub fn state(&self, device: &mut dyn Executor, arena: &Arena, trainables: &[Trainable]) -> Result<OptimizerState> {
        let slots = read_tensors(device, self.slot_tensors(arena, trainables))?;
        Ok(OptimizerState { optimizer: self.rule.name().to_string(), step: self.step, slots })
    }

    /// Loads a state of the same rule and parameters. Fails, and changes nothing, if they differ.
    pub fn load_state(
        &mut self,
        device: &mut dyn Executor,
        arena: &Arena,
        trainables: &[Trainable],
        state: &OptimizerState,
    ) -> Result<()> {
        let own = self.rule.name();
        crate::ensure!(state.optimizer == own, "the state belongs to {}, and the optimiser is {own}", state.optimizer);
        let tensors = self.slot_tensors(arena, trainables);
        write_tensors(device, &tensors, &matching_values(&tensors, &state.slots)?)?;
        self.step = state.step;
        Ok(())
    }

    /// The slots as tensors with the names and shapes of their parameters.
    fn slot_tensors(&self, arena: &Arena, trainables: &[Trainable]) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        for (i, slot) in self.rule.slots().iter().enumerate() {
            let buffers: Vec<Buffer> = self.slots.iter().map(|slots| slots[i].clone()).collect();
            let tensor = |t: &Trainable| (format!("{}.{slot}", t.name), arena.companion(&t.value, &buffers));
            tensors.extend(trainables.iter().map(tensor));
        }
        tensors
    }
}

/// Reads device tensors as f32, in the shapes [rows, cols].
pub fn read_tensors(device: &mut dyn Executor, tensors: Vec<(String, Tensor)>) -> Result<Vec<(String, HostTensor)>> {
    let read = |(name, tensor): (String, Tensor)| {
        let values = tensor.read(device).with_context(|| format!("reading {name}"))?;
        Ok((name, HostTensor::from_f32(&[tensor.rows, tensor.cols], &values)))
    };
    tensors.into_iter().map(read).collect()
}

/// Writes values to device tensors, in the same order.
pub fn write_tensors(device: &mut dyn Executor, tensors: &[(String, Tensor)], values: &[Vec<f32>]) -> Result<()> {
    tensors.iter().zip(values).try_for_each(|((_, tensor), values)| tensor.write(device, values))
}

/// The values of `given` in the order of the device tensors. Fails unless all names and shapes
/// match.
pub fn matching_values(tensors: &[(String, Tensor)], given: &[(String, HostTensor)]) -> Result<Vec<Vec<f32>>> {
    let by_name: HashMap<&str, &HostTensor> = given.iter().map(|(name, t)| (name.as_str(), t)).collect();
    if let Some((name, _)) = given.iter().find(|(name, _)| !tensors.iter().any(|(own, _)| own == name)) {
        crate::bail!("the state contains {name}, which is not trained here");
    }
    let value = |(name, tensor): &(String, Tensor)| {
        let Some(host) = by_name.get(name.as_str()) else { crate::bail!("the state lacks {name}") };
        let shape = [tensor.rows, tensor.cols];
        crate::ensure!(host.shape == shape, "{name} has the shape {shape:?}, but {:?} in the state", host.shape);
        host.to_f32().with_context(|| name.clone())
    };
    tensors.iter().map(value).collect()
}
