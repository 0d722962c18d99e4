//! A case: one application of an op to made-up inputs.
//!
//! From it follow the check of every dispatch on a device against its f64 reference, the f64
//! gradient check, a conformance row and a benchmark row.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::op::Op;
use crate::error::Result;
use crate::gpu::{Buffer, Executor, Kind, Recording, Span};
use crate::tensor::{Format, Tensor, copy_tensor};

/// An input of a case.
#[derive(Clone, Debug)]
pub enum Input {
    /// A matrix of reals.
    Real {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Storage format on the device.
        format: Format,
        /// Values in row order.
        values: Vec<f32>,
        /// Whether the op computes its gradient. Always false for 16-bit inputs.
        differentiable: bool,
    },
    /// A quantised matrix, without gradient.
    Blocks {
        /// Rows.
        rows: usize,
        /// Columns, a whole number of blocks.
        cols: usize,
        /// Storage format on the device.
        format: Format,
        /// Its blocks in row order.
        words: Vec<u32>,
    },
    /// u32 words: ids, indices, tables.
    Words(Vec<u32>),
}

impl Input {
    /// The same input without a gradient.
    pub fn frozen(self) -> Self {
        match self {
            Input::Real { rows, cols, format, values, .. } => {
                Input::Real { rows, cols, format, values, differentiable: false }
            }
            other => other,
        }
    }
}

/// The allowed deviation of a device from the f64 reference, with the reason.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Maximum error of an element, relative to the largest magnitude in the buffer.
    pub relative: f64,
    /// Error that is always allowed, for cancellation where the true value is 0.
    pub absolute: f64,
    /// Why this tolerance is right.
    pub reason: &'static str,
}

impl Tolerance {
    /// Elementwise arithmetic: a few roundings.
    pub const ROUNDING: Tolerance =
        Tolerance { relative: 1e-6, absolute: 1e-12, reason: "a few f32 roundings per element" };
    /// Sums and exponentials in f32.
    pub const SUMS: Tolerance = Tolerance {
        relative: 1e-5,
        absolute: 1e-6,
        reason: "f32 sums in another order, and exp to the accuracy that WGSL requires",
    };
    /// Copies and integer results.
    pub const EXACT: Tolerance = Tolerance { relative: 0.0, absolute: 0.0, reason: "values are moved, not computed" };
}

impl Tolerance {
    /// The magnitude to compare errors with in a buffer of this scale. Below absolute / relative,
    /// the absolute part of the tolerance dominates.
    pub fn floor(&self, scale: f64) -> f64 {
        let turn = if self.relative > 0.0 { self.absolute / self.relative } else { 0.0 };
        scale.max(turn).max(f64::MIN_POSITIVE)
    }
}

/// The inputs of a case on the device, in order.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// The real inputs.
    pub tensors: Vec<Tensor>,
    /// The word inputs.
    pub words: Vec<Span>,
}

/// The result of a case's forward: real outputs and, for differentiable ops, the gradient rule.
pub type Built = (Vec<Tensor>, Option<Box<dyn Op>>);

type Forward = Box<dyn Fn(&mut Recording, &Bound) -> Result<Built>>;

/// One application of an op.
pub struct Case {
    /// The name, `family/op: property`.
    pub name: String,
    /// Inputs; the forward expects the reals and the words each in this order.
    pub inputs: Vec<Input>,
    /// Appends the forward commands.
    pub forward: Forward,
    /// Maximum allowed error.
    pub tolerance: Tolerance,
    /// Whether this is the family's benchmark size, which quick tests skip.
    pub bench: bool,
    /// Whether software drivers, which compile for the CPU, take minutes for its kernels. Such a
    /// case runs on hardware and when it is named.
    pub slow: bool,
}

/// A case recorded for a device, with memory for its inputs: forward, then backward from given
/// output gradients.
pub struct Recorded {
    /// All commands.
    pub recording: Recording,
    /// Index of the first backward command.
    pub backward_from: usize,
    /// Inputs.
    pub bound: Bound,
    /// Persistent copies of the outputs.
    pub outputs: Vec<Tensor>,
    /// The gradient of each output (persistent; filled by the caller or [`Case::record`]).
    pub output_grads: Vec<Tensor>,
    /// Persistent copies of the gradients of the differentiable inputs (reals only), in input
    /// order.
    pub input_grads: Vec<Option<Tensor>>,
}

impl Case {
    /// A case of a differentiable op: `forward` returns the op's result.
    pub fn new(
        name: impl Into<String>,
        inputs: Vec<Input>,
        tolerance: Tolerance,
        forward: impl Fn(&mut Recording, &Bound) -> Result<Built> + 'static,
    ) -> Self {
        Self { name: name.into(), inputs, forward: Box::new(forward), tolerance, bench: false, slow: false }
    }

    /// Marks a case whose kernels software drivers take minutes to compile.
    pub fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// Marks the benchmark size.
    pub fn bench(mut self) -> Self {
        self.bench = true;
        self
    }

