//! `KernelArgs`: the parameters, constants, grid and buffers that a kernel's Rust reference
//! receives.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Activations, Field, Params, Real};

/// The arguments of one dispatch, for a reference.
pub struct KernelArgs<'a, T> {
    /// Workgroups per axis, as recorded.
    pub groups: [u32; 3],
    /// Values of the kernel's constants, in the order of its `constants`.
    pub constants: &'a [u32],
    /// The executor's memory and settings.
    pub host: Host<'a, T>,
    pub(super) params: &'a [u8],
    pub(super) fields: &'static [Field],
    pub(super) args: Vec<Arg<'a, T>>,
}

/// Memory and settings that an executor passes to references.
#[derive(Clone, Copy)]
pub struct Host<'a, T> {
    /// Memory for intermediate values.
    pub scratch: &'a Scratch<T>,
    /// How products with quantised weights take their activations.
    pub activations: Activations,
}

/// Memory that references borrow for intermediate values, and that stays allocated between calls.
pub struct Scratch<T>(Mutex<Vec<Vec<T>>>);

impl<T: Real> Scratch<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Calls `f` with `len` elements, whose content is what an earlier call left. Calls may nest.
    pub fn with<R>(&self, len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
        let mut held = self.lock().pop().unwrap_or_default();
        if held.len() < len {
            held.resize(len, T::ZERO);
        }
        let result = f(&mut held[..len]);
        self.lock().push(held);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // no reference runs while it is locked
    }
}

/// One bound buffer.
pub enum Arg<'a, T> {
    /// Reals, read.
    Real(&'a [T]),
    /// Reals, written.
    RealMut(&'a mut [T]),
    /// Unsigned words (ids, indices, packed weights), read.
    U32(&'a [u32]),
    /// Unsigned words, written.
    U32Mut(&'a mut [u32]),
}

impl<'a, T: Real> KernelArgs<'a, T> {
    /// The parameter block.
    pub fn params<P: Params>(&self) -> P {
        assert_eq!(self.fields.len(), P::FIELDS.len(), "the reference reads the parameter block of its kernel");
        bytemuck::pod_read_unaligned(self.params)
    }

    /// The buffers, in binding order.
    pub fn buffers<const N: usize>(self) -> [Arg<'a, T>; N] {
        let n = self.args.len();
        self.args.try_into().unwrap_or_else(|_| panic!("the reference takes {N} buffers, its kernel binds {n}"))
    }
}

impl<'a, T> Arg<'a, T> {
    /// A real buffer, for reading.
    pub fn real(self) -> &'a [T] {
        match self {
            Arg::Real(x) => x,
            Arg::RealMut(x) => x,
            _ => panic!("the reference reads a real buffer where its kernel binds words"),
        }
    }

    /// A real buffer, for writing.
    pub fn real_mut(self) -> &'a mut [T] {
        match self {
            Arg::RealMut(x) => x,
            _ => panic!("the reference writes a buffer that its kernel does not bind as written reals"),
        }
    }

    /// Words, for reading; signed integers as their bit patterns.
    pub fn u32(self) -> &'a [u32] {
        match self {
            Arg::U32(x) => x,
            Arg::U32Mut(x) => x,
            _ => panic!("the reference reads words where its kernel binds reals"),
        }
    }

    /// Words, for writing.
    pub fn u32_mut(self) -> &'a mut [u32] {
        match self {
            Arg::U32Mut(x) => x,
            _ => panic!("the reference writes a buffer that its kernel does not bind as written words"),
        }
    }

    /// Signed words, for reading.
    pub fn i32(self) -> &'a [i32] {
        bytemuck::cast_slice(self.u32())
    }
}
