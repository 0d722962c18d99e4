//! What runs a recording, and what the floors above may ask of it.

use super::{Buffer, Dispatch, Features, KernelDef, Kind, Reading, Recording, Span};
use crate::error::{Error, ErrorKind, Result};

/// Sizes that a plan has to respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Largest span of one binding, in bytes. Larger tensors are bound in row slices.
    pub max_binding_bytes: u64,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
}

impl DeviceLimits {
    /// The most four-byte elements that one buffer and one binding can hold, a multiple of the span alignment.
    pub fn max_elements(&self) -> usize {
        let bytes = self.max_binding_bytes.min(self.max_buffer_bytes);
        usize::try_from(bytes / 256 * 64).unwrap_or(usize::MAX)
    }
}

/// Memory held on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of persistent buffers alive now.
    pub persistent_bytes: u64,
    /// Largest planned bytes of transients of any recording run so far.
    pub transient_peak_bytes: u64,
}

impl MemoryUse {
    /// What stays plus the planned peak of what comes and goes.
    pub fn peak_bytes(&self) -> u64 {
        self.persistent_bytes + self.transient_peak_bytes
    }
}

/// Whose clock a time was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The device's own, before and after the command.
    Device,
    /// The host's. On a GPU it includes the way there and back, so the time of a short command says little.
    Host,
}

/// What one command took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Seconds.
    pub seconds: f64,
    /// By this clock.
    pub clock: Clock,
}

/// Runs recordings. Uploads and read-backs are calls, not commands: they happen between runs.
pub trait Executor {
    /// Name for people, for example `llvmpipe (LLVM 15.0.6, 256 bits), Vulkan`.
    fn name(&self) -> String;

    /// Whether kernels run as their Rust references, which take slices of exactly the recorded length.
    fn runs_references(&self) -> bool {
        false
    }

    /// The optional variants of kernels that are in use.
    fn features(&self) -> Features {
        Features::NONE
    }

    /// Sizes to respect.
    fn limits(&self) -> DeviceLimits;

    /// The kernel that runs for a dispatch: its own, or an alternative that suits this device better.
    fn kernel_of(&self, dispatch: &Dispatch) -> &'static KernelDef {
        dispatch.kernel
    }

    /// Refuses a recording that this device is known to be unable to run, before any memory is taken: a buffer or binding
    /// over its limits, or on the CPU more than the memory that is left. How much a GPU has left no portable call tells.
    fn check(&self, recording: &Recording) -> Result<()>;

    /// Runs every command in order. On return the work is queued; read-backs see its results.
    fn run(&mut self, recording: &Recording) -> Result<()>;

    /// Runs every command in order, waits, and says what each took, in order. Results are those of [`Executor::run`]; it takes
    /// longer, since commands are kept apart.
    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>>;

    /// Waits until everything queued has finished, so that a clock read next is honest.
    fn wait(&mut self) -> Result<()>;

    /// Writes reals to a persistent span, from its start.
    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()>;

    /// As [`Executor::write_real`] without rounding where the executor holds f64.
    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()>;

    /// Writes words (ids, indices, packed weights; signed ones by their bits).
    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()>;

    /// Reads reals of a persistent span.
    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>>;

    /// As [`Executor::read_real`] without rounding where the executor holds f64.
    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>>;

    /// Reads words.
    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>>;

    /// [`Executor::read_f64`] in two parts: more can be queued before the values are waited for.
    fn start_read_f64(&mut self, span: &Span) -> Result<Reading<f64>> {
        Ok(Reading::ready(self.read_f64(span)?))
    }

    /// [`Executor::read_words`] in two parts.
    fn start_read_words(&mut self, span: &Span) -> Result<Reading<u32>> {
        Ok(Reading::ready(self.read_words(span)?))
    }

    /// Memory in use.
    fn memory(&self) -> MemoryUse;

    /// Forgets the transient peak, to measure the next runs alone.
    fn reset_peak(&mut self);
}

/// An open device of either sort.
pub type Device = Box<dyn Executor>;

/// Uploads words to a new persistent buffer.
pub fn upload_words(device: &mut dyn Executor, label: &str, words: &[u32]) -> Result<Span> {
    let span = Buffer::persistent(label, Kind::U32, words.len()).span();
    device.write_words(&span, words)?;
    Ok(span)
}

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
