//! The buffers that one recording uses while the CPU executor runs it.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::HashSet;
use std::collections::hash_map::Entry;
use std::sync::Weak;

use rayon::prelude::*;

use super::host_memory::filled;
use super::storage::{KeepsWords, Storage};
use crate::error::Result;
use crate::gpu::buffer::{ById, Info};
use crate::gpu::kernel_args::{Arg, Host, KernelArgs};
use crate::gpu::{Access, Buffer, Command, Dispatch, KernelDef, Kind, Lifetime, Plan, Real, Span};

/// The persistent buffers of an executor by id. A buffer is dead when its handle is.
pub(super) type Persistent<T> = ById<(Weak<Info>, RefCell<Storage<T>>)>;

/// Selects the reference of a kernel for a number type.
pub trait Reference: KeepsWords {
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

/// All buffers that one recording may use while it runs.
pub(super) struct Memory<'a, T> {
    persistent: &'a Persistent<T>,
    plan: &'a Plan,
    /// The parts of the arena that are the plan's slots.
    slots: Vec<RefCell<&'a mut [T]>>,
    /// The transients of words that are alive.
    words: ById<RefCell<Storage<T>>>,
    /// Transients of reals that a command has used, if they are poisoned: NaN at first.
    met: Option<RefCell<HashSet<u64>>>,
    host: Host<'a, T>,
}

