//! Runs recordings on the CPU through each kernel's reference.
//!
//! In f32 it serves machines without a GPU driver; in f64 it is the oracle for other devices. Fresh
//! memory is NaN (words: all ones), so that a read of unwritten memory is noticed. Outside of
//! tests, transients keep their vector's previous content (see [`CpuExecutor::unpoisoned`]).

use std::cell::{Ref, RefCell, RefMut};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::host_memory::{check_host_memory, check_room, filled, resize};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::buffer::Info;
use crate::gpu::executor::check_span;
use crate::gpu::kernel_args::{Arg, KernelArgs};
use crate::gpu::{
    Access, Buffer, Clock, Command, DeviceLimits, Dispatch, Executor, KernelDef, Kind, Lifetime, MemoryUse, Plan, Real,
    Recording, Span, Timing,
};

/// Content of one buffer.
enum Storage<T> {
    Real(Vec<T>),
    Words(Vec<u32>),
}

/// Free transient vectors are released when they exceed the last run's need by this factor.
const KEEP_FACTOR: u64 = 2;

/// Executor of kernel references, generic over the type of real numbers.
pub struct CpuExecutor<T: Real> {
    persistent: HashMap<u64, (Weak<Info>, RefCell<Storage<T>>)>,
    free: Vec<Vec<T>>,
    limits: DeviceLimits,
    /// Whether transients start as NaN.
    poison: bool,
    scratch: RefCell<Vec<T>>,
    /// Bytes of free memory that a test simulates.
    pretended_bytes: Option<u64>,
    /// Recordings until a test's simulated device loss.
    pretended_life: Option<usize>,
    transient_peak_bytes: u64,
    run_peak_bytes: u64,
}

/// Selects the reference of a kernel for a number type.
pub trait Reference: Real {
    /// The function pointer for `Self`.
    fn of_kernel(kernel: &'static KernelDef) -> fn(KernelArgs<'_, Self>);
}

impl Reference for f32 {
    fn of_kernel(kernel: &'static KernelDef) -> fn(KernelArgs<'_, f32>) {
        kernel.reference_f32
    }
}

impl Reference for f64 {
    fn of_kernel(kernel: &'static KernelDef) -> fn(KernelArgs<'_, f64>) {
        kernel.reference_f64
    }
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
        let limits = DeviceLimits { max_binding_bytes, max_buffer_bytes: max_binding_bytes };
        Self {
            persistent: HashMap::new(),
            free: Vec::new(),
            limits,
            poison: true,
            scratch: RefCell::new(Vec::new()),
            pretended_bytes: None,
            pretended_life: None,
            transient_peak_bytes: 0,
            run_peak_bytes: 0,
        }
    }

    /// This executor for production use: transients start with their vector's previous content,
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

    /// Fails if less memory is left than needed. `n_bytes` counts four bytes per element.
    fn check_memory(&self, n_bytes: u64) -> Result<()> {
        let need = n_bytes.saturating_mul(size_of::<T>() as u64 / 4);
        match self.pretended_bytes {
            Some(_) => check_room(need, self.pretended_bytes),
            None => check_host_memory(need),
        }
    }

    /// Checks that spans are within the limits, and that transients and new persistent buffers fit
    /// into memory.
    fn check_planned(&self, recording: &Recording, plan: &Plan) -> Result<()> {
        let (mut need, mut met) = (plan.peak_bytes(), HashSet::new());
        for (span, _) in recording.commands().iter().flat_map(Command::uses) {
            check_span(span, &self.limits)?;
            let b = &span.buffer;
            let is_new = b.lifetime() == Lifetime::Persistent && !self.persistent.contains_key(&b.id());
            if is_new && met.insert(b.id()) {
                need += b.n_bytes();
            }
        }
        let held: u64 = self.free.iter().map(|v| v.capacity() as u64 * 4).sum();
        self.check_memory(need.saturating_sub(held))
    }

    fn fresh(&mut self, kind: Kind, len: usize) -> Result<Storage<T>> {
        if kind != Kind::Real {
            return Ok(Storage::Words(filled(u32::MAX, len)?));
        }
        let fits = |v: &&mut Vec<T>| v.capacity() >= len && v.capacity() <= len.saturating_mul(2).max(1024);
        let best = self.free.iter_mut().filter(fits).min_by_key(|v| v.capacity()).map(std::mem::take);
        let mut v = best.unwrap_or_default();
        if self.poison {
            v.clear();
        }
        resize(&mut v, T::NAN, len)?;
        Ok(Storage::Real(v))
    }

    fn ensure_persistent(&mut self, buffer: &Buffer) -> Result<()> {
        if let Entry::Vacant(entry) = self.persistent.entry(buffer.id()) {
            let storage = match buffer.kind() {
                Kind::Real => Storage::Real(filled(T::NAN, buffer.len())?),
                _ => Storage::Words(filled(u32::MAX, buffer.len())?),
            };
            entry.insert((Arc::downgrade(&buffer.0), RefCell::new(storage)));
        }
        Ok(())
    }

    fn drop_dead(&mut self) {
        self.persistent.retain(|_, (info, _)| info.strong_count() > 0);
    }

    fn with_storage<R>(&mut self, span: &Span, f: impl FnOnce(&mut Storage<T>) -> R) -> Result<R> {
        assert_eq!(
            span.buffer.lifetime(),
            Lifetime::Persistent,
            "only persistent buffers are read or written by the host"
        );
        if !self.persistent.contains_key(&span.buffer.id()) {
            self.check_memory(span.buffer.n_bytes()).with_context(|| format!("allocating {}", span.buffer.label()))?;
        }
        self.ensure_persistent(&span.buffer)?;
        Ok(f(&mut self.persistent[&span.buffer.id()].1.borrow_mut()))
    }

    fn release(&mut self, storage: Storage<T>) {
        if let Storage::Real(v) = storage
            && v.capacity() > 0
        {
            self.free.push(v);
        }
    }

    fn trim(&mut self, need_bytes: u64) {
        self.free.retain(|v| v.capacity() > 0);
        let held: u64 = self.free.iter().map(|v| v.capacity() as u64 * 4).sum();
        if held > need_bytes.saturating_mul(KEEP_FACTOR).max(1 << 24) {
            self.free.clear();
        }
    }
}

