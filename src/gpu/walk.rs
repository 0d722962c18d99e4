//! Walks a recording dispatch by dispatch on a device and compares each with its f64 twin.
//!
//! Every dispatch is judged alone: the twin is fed the device's own inputs, so that the first wrong kernel is named and
//! errors do not add up along the way.

use super::{Access, Command, CpuExecutor, Dispatch, Executor, Kind, Recording, Span};
use crate::error::Result;

/// The largest difference found in one written buffer of one dispatch.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Kernel name.
    pub kernel: String,
    /// Name of the binding.
    pub binding: &'static str,
    /// Position of the dispatch among the commands.
    pub command: usize,
    /// Largest absolute error; words that differ count as infinite.
    pub max_abs: f64,
    /// Largest magnitude in the twin's buffer.
    pub scale: f64,
    /// Element with the largest error, the device's value there and the twin's.
    pub worst: (usize, f64, f64),
}

impl Difference {
    /// Error as a fraction of the buffer's scale.
    pub fn relative(&self) -> f64 {
        if self.max_abs == 0.0 { 0.0 } else { self.max_abs / self.scale.max(f64::MIN_POSITIVE) }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (i, device, twin) = self.worst;
        write!(
            f,
            "command {}: {} wrote {}[{i}] = {device:e}, its twin {twin:e} (relative error {:.2e})",
            self.command,
            self.kernel,
            self.binding,
            self.relative()
        )
    }
}

/// Runs `recording` on the device and reports one difference for each written buffer of each dispatch.
pub fn compare(device: &mut dyn Executor, recording: &Recording) -> Result<Vec<Difference>> {
    let recording = recording.promoted();
    let mut found = Vec::new();
    for (i, command) in recording.commands().iter().enumerate() {
        let mut alone = Recording::new();
        alone.push(command.clone());
        if let Command::Dispatch(d) = command {
            let mut twin = CpuExecutor::<f64>::new();
            load_inputs(device, &mut twin, d)?;
            twin.run(&alone)?;
            device.run(&alone)?;
            for (span, binding) in d.spans.iter().zip(d.kernel.bindings) {
                if binding.access != Access::Read {
                    let (max_abs, scale, worst) = difference(device, &mut twin, span)?;
                    let (kernel, binding) = (d.kernel.name(), binding.name);
                    found.push(Difference { kernel, binding, command: i, max_abs, scale, worst });
                }
            }
        } else {
            device.run(&alone)?;
        }
    }
    Ok(found)
}

fn load_inputs(device: &mut dyn Executor, twin: &mut CpuExecutor<f64>, d: &Dispatch) -> Result<()> {
    for (span, binding) in d.spans.iter().zip(d.kernel.bindings) {
        if binding.access == Access::Write {
            continue;
        }
        match span.kind() {
            Kind::Real => twin.write_f64(span, &device.read_f64(span)?)?,
            _ => twin.write_words(span, &device.read_words(span)?)?,
        }
    }
    Ok(())
}

type Worst = (f64, f64, (usize, f64, f64));

fn difference(device: &mut dyn Executor, twin: &mut CpuExecutor<f64>, span: &Span) -> Result<Worst> {
    let mut result: Worst = (0.0, 0.0, (0, 0.0, 0.0));
    if span.kind() == Kind::Real {
        let (ours, theirs) = (device.read_f64(span)?, twin.read_f64(span)?);
        for (i, (&a, &b)) in ours.iter().zip(&theirs).enumerate() {
            let both_unwritten = a.is_nan() && b.is_nan(); // fresh memory that neither touched, in a partly written buffer
            let error = if both_unwritten { 0.0 } else { (a - b).abs() };
            result.1 = if b.is_nan() { result.1 } else { result.1.max(b.abs()) };
            if error > result.0 || (error.is_nan() && !result.0.is_infinite()) {
                result.0 = if error.is_nan() { f64::INFINITY } else { error };
                result.2 = (i, a, b);
            }
        }
        return Ok(result);
    }
    let (ours, theirs) = (device.read_words(span)?, twin.read_words(span)?);
    for (i, (&a, &b)) in ours.iter().zip(&theirs).enumerate() {
        if a != b && result.0 == 0.0 {
            result = (f64::INFINITY, 1.0, (i, f64::from(a), f64::from(b)));
        }
    }
    Ok(result)
}
