//! Runs recordings on the CPU through each kernel's reference.
//!
//! In f32 it serves machines without a GPU driver; in f64 it is the oracle for other devices. Fresh
//! memory is NaN (words: all ones), so that a read of unwritten memory is noticed. Outside of
//! tests, transients start with what their slot held before (see [`CpuExecutor::unpoisoned`]).
//!
//! Transients of real numbers lie in one vector, the arena, in the slots of the recording's [`Plan`],
//! so that they take what the plan says. Those of words, which are small, live on their own beside
//! it.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::host_memory::{check_host_memory, check_room, filled};
use super::run_memory::{Memory, Persistent, Reference, n_elements};
use super::storage::Storage;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::formats::file_bytes::FileBytes;
use crate::gpu::buffer::ById;
use crate::gpu::executor::{WordFill, check_span, copy_mapped, part_words};
use crate::gpu::kernel_args::{Host, Scratch};
use crate::gpu::{
    Activations, Buffer, Clock, Command, DeviceLimits, Executor, Kind, Lifetime, MemoryUse, Plan, Real, Recording,
    Span, Timing,
};

/// The arena is released when it exceeds the last run's need by this factor.
const KEEP_FACTOR: usize = 2;
/// Elements of an arena that is never released.
const KEEP_ELEMENTS: usize = 1 << 22;

/// Executor of kernel references, generic over the type of real numbers.
pub struct CpuExecutor<T: Real> {
    persistent: Persistent<T>,
    arena: Vec<T>,
    limits: DeviceLimits,
    /// Whether transients start as NaN.
    poison: bool,
    scratch: Scratch<T>,
    activations: Activations,
    /// Bytes of free memory that a test simulates.
    pretended_bytes: Option<u64>,
    /// Recordings until a test's simulated device loss.
    pretended_life: Option<usize>,
    transient_peak_bytes: u64,
    run_peak_bytes: u64,
}

impl<T: Reference> Default for CpuExecutor<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Reference> CpuExecutor<T> {
    /// An executor without size limits.
    pub fn new() -> Self {
        Self::limited(u64::MAX)
    }

