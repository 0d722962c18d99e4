//! The `Executor` trait, which runs recordings, and the limits, memory use and timings it reports.

use super::buffer::ELEMENT_ALIGNMENT;
use super::{Activations, Buffer, Dispatch, Features, KernelDef, Kind, Reading, Recording, Span};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::file_bytes::FileBytes;

/// Size limits of a device that recordings must respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Largest span of one binding, in bytes. Larger tensors are bound in row slices.
    pub max_binding_bytes: u64,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Workgroups that a dispatch of attention has at least when its work is split into several
    /// dispatches: fewer would leave the device idle. `usize::MAX` where a dispatch may take any
    /// time, so nothing is split.
    pub fewest_groups: usize,
}

/// Most bytes of a buffer whose elements a shader can index: one of a u32 is below 2^32. A span of
/// this length starts and ends where others can.
pub(super) const INDEXED_BYTES: u64 = (16 << 30) - 256;

impl DeviceLimits {
    /// The largest number of four-byte elements that fit one buffer and one binding, a multiple of
    /// the span alignment.
    pub fn max_elements(&self) -> usize {
        let bytes = self.max_binding_bytes.min(self.max_buffer_bytes);
        usize::try_from(bytes / 256 * 64).unwrap_or(usize::MAX)
    }
}

/// Memory held on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of live persistent buffers.
    pub persistent_bytes: u64,
    /// Those of them that are pages of mapped files. The model needs them like the others, but the
    /// system counts them as memory that it can take back.
    pub mapped_bytes: u64,
    /// Largest planned transient bytes of any recording run so far.
    pub transient_peak_bytes: u64,
    /// Most bytes of any recording run so far: live persistent buffers and planned transients.
    pub run_peak_bytes: u64,
}

impl MemoryUse {
    /// Most bytes held at once.
    pub fn peak_bytes(&self) -> u64 {
        self.run_peak_bytes.max(self.persistent_bytes)
    }
}

/// The clock that measured a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The device's clock, read before and after the command.
    Device,
    /// The host's clock. On a GPU it includes the round trip, so it says little about a short
    /// command.
    Host,
}

/// The time one command took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Seconds.
    pub seconds: f64,
    /// The clock that measured it.
    pub clock: Clock,
}

/// Runs recordings. Uploads and read-backs are method calls between runs, not commands.
pub trait Executor {
    /// Display name, for example `llvmpipe (LLVM 15.0.6, 256 bits), Vulkan`.
    fn name(&self) -> String;

    /// Whether kernels run as their Rust references, which take slices of exactly the recorded
    /// length.
    fn runs_references(&self) -> bool {
        false
    }

    /// The optional features whose kernel variants are in use.
    fn features(&self) -> Features {
        Features::NONE
    }

    /// How products with quantised weights take their activations.
    fn activations(&self) -> Activations {
        Activations::F32
    }

    /// Sets how products with quantised weights take their activations from the next run on. Fails
    /// if the device has no such products: only the f32 executor of the CPU rounds.
    fn set_activations(&mut self, activations: Activations) -> Result<()> {
        match activations {
            Activations::F32 => Ok(()),
            Activations::Q8 => Err(Error::usage(format!(
                "{} multiplies f32 activations only; rounded ones (q8) need the CPU: choose the device cpu, or f32",
                self.name()
            ))),
        }
    }

    /// The device's size limits.
    fn limits(&self) -> DeviceLimits;