/// Borrowed content of one span.
enum Guard<'g, T> {
    Real(Ref<'g, [T]>),
    RealMut(RefMut<'g, [T]>),
    Words(Ref<'g, [u32]>),
    WordsMut(RefMut<'g, [u32]>),
}

impl<T: Real> Guard<'_, T> {
    fn arg(&mut self) -> Arg<'_, T> {
        match self {
            Guard::Real(v) => Arg::Real(v),
            Guard::RealMut(v) => Arg::RealMut(v),
            Guard::Words(v) => Arg::U32(v),
            Guard::WordsMut(v) => Arg::U32Mut(v),
        }
    }
}

impl<'a, T: Reference> Memory<'a, T> {
    pub fn new(
        persistent: &'a Persistent<T>,
        plan: &'a Plan,
        mut arena: &'a mut [T],
        host: Host<'a, T>,
        poison: bool,
    ) -> Self {
        let mut slots = Vec::with_capacity(plan.slots().len());
        for &n_bytes in plan.slots() {
            let (slot, rest) = arena.split_at_mut(n_elements(n_bytes));
            slots.push(RefCell::new(slot));
            arena = rest;
        }
        let met = poison.then(RefCell::default);
        Self { persistent, plan, slots, words: ById::default(), met, host }
    }

    /// Makes a transient of words at its first use.
    pub fn begin(&mut self, buffer: &Buffer) -> Result<()> {
        if buffer.lifetime() == Lifetime::Persistent || buffer.kind() == Kind::Real {
            return Ok(());
        }
        if let Entry::Vacant(entry) = self.words.entry(buffer.id()) {
            entry.insert(RefCell::new(Storage::Words(filled(u32::MAX, buffer.len())?)));
        }
        Ok(())
    }

    /// Releases a transient after its last use.
    pub fn end(&mut self, buffer: &Buffer) {
        self.words.remove(&buffer.id());
    }

    /// The content of a buffer that has a storage of its own: all but transients of reals.
    fn stored(&self, buffer: &Buffer) -> &RefCell<Storage<T>> {
        match buffer.lifetime() {
            Lifetime::Persistent => &self.persistent[&buffer.id()].1,
            Lifetime::Transient => &self.words[&buffer.id()],
        }
    }

    fn slot(&self, buffer: &Buffer) -> Option<&RefCell<&'a mut [T]>> {
        let is_in_arena = buffer.lifetime() == Lifetime::Transient && buffer.kind() == Kind::Real;
        is_in_arena.then(|| &self.slots[self.plan.slot(buffer.id())])
    }

    /// Poisons a transient at its first use. `None` if its slot is in use.
    fn poison(&self, buffer: &Buffer, slot: &RefCell<&'a mut [T]>) -> Option<()> {
        let Some(met) = &self.met else { return Some(()) };
        if !met.borrow().contains(&buffer.id()) {
            slot.try_borrow_mut().ok()?[..buffer.len()].fill(T::NAN);
            met.borrow_mut().insert(buffer.id());
        }
        Some(())
    }

    /// The content of a span, to read. `None` if it is being written.
    fn read(&self, span: &Span) -> Option<Guard<'_, T>> {
        if let Some(slot) = self.slot(&span.buffer) {
            self.poison(&span.buffer, slot)?;
            return Some(Guard::Real(Ref::map(slot.try_borrow().ok()?, |s| &s[span.range()])));
        }
        let storage = self.stored(&span.buffer).try_borrow().ok()?;
        Some(match span.buffer.kind() {
            Kind::Real => Guard::Real(Ref::map(storage, |s| &s.real()[span.range()])),
            _ => Guard::Words(Ref::map(storage, |s| &s.words()[span.range()])),
        })
    }

    /// The content of a span, to write. `None` if its buffer is in use.
    fn write(&self, span: &Span) -> Option<Guard<'_, T>> {
        if let Some(slot) = self.slot(&span.buffer) {
            self.poison(&span.buffer, slot)?;
            return Some(Guard::RealMut(RefMut::map(slot.try_borrow_mut().ok()?, |s| &mut s[span.range()])));
        }
        let storage = self.stored(&span.buffer).try_borrow_mut().ok()?;
        Some(match span.buffer.kind() {
            Kind::Real => Guard::RealMut(RefMut::map(storage, |s| &mut s.real_mut()[span.range()])),
            _ => Guard::WordsMut(RefMut::map(storage, |s| &mut s.words_mut()[span.range()])),
        })
    }

    /// What a dispatch binds. `None` if another one uses some of it, unless both read.
    fn bind(&self, d: &Dispatch) -> Option<Vec<Guard<'_, T>>> {
        let bound = d.spans.iter().zip(d.kernel.bindings).map(|(span, binding)| match binding.access {
            Access::Read => self.read(span),
            Access::Write | Access::ReadWrite => self.write(span),
        });
        bound.collect()
    }

    /// Calls the reference of the first dispatch, and at the same time those of the next ones up to
    /// the first that needs memory of another. Returns their number.
    fn dispatch(&self, d: &Dispatch, next: &[Command]) -> usize {
        let next = next.iter().map_while(|command| match command {
            Command::Dispatch(d) => Some((d, self.bind(d)?)),
            _ => None,
        });
        let first = self.bind(d).expect("the recorder refuses a buffer that is written and bound twice");
        let mut bound: Vec<_> = std::iter::once((d, first)).chain(next).collect();
        let host = self.host;
        let run = |(d, args): (&Dispatch, Vec<Arg<'_, T>>)| {
            let (groups, constants, params) = (d.groups, &d.constants[..], &d.params[..]);
            T::of_kernel(d.kernel)(KernelArgs { groups, constants, host, params, fields: d.kernel.params, args });
        };
        let n = bound.len();
        let calls = bound.iter_mut().map(|(d, guards)| (*d, guards.iter_mut().map(Guard::arg).collect()));
        match n {
            1 => calls.for_each(run),
            _ => calls.collect::<Vec<_>>().into_par_iter().for_each(run),
        }
        n
    }

    fn copy(&self, from: &Span, to: &Span) {
        match (self.read(from), self.write(to)) {
            (Some(Guard::Real(a)), Some(Guard::RealMut(mut b))) => b.copy_from_slice(&a),
            (Some(Guard::Words(a)), Some(Guard::WordsMut(mut b))) => b.copy_from_slice(&a),
            _ => unreachable!("the recorder checks that a copy keeps the kind, and has two buffers"),
        }
    }

    fn clear(&self, span: &Span) {
        match self.write(span) {
            Some(Guard::RealMut(mut v)) => v.fill(T::ZERO),
            Some(Guard::WordsMut(mut v)) => v.fill(0),
            _ => unreachable!("a write borrows mutably, and nothing else is in use"),
        }
    }

    /// Runs the first command. If it is a dispatch, those of the next ones that touch other memory run
    /// at the same time. Returns the number of commands that ran.
    pub fn run(&self, commands: &[Command]) -> usize {
        match &commands[0] {
            Command::Dispatch(d) => return self.dispatch(d, &commands[1..]),
            Command::Copy { from, to } => self.copy(from, to),
            Command::Clear(span) => self.clear(span),
        }
        1
    }
}

/// Elements of a slot. The plan counts four bytes for each, whatever `T` is.
pub(super) fn n_elements(n_bytes: u64) -> usize {
    (n_bytes / 4) as usize
}