/// All buffers that one recording may use while it runs.
struct Memory<'a, T> {
    persistent: &'a HashMap<u64, (Weak<Info>, RefCell<Storage<T>>)>,
    transient: &'a HashMap<u64, RefCell<Storage<T>>>,
    scratch: &'a RefCell<Vec<T>>,
}

impl<'a, T: Reference> Memory<'a, T> {
    fn cell(&self, span: &Span) -> &'a RefCell<Storage<T>> {
        let id = span.buffer.id();
        match span.buffer.lifetime() {
            Lifetime::Persistent => &self.persistent[&id].1,
            Lifetime::Transient => &self.transient[&id],
        }
    }

    fn dispatch(&self, d: &Dispatch) {
        enum Guard<'g, T> {
            Read(Ref<'g, Storage<T>>),
            Write(RefMut<'g, Storage<T>>),
        }
        let mut guards: Vec<Guard<'_, T>> = Vec::with_capacity(d.spans.len());
        for (span, binding) in d.spans.iter().zip(d.kernel.bindings) {
            let cell = self.cell(span);
            guards.push(match binding.access {
                Access::Read => Guard::Read(cell.borrow()),
                Access::Write | Access::ReadWrite => Guard::Write(cell.borrow_mut()),
            });
        }
        let args = guards.iter_mut().zip(&d.spans).map(|(guard, span)| match guard {
            Guard::Read(r) => match &**r {
                Storage::Real(v) => Arg::Real(&v[span.range()]),
                Storage::Words(v) => Arg::U32(&v[span.range()]),
            },
            Guard::Write(w) => match &mut **w {
                Storage::Real(v) => Arg::RealMut(&mut v[span.range()]),
                Storage::Words(v) => Arg::U32Mut(&mut v[span.range()]),
            },
        });
        let args = args.collect();
        let (groups, constants, params) = (d.groups, &d.constants[..], &d.params[..]);
        let scratch = self.scratch;
        T::of_kernel(d.kernel)(KernelArgs { groups, constants, scratch, params, fields: d.kernel.params, args });
    }

    fn copy(&self, from: &Span, to: &Span) {
        match (&*self.cell(from).borrow(), &mut *self.cell(to).borrow_mut()) {
            (Storage::Real(a), Storage::Real(b)) => b[to.range()].copy_from_slice(&a[from.range()]),
            (Storage::Words(a), Storage::Words(b)) => b[to.range()].copy_from_slice(&a[from.range()]),
            _ => unreachable!("the recorder checks that a copy keeps the kind"),
        }
    }

    fn clear(&self, span: &Span) {
        match &mut *self.cell(span).borrow_mut() {
            Storage::Real(v) => v[span.range()].fill(T::ZERO),
            Storage::Words(v) => v[span.range()].fill(0),
        }
    }
}

impl<T: Reference> Executor for CpuExecutor<T> {
    fn name(&self) -> String {
        let width = size_of::<T>() * 8;
        format!("cpu (f{width}, {} threads)", rayon::current_num_threads())
    }

    fn runs_references(&self) -> bool {
        true
    }

    fn limits(&self) -> DeviceLimits {
        self.limits
    }

    fn check(&self, recording: &Recording) -> Result<()> {
        self.check_planned(recording, &Plan::new(recording))
    }