    /// The kernel that runs for a dispatch: the recorded one, or an alternative that suits this
    /// device better.
    fn kernel_of(&self, dispatch: &Dispatch) -> &'static KernelDef {
        dispatch.kernel
    }

    /// Rejects a recording that cannot run on this device, before it allocates anything: a buffer
    /// or binding exceeds the limits, or it takes more memory than the host has left or the GPU has
    /// at all. DX12 and GL do not say how much that is, and no backend says how much other programs
    /// use.
    fn check(&self, recording: &Recording) -> Result<()>;

    /// Runs every command in order. On return the work is queued; read-backs see its results.
    fn run(&mut self, recording: &Recording) -> Result<()>;

    /// Runs every command in order, waits, and returns the time of each. The results are those of
    /// [`Executor::run`]; it is slower, since it times each command on its own.
    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>>;

    /// Waits until all queued work has finished, so that a clock read afterwards includes it.
    fn wait(&mut self) -> Result<()>;

    /// Writes reals to the start of a persistent span.
    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()>;

    /// Like [`Executor::write_real`], without rounding if the executor stores f64.
    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()>;

    /// Writes 32-bit words: ids, indices, packed weights; signed integers as their bit patterns.
    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()>;

    /// Writes words that `fill` makes to a persistent span, part by part, so that no copy of the whole
    /// is made. The parts begin at multiples of `unit` words.
    fn fill_words(&mut self, span: &Span, unit: usize, fill: &WordFill<'_>) -> Result<()> {
        let mut words = vec![0; part_words(unit).min(span.len)];
        for first in (0..span.len).step_by(part_words(unit)) {
            let len = words.len().min(span.len - first);
            fill(first, &mut words[..len]);
            self.write_words(&span.buffer.slice(span.offset + first, len), &words[..len])?;
        }
        Ok(())
    }

    /// Writes words or reals from a file to a persistent span, which they fill. Panics if
    /// [`FileBytes::words`] has none.
    ///
    /// The f32 executor of the CPU keeps the pages of the file in place of a copy if the span is a
    /// whole buffer. A later write to the buffer copies them first.
    fn write_mapped(&mut self, span: &Span, bytes: &FileBytes) -> Result<()> {
        copy_mapped(self, span, bytes)
    }

    /// Reads the reals of a persistent span.
    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>>;

    /// Like [`Executor::read_real`], without rounding if the executor stores f64.
    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>>;

    /// Reads the words of a persistent span.
    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>>;

    /// [`Executor::read_f64`] in two steps: more work can be queued before the wait.
    fn start_read_f64(&mut self, span: &Span) -> Result<Reading<f64>> {
        Ok(Reading::ready(self.read_f64(span)?))
    }

    /// [`Executor::read_words`] in two steps.
    fn start_read_words(&mut self, span: &Span) -> Result<Reading<u32>> {
        Ok(Reading::ready(self.read_words(span)?))
    }

    /// Memory in use.
    fn memory(&self) -> MemoryUse;

    /// Resets the transient peak, so that it covers only the runs that follow.
    fn reset_peak(&mut self);
}

/// Makes the words of a part, which it overwrites whole; gets the index of the first word.
pub type WordFill<'a> = dyn Fn(usize, &mut [u32]) + Sync + 'a;

/// Words that [`Executor::fill_words`] makes at once, about a MiB: whole units that begin where spans
/// can.
pub(super) fn part_words(unit: usize) -> usize {
    let least = unit * ELEMENT_ALIGNMENT;
    least * ((1 << 18) / least).max(1)
}

/// [`Executor::write_mapped`] as a copy.
pub(super) fn copy_mapped<E: Executor + ?Sized>(device: &mut E, span: &Span, bytes: &FileBytes) -> Result<()> {
    let words = bytes.words().expect("the bytes are words in memory");
    assert_eq!(words.len(), span.len, "the words fill the span");
    match span.kind() {
        Kind::Real => device.write_real(span, bytemuck::cast_slice(words))?,
        _ => device.write_words(span, words)?,
    }
    bytes.release();
    Ok(())
}

/// An open device: a GPU or the CPU.
pub type Device = Box<dyn Executor>;

/// Uploads words to a new persistent buffer.
pub fn upload_words(device: &mut dyn Executor, label: &str, words: &[u32]) -> Result<Span> {
    let span = Buffer::persistent(label, Kind::U32, words.len()).span();
    device.write_words(&span, words)?;
    Ok(span)
}

/// What takes less memory, for messages.
pub(super) const LESS_MEMORY: &str = "take shorter texts (`max_length`, `max_tokens`), a smaller `batch_size` or `chunk`, \
                                      `recompute` in training, or a smaller model";

/// Checks that a span fits a binding.
pub(super) fn check_span(span: &Span, limits: &DeviceLimits) -> Result<()> {
    let bytes = span.len as u64 * 4;
    if bytes > limits.max_binding_bytes || span.buffer.n_bytes() > limits.max_buffer_bytes {
        let mib = |b: u64| b as f64 / (1 << 20) as f64;
        return Err(Error::of_kind(
            ErrorKind::OutOfMemory,
            format!(
                "{} needs {:.1} MiB in one piece, this device binds at most {:.1} MiB: use shorter sequences, a smaller batch \
                 or a smaller `chunk`",
                span.buffer.label(),
                mib(bytes.max(span.buffer.n_bytes())),
                mib(limits.max_binding_bytes.min(limits.max_buffer_bytes))
            ),
        ));
    }
    Ok(())
}
