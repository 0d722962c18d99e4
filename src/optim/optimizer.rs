//! An optimiser: an update rule with its state slots and a step count.
//!
//! Slots and step count can be saved and restored; the resumed run is bit for bit the same.

use super::rule::{Update, UpdateRule};
use super::slots::{Slots, matching, read_stored, write_stored};
use crate::error::Result;
use crate::formats::host_tensor::HostTensor;
use crate::gpu::{Executor, Recording, Span};
use crate::tensor::Parameters;

/// The optimiser of one arena.
#[derive(Debug)]
pub struct Optimizer {
    rule: Box<dyn UpdateRule>,
    step: u64,
    slots: Slots,
    lora_plus: f64,
}

/// An optimiser's state on the host. Another optimiser with the same rule and parameters can
/// continue from it.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Name of the update rule.
    pub optimizer: String,
    /// Number of steps done.
    pub step: u64,
    /// Slots, named `PARAMETER.SLOT`, such as `model.norm.weight.exp_avg`. Those with a value for
    /// each element have the shape of their parameter [rows, cols].
    pub slots: Vec<(String, HostTensor)>,
}

impl Optimizer {
    /// An optimiser at step 0. Allocates its slots and fills them with zeros. Fails for invalid
    /// settings.
    pub fn new(device: &mut dyn Executor, parameters: Parameters<'_>, rule: Box<dyn UpdateRule>) -> Result<Self> {
        rule.validate()?;
        let slots = rule.slots(parameters);
        let mut rec = Recording::new();
        slots.buffers().iter().flatten().for_each(|buffer| rec.clear(&buffer.span()));
        device.run(&rec)?;
        Ok(Self { rule, step: 0, slots, lora_plus: 1.0 })
    }

    /// Multiplies the learning rate of the group `LoraB` by `ratio` (LoRA+, arXiv 2402.12354).
    pub fn with_lora_plus(self, ratio: f64) -> Self {
        Self { lora_plus: ratio, ..self }
    }

    /// Device memory of the slots in bytes.
    pub fn slot_bytes(&self) -> u64 {
        self.slots.n_bytes()
    }

    /// Number of steps recorded so far.
    pub fn n_steps(&self) -> u64 {
        self.step
    }

    /// Appends one step over all parameters at learning rate `lr` and counts it. When it runs,
    /// `clipping` holds the gradient norm and the factor of the gradients.
    pub fn record(&mut self, rec: &mut Recording, parameters: Parameters<'_>, clipping: &Span, lr: f64) {
        self.step += 1;
        self.append(rec, parameters, clipping, self.step, lr);
    }

    /// Appends the next step without counting it, to plan its memory.
    pub fn preview(&self, rec: &mut Recording, parameters: Parameters<'_>, clipping: &Span) {
        self.append(rec, parameters, clipping, self.step + 1, 0.0);
    }

    fn append(&self, rec: &mut Recording, parameters: Parameters<'_>, clipping: &Span, step: u64, lr: f64) {
        let (slots, lora_plus) = (self.slots.buffers(), self.lora_plus);
        self.rule.record(rec, &Update { parameters, slots, clipping, step, lr, lora_plus });
    }

    /// Reads slots and step count. Reals become f32, so f64 executors lose digits.
    pub fn state(&self, device: &mut dyn Executor) -> Result<OptimizerState> {
        let slots = read_stored(device, self.slots.stored())?;
        Ok(OptimizerState { optimizer: self.rule.name().to_string(), step: self.step, slots })
    }

    /// Loads a state of the same rule and parameters. Fails, and changes nothing, if they differ.
    pub fn load_state(&mut self, device: &mut dyn Executor, state: &OptimizerState) -> Result<()> {
        let own = self.rule.name();
        crate::ensure!(state.optimizer == own, "the state belongs to {}, and the optimiser is {own}", state.optimizer);
        let values = matching(self.slots.stored(), &state.slots)?;
        write_stored(device, self.slots.stored(), &values)?;
        self.step = state.step;
        Ok(())
    }
}