    fn run(&mut self, recording: &Recording) -> Result<()> {
        self.run_timed(recording).map(drop)
    }

    fn run_timed(&mut self, recording: &Recording) -> Result<Vec<Timing>> {
        self.check_life()?;
        self.drop_dead();
        let plan = Plan::new(recording);
        self.check_planned(recording, &plan)?;
        let mut last_use: HashMap<u64, usize> = HashMap::new();
        for (i, command) in recording.commands().iter().enumerate() {
            for (span, _) in command.uses() {
                last_use.insert(span.buffer.id(), i);
            }
        }
        let mut transient: HashMap<u64, RefCell<Storage<T>>> = HashMap::new();
        let mut timings = Vec::with_capacity(recording.commands().len());
        for (i, command) in recording.commands().iter().enumerate() {
            for (span, _) in command.uses() {
                let b = &span.buffer;
                if b.lifetime() == Lifetime::Persistent {
                    self.ensure_persistent(b)?;
                } else if let Entry::Vacant(entry) = transient.entry(b.id()) {
                    entry.insert(RefCell::new(self.fresh(b.kind(), b.len())?));
                }
            }
            let memory = Memory { persistent: &self.persistent, transient: &transient, scratch: &self.scratch };
            let start = Instant::now();
            match command {
                Command::Dispatch(d) => memory.dispatch(d),
                Command::Copy { from, to } => memory.copy(from, to),
                Command::Clear(span) => memory.clear(span),
            }
            timings.push(Timing { seconds: start.elapsed().as_secs_f64(), clock: Clock::Host });
            for (span, _) in command.uses() {
                let id = span.buffer.id();
                if last_use[&id] == i
                    && let Some(storage) = transient.remove(&id)
                {
                    self.release(storage.into_inner());
                }
            }
        }
        self.trim(plan.peak_bytes());
        self.transient_peak_bytes = self.transient_peak_bytes.max(plan.peak_bytes());
        self.run_peak_bytes = self.run_peak_bytes.max(self.persistent_bytes() + plan.peak_bytes());
        Ok(timings)
    }

    fn wait(&mut self) -> Result<()> {
        Ok(())
    }

    fn write_real(&mut self, span: &Span, data: &[f32]) -> Result<()> {
        let at = span.offset;
        assert!(data.len() <= span.len, "write of {} to {}", data.len(), span.len);
        self.with_storage(span, |s| match s {
            Storage::Real(v) => v[at..at + data.len()].iter_mut().zip(data).for_each(|(d, &x)| *d = T::of(x)),
            Storage::Words(_) => panic!("reals are written to a buffer of words"),
        })
    }

    fn write_f64(&mut self, span: &Span, data: &[f64]) -> Result<()> {
        let at = span.offset;
        assert!(data.len() <= span.len, "write of {} to {}", data.len(), span.len);
        self.with_storage(span, |s| match s {
            Storage::Real(v) => v[at..at + data.len()].iter_mut().zip(data).for_each(|(d, &x)| *d = T::from_f64(x)),
            Storage::Words(_) => panic!("reals are written to a buffer of words"),
        })
    }

    fn write_words(&mut self, span: &Span, data: &[u32]) -> Result<()> {
        let at = span.offset;
        assert!(data.len() <= span.len, "write of {} to {}", data.len(), span.len);
        self.with_storage(span, |s| match s {
            Storage::Words(v) => v[at..at + data.len()].copy_from_slice(data),
            Storage::Real(_) => panic!("words are written to a buffer of reals"),
        })
    }

    fn read_real(&mut self, span: &Span) -> Result<Vec<f32>> {
        self.with_storage(span, |s| match s {
            Storage::Real(v) => v[span.range()].iter().map(|x| x.to_f32()).collect(),
            Storage::Words(_) => panic!("reals are read from a buffer of words"),
        })
    }

    fn read_f64(&mut self, span: &Span) -> Result<Vec<f64>> {
        self.with_storage(span, |s| match s {
            Storage::Real(v) => v[span.range()].iter().map(|x| x.to_f64()).collect(),
            Storage::Words(_) => panic!("reals are read from a buffer of words"),
        })
    }

    fn read_words(&mut self, span: &Span) -> Result<Vec<u32>> {
        self.with_storage(span, |s| match s {
            Storage::Words(v) => v[span.range()].to_vec(),
            Storage::Real(_) => panic!("words are read from a buffer of reals"),
        })
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse {
            persistent_bytes: self.persistent_bytes(),
            transient_peak_bytes: self.transient_peak_bytes,
            run_peak_bytes: self.run_peak_bytes,
        }
    }

    fn reset_peak(&mut self) {
        self.transient_peak_bytes = 0;
        self.run_peak_bytes = 0;
    }
}