    /// An executor that refuses bindings larger than `max_binding_bytes`, as a GPU would. For
    /// tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn with_binding_limit(max_binding_bytes: u64) -> Self {
        Self::limited(max_binding_bytes)
    }

    fn limited(max_binding_bytes: u64) -> Self {
        let limits = DeviceLimits { max_binding_bytes, max_buffer_bytes: max_binding_bytes, fewest_groups: usize::MAX };
        Self {
            persistent: ById::default(),
            arena: Vec::new(),
            limits,
            poison: true,
            scratch: Scratch::new(),
            activations: Activations::F32,
            pretended_bytes: None,
            pretended_life: None,
            transient_peak_bytes: 0,
            run_peak_bytes: 0,
        }
    }

    /// This executor for production use: transients start with their slot's previous content,
    /// which avoids writing them twice. Builds with debug assertions still poison them.
    pub fn unpoisoned(self) -> Self {
        Self { poison: cfg!(debug_assertions), ..self }
    }

    /// The same executor, taking it that the machine has so many bytes left whatever is allocated,
    /// to test refusals.
    #[cfg(any(test, feature = "testing"))]
    pub fn pretending_memory(self, bytes: u64) -> Self {
        Self { pretended_bytes: Some(bytes), ..self }
    }

    /// The same executor, which is lost for good after so many recordings, to test what a lost
    /// device leaves.
    #[cfg(any(test, feature = "testing"))]
    pub fn pretending_loss_after(self, recordings: usize) -> Self {
        Self { pretended_life: Some(recordings), ..self }
    }

    /// Counts down the recordings before a simulated loss.
    fn check_life(&mut self) -> Result<()> {
        match &mut self.pretended_life {
            Some(0) => Err(Error::of_kind(ErrorKind::DeviceLost, "the device was lost (simulated by a test)")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Bytes of live persistent buffers.
    fn persistent_bytes(&self) -> u64 {
        let alive = self.persistent.values().filter_map(|(info, _)| info.upgrade());
        alive.map(|info| Buffer(info).n_bytes()).sum()
    }

    /// Bytes of the live persistent buffers that are pages of files.
    fn mapped_bytes(&self) -> u64 {
        let mapped = self.persistent.values().filter(|(_, storage)| storage.borrow().is_mapped());
        mapped.filter_map(|(info, _)| info.upgrade()).map(|info| Buffer(info).n_bytes()).sum()
    }

    /// Fails if less memory is left than needed beside the `kept` bytes of pages of files. `n_bytes`
    /// counts four bytes per element.
    ///
    /// The system counts such pages as free, because it can drop them and read them again. A buffer
    /// that is loaded may take their place, so that no load is refused for memory that nobody
    /// allocates. A run may not: it uses the weights of all layers, and would read them from the disk
    /// again and again.
    fn check_memory(&self, n_bytes: u64, kept: u64) -> Result<()> {
        let need = n_bytes.saturating_mul(size_of::<T>() as u64 / 4);
        match self.pretended_bytes {
            Some(_) => check_room(need, self.pretended_bytes),
            None => check_host_memory(need, kept),
        }
    }

    /// Checks that spans are within the limits, and that transients and new persistent buffers fit
    /// into memory, beside `freed` bytes that come free before.
    fn check_planned(&self, recording: &Recording, plan: &Plan, freed: u64) -> Result<()> {
        let mut uses = recording.commands().iter().flat_map(Command::uses);
        uses.try_for_each(|(span, _)| check_span(span, &self.limits))?;
        let need = plan.peak_bytes() + recording.new_bytes(|b| self.persistent.contains_key(&b.id()));
        let free = self.arena.len() as u64 * 4 + freed;

        self.check_memory(need.saturating_sub(free), self.mapped_bytes())
    }

    /// Bytes of buffers that nothing holds any more, at four bytes per element: the next run frees them.
    fn dead_bytes(&self) -> u64 {
        let dead = self.persistent.values().filter(|(info, _)| info.strong_count() == 0);
        dead.map(|(_, storage)| storage.borrow().n_owned() as u64 * 4).sum()
    }

    /// The arena for a run, of at least `len` elements. A smaller one goes before a larger one comes.
    fn take_arena(&mut self, len: usize) -> Result<Vec<T>> {
        let held = mem::take(&mut self.arena);
        if held.len() >= len {
            return Ok(held);
        }
        drop(held);
        filled(T::NAN, len)
    }

    /// Keeps the arena for the next run unless it is far larger than the `len` elements of the last.
    fn keep_arena(&mut self, arena: Vec<T>, len: usize) {
        if arena.len() <= len.saturating_mul(KEEP_FACTOR).max(KEEP_ELEMENTS) {
            self.arena = arena;
        }
    }

    fn ensure_persistent(&mut self, buffer: &Buffer) -> Result<()> {
        if let Entry::Vacant(entry) = self.persistent.entry(buffer.id()) {
            entry.insert((Arc::downgrade(&buffer.0), RefCell::new(Storage::fresh(buffer)?)));
        }
        Ok(())
    }

    fn drop_dead(&mut self) {
        self.persistent.retain(|_, (info, _)| info.strong_count() > 0);
    }

    /// Runs a recording. The times are those of its commands, if they are asked for: then no two run
    /// side by side.
    fn run_here(&mut self, recording: &Recording, timed: bool) -> Result<Vec<Timing>> {
        self.check_life()?;
        self.drop_dead();
        let plan = Plan::new(recording);
        self.check_planned(recording, &plan, 0)?;
        let commands = recording.commands();
        let mut last_use: ById<usize> = ById::default(); // of transients of words
        for (i, command) in commands.iter().enumerate() {
            for (span, _) in command.uses() {
                match (span.buffer.lifetime(), span.buffer.kind()) {
                    (Lifetime::Persistent, _) => self.ensure_persistent(&span.buffer)?,
                    (Lifetime::Transient, Kind::Real) => {}
                    (Lifetime::Transient, _) => drop(last_use.insert(span.buffer.id(), i)),
                }
            }
        }
        let arena_len = n_elements(plan.peak_bytes());
        let mut arena = self.take_arena(arena_len)?;
        let host = Host { scratch: &self.scratch, activations: self.activations };
        let mut memory = Memory::new(&self.persistent, &plan, &mut arena, host, self.poison);
        let mut timings = Vec::with_capacity(commands.len());
        let mut i = 0;
        while i < commands.len() {
            let most = if timed { 1 } else { recording.n_side_by_side(i) };
            for (span, _) in commands[i..i + most].iter().flat_map(Command::uses) {
                memory.begin(&span.buffer)?;
            }
            let start = Instant::now();
            let n = memory.run(&commands[i..i + most]);
            timings.push(Timing { seconds: start.elapsed().as_secs_f64(), clock: Clock::Host });
            for (span, _) in commands[i..i + n].iter().flat_map(Command::uses) {
                if last_use.get(&span.buffer.id()).is_some_and(|&last| last < i + n) {
                    memory.end(&span.buffer);
                }
            }
            i += n;
        }
        self.keep_arena(arena, arena_len);
        self.transient_peak_bytes = self.transient_peak_bytes.max(plan.peak_bytes());
        self.run_peak_bytes = self.run_peak_bytes.max(self.persistent_bytes() + plan.peak_bytes());
        Ok(timings)
    }

    fn with_storage<R>(&mut self, span: &Span, f: impl FnOnce(&mut Storage<T>) -> R) -> Result<R> {
        self.with_storage_from(span, Storage::fresh, f)
    }

    /// Passes the content of a span's buffer, which `make` makes if the buffer is new.
    fn with_storage_from<R>(
        &mut self,
        span: &Span,
        make: impl FnOnce(&Buffer) -> Result<Storage<T>>,
        f: impl FnOnce(&mut Storage<T>) -> R,
    ) -> Result<R> {
        let buffer = &span.buffer;
        assert_eq!(buffer.lifetime(), Lifetime::Persistent, "only persistent buffers are read or written by the host");
        if !self.persistent.contains_key(&buffer.id()) {
            self.drop_dead();
            self.check_memory(buffer.n_bytes(), 0).with_context(|| format!("allocating {}", buffer.label()))?;
            self.persistent.insert(buffer.id(), (Arc::downgrade(&buffer.0), RefCell::new(make(buffer)?)));
        }
        Ok(f(&mut self.persistent[&buffer.id()].1.borrow_mut()))
    }
}

/// Whether a span is all of its buffer.
fn is_whole(span: &Span) -> bool {
    span.range() == (0..span.buffer.len())
}

impl<T: Reference> Executor for CpuExecutor<T> {
    fn name(&self) -> String {
        let width = size_of::<T>() * 8;
        let rounded = if self.activations == Activations::Q8 { "activations q8, " } else { "" };
        format!("cpu (f{width}, {rounded}{} threads)", rayon::current_num_threads())
    }

    fn activations(&self) -> Activations {
        self.activations
    }

    fn set_activations(&mut self, activations: Activations) -> Result<()> {
        if size_of::<T>() != size_of::<f32>() && activations != Activations::F32 {
            return Err(Error::usage(format!("{} is the oracle: it rounds no activations", self.name())));
        }
        self.activations = activations;
        Ok(())
    }

    fn runs_references(&self) -> bool {
        true
    }

    fn limits(&self) -> DeviceLimits {
        self.limits
    }

    fn check(&self, recording: &Recording) -> Result<()> {
        self.check_planned(recording, &Plan::new(recording), self.dead_bytes())
    }

    /// Commands run from one thread of the pool. From there a loop that is split among threads
    /// starts at once; from another thread it would first wake a thread of the pool and wait for it.
    fn run(&mut self, recording: &Recording) -> Result<()> {
        rayon::scope(|_| self.run_here(recording, false)).map(drop)
    }

    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>> {
        rayon::scope(|_| self.run_here(recording, true))
    }

    fn wait(&mut self) -> Result<()> {
        Ok(())
    }

    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()> {
        let at = span.offset;
        assert!(data.len() <= span.len, "write of {} to {}", data.len(), span.len);
        self.with_storage(span, |s| {
            s.real_mut()[at..at + data.len()].iter_mut().zip(data).for_each(|(d, &x)| *d = T::of(x));
        })
    }

    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()> {
        let at = span.offset;
        assert!(data.len() <= span.len, "write of {} to {}", data.len(), span.len);
        self.with_storage(span, |s| {
            s.real_mut()[at..at + data.len()].iter_mut().zip(data).for_each(|(d, &x)| *d = T::from_f64(x));
        })
    }

    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()> {
        let at = span.offset;
        assert!(data.len() <= span.len, "write of {} to {}", data.len(), span.len);
        self.with_storage(span, |s| s.words_mut()[at..at + data.len()].copy_from_slice(data))
    }

    fn fill_words(&mut self, span: &Span, unit: usize, fill: &WordFill<'_>) -> Result<()> {
        let make = if is_whole(span) { Storage::zeros } else { Storage::fresh };
        let part = part_words(unit);
        self.with_storage_from(span, make, |s| {
            let parts = s.words_mut()[span.range()].par_chunks_mut(part).enumerate();
            parts.for_each(|(i, words)| fill(i * part, words));
        })
    }

    fn write_mapped(&mut self, span: &Span, bytes: &FileBytes) -> Result<()> {
        match Storage::mapped(bytes).filter(|_| is_whole(span)) {
            Some(storage) => {
                let fills = bytes.len() as u64 == span.buffer.n_bytes();
                assert!(fills && span.buffer.lifetime() == Lifetime::Persistent, "the bytes fill a persistent buffer");
                bytes.prefetch();
                self.persistent.insert(span.buffer.id(), (Arc::downgrade(&span.buffer.0), RefCell::new(storage)));
                Ok(())
            }
            None => copy_mapped(self, span, bytes),
        }
    }

    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>> {
        self.with_storage(span, |s| s.real()[span.range()].iter().map(|x| x.to_f32()).collect())
    }

    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>> {
        self.with_storage(span, |s| s.real()[span.range()].iter().map(|x| x.to_f64()).collect())
    }

    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>> {
        self.with_storage(span, |s| s.words()[span.range()].to_vec())
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse {
            persistent_bytes: self.persistent_bytes(),
            mapped_bytes: self.mapped_bytes(),
            transient_peak_bytes: self.transient_peak_bytes,
            run_peak_bytes: self.run_peak_bytes,
        }
    }

    fn reset_peak(&mut self) {
        self.transient_peak_bytes = 0;
        self.run_peak_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Buffer;

    /// A recording that clears a new buffer of this many KiB.
    fn clearing(kib: usize) -> (Recording, Buffer) {
        let buffer = Buffer::persistent("cache", Kind::Real, kib * 256);
        let mut rec = Recording::new();
        rec.clear(&buffer.span());
        (rec, buffer)
    }

    #[test]
    fn memory_that_nothing_holds_any_more_counts_as_free() {
        let device = &mut CpuExecutor::<f32>::new().pretending_memory(700 << 10);
        let (rec, buffer) = clearing(600);
        device.run(&rec).unwrap();
        let (larger, _kept) = clearing(1200);
        assert_eq!(device.check(&larger).unwrap_err().kind(), ErrorKind::OutOfMemory);
        drop((rec, buffer));
        device.check(&larger).unwrap();
    }
}