    /// Uploads the inputs and records forward and, if there is a rule, backward.
    pub fn record(&self, device: &mut dyn Executor) -> Result<Recorded> {
        let mut bound = Bound::default();
        let mut need = Vec::new();
        let limits = device.limits();
        for input in &self.inputs {
            match input {
                Input::Real { rows, cols, format, values, differentiable } => {
                    let t = Tensor::persistent("input", *format, *rows, *cols, &limits)?;
                    t.write(device, values)?;
                    bound.tensors.push(t);
                    need.push(*differentiable);
                }
                Input::Blocks { rows, cols, format, words } => {
                    let t = Tensor::persistent("input", *format, *rows, *cols, &limits)?;
                    t.write_blocks(device, words)?;
                    bound.tensors.push(t);
                    need.push(false);
                }
                Input::Words(words) => {
                    let span = Buffer::persistent("input", Kind::U32, words.len()).span();
                    device.write_words(&span, words)?;
                    bound.words.push(span);
                }
            }
        }
        let mut recording = Recording::new();
        let (outs, op) = (self.forward)(&mut recording, &bound)?;
        let keep = |rec: &mut Recording, t: &Tensor| -> Result<Tensor> {
            let kept = Tensor::persistent("output", Format::F32, t.rows, t.cols, &limits)?;
            copy_tensor(rec, t, &kept);
            Ok(kept)
        };
        let outputs = outs.iter().map(|t| keep(&mut recording, t)).collect::<Result<Vec<_>>>()?;
        let backward_from = recording.commands().len();
        let mut output_grads = Vec::new();
        let mut input_grads = Vec::new();
        if let Some(op) = op {
            for (i, t) in outputs.iter().enumerate() {
                let g = Tensor::persistent("output gradient", Format::F32, t.rows, t.cols, &limits)?;
                g.write(device, &random(1000 + i as u64, t.len(), -1.0))?;
                output_grads.push(g);
            }
            let grads = op.backward(&mut recording, &output_grads, &need)?;
            for (g, needed) in grads.iter().zip(&need) {
                assert!(g.is_some() || !needed, "{}: the rule of {} gives no gradient", self.name, op.label());
                input_grads.push(g.as_ref().map(|g| keep(&mut recording, g)).transpose()?);
            }
        }
        Ok(Recorded { recording, backward_from, bound, outputs, output_grads, input_grads })
    }
}

/// Random rows with one value far above the others, at changing columns: at both ends of the row
/// and where a workgroup's lanes start another iteration. A softmax that misses the maximum
/// overflows.
pub fn spiked(seed: u64, rows: usize, cols: usize) -> Vec<f32> {
    let mut values = random(seed, rows * cols, 1.0);
    for r in 0..rows {
        let column = [cols - 1, 0, 8, 32, 64, 256, 257, 513, r * 37][r % 9] % cols;
        values[r * cols + column] += 150.0 + 100.0 * (r % 4) as f32;
    }
    values
}

/// `n` reproducible, roughly normal values with the given spread.
pub fn random(seed: u64, n: usize, spread: f32) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n).map(|_| (0..4).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() * 0.87 * spread).collect()
}

/// A differentiable f32 input of random values.
pub fn real(seed: u64, rows: usize, cols: usize, spread: f32) -> Input {
    Input::Real { rows, cols, format: Format::F32, values: random(seed, rows * cols, spread), differentiable: true }
}

/// A frozen input of random values in the given format.
pub fn frozen(seed: u64, rows: usize, cols: usize, spread: f32, format: Format) -> Input {
    Input::Real { rows, cols, format, values: random(seed, rows * cols, spread), differentiable: false }
}

/// A quantised input of random blocks with values between about -2 and 2.
pub fn blocks(seed: u64, rows: usize, cols: usize, format: Format) -> Input {
    scaled_blocks(seed, rows, cols, format, |size| size)
}

/// A quantised input of random blocks with scales of about 1e-5, as files often have them: as f16 these
/// are subnormal.
pub fn subnormal_blocks(seed: u64, rows: usize, cols: usize, format: Format) -> Input {
    scaled_blocks(seed, rows, cols, format, |size| 2e-5f32.copysign(size))
}

/// Random blocks with scales from half of what `most` makes of their size in the table up to that.
fn scaled_blocks(seed: u64, rows: usize, cols: usize, format: Format, most: impl Fn(f32) -> f32) -> Input {
    let mut rng = StdRng::seed_from_u64(seed);
    let layout = format.dtype().block_layout().expect("blocks are of quantised formats");
    let mut words = vec![0; format.n_words(rows * cols)];
    for block in words.chunks_exact_mut(layout.words()) {
        block.iter_mut().for_each(|w| *w = rng.random());
        layout.write_scales(bytemuck::cast_slice_mut(block), |size| most(size) * rng.random_range(0.5..1.0));
    }
    Input::Blocks { rows, cols, format, words }
}
