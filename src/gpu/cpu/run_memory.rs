//! The buffers that one recording uses while the CPU executor runs it.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Weak;

use super::host_memory::filled;
use super::storage::{KeepsWords, Storage};
use crate::error::Result;
use crate::gpu::buffer::Info;
use crate::gpu::kernel_args::{Arg, Host, KernelArgs};
use crate::gpu::{Access, Buffer, Command, Dispatch, KernelDef, Kind, Lifetime, Plan, Span};

/// The persistent buffers of an executor by id. A buffer is dead when its handle is.
pub(super) type Persistent<T> = HashMap<u64, (Weak<Info>, RefCell<Storage<T>>)>;

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
    words: HashMap<u64, RefCell<Storage<T>>>,
    /// Transients of reals that a command has used, if they are poisoned.
    met: HashSet<u64>,
    host: Host<'a, T>,
}

/// Borrowed content of one span.
enum Guard<'g, T> {
    Real(Ref<'g, [T]>),
    RealMut(RefMut<'g, [T]>),
    Words(Ref<'g, [u32]>),
    WordsMut(RefMut<'g, [u32]>),
}

impl<'a, T: Reference> Memory<'a, T> {
    pub fn new(persistent: &'a Persistent<T>, plan: &'a Plan, mut arena: &'a mut [T], host: Host<'a, T>) -> Self {
        let mut slots = Vec::with_capacity(plan.slots().len());
        for &n_bytes in plan.slots() {
            let (slot, rest) = arena.split_at_mut(n_elements(n_bytes));
            slots.push(RefCell::new(slot));
            arena = rest;
        }
        Self { persistent, plan, slots, words: HashMap::new(), met: HashSet::new(), host }
    }

    /// Makes a transient at its first use; with `poison` its content is NaN.
    pub fn begin(&mut self, buffer: &Buffer, poison: bool) -> Result<()> {
        if buffer.lifetime() == Lifetime::Persistent {
            return Ok(());
        }
        if buffer.kind() != Kind::Real {
            if let Entry::Vacant(entry) = self.words.entry(buffer.id()) {
                entry.insert(RefCell::new(Storage::Words(filled(u32::MAX, buffer.len())?)));
            }
        } else if poison && self.met.insert(buffer.id()) {
            self.slots[self.plan.slot(buffer.id())].get_mut()[..buffer.len()].fill(T::NAN);
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

    fn read(&self, span: &Span) -> Guard<'_, T> {
        if let Some(slot) = self.slot(&span.buffer) {
            return Guard::Real(Ref::map(slot.borrow(), |s| &s[span.range()]));
        }
        let storage = self.stored(&span.buffer).borrow();
        match span.buffer.kind() {
            Kind::Real => Guard::Real(Ref::map(storage, |s| &s.real()[span.range()])),
            _ => Guard::Words(Ref::map(storage, |s| &s.words()[span.range()])),
        }
    }

    fn write(&self, span: &Span) -> Guard<'_, T> {
        if let Some(slot) = self.slot(&span.buffer) {
            return Guard::RealMut(RefMut::map(slot.borrow_mut(), |s| &mut s[span.range()]));
        }
        let storage = self.stored(&span.buffer).borrow_mut();
        match span.buffer.kind() {
            Kind::Real => Guard::RealMut(RefMut::map(storage, |s| &mut s.real_mut()[span.range()])),
            _ => Guard::WordsMut(RefMut::map(storage, |s| &mut s.words_mut()[span.range()])),
        }
    }

    fn dispatch(&self, d: &Dispatch) {
        let bound = d.spans.iter().zip(d.kernel.bindings).map(|(span, binding)| match binding.access {
            Access::Read => self.read(span),
            Access::Write | Access::ReadWrite => self.write(span),
        });
        let mut guards: Vec<Guard<'_, T>> = bound.collect();
        let args = guards.iter_mut().map(|guard| match guard {
            Guard::Real(v) => Arg::Real(v),
            Guard::RealMut(v) => Arg::RealMut(v),
            Guard::Words(v) => Arg::U32(v),
            Guard::WordsMut(v) => Arg::U32Mut(v),
        });
        let args = args.collect();
        let (groups, constants, params) = (d.groups, &d.constants[..], &d.params[..]);
        let host = self.host;
        T::of_kernel(d.kernel)(KernelArgs { groups, constants, host, params, fields: d.kernel.params, args });
    }

    fn copy(&self, from: &Span, to: &Span) {
        match (self.read(from), self.write(to)) {
            (Guard::Real(a), Guard::RealMut(mut b)) => b.copy_from_slice(&a),
            (Guard::Words(a), Guard::WordsMut(mut b)) => b.copy_from_slice(&a),
            _ => unreachable!("the recorder checks that a copy keeps the kind"),
        }
    }

    fn clear(&self, span: &Span) {
        match self.write(span) {
            Guard::RealMut(mut v) => v.fill(T::ZERO),
            Guard::WordsMut(mut v) => v.fill(0),
            Guard::Real(_) | Guard::Words(_) => unreachable!("a write borrows mutably"),
        }
    }

    pub fn run(&self, command: &Command) {
        match command {
            Command::Dispatch(d) => self.dispatch(d),
            Command::Copy { from, to } => self.copy(from, to),
            Command::Clear(span) => self.clear(span),
        }
    }
}

/// Elements of a slot. The plan counts four bytes for each, whatever `T` is.
pub(super) fn n_elements(n_bytes: u64) -> usize {
    (n_bytes / 4) as usize
}
