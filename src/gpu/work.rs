//! The least work of a dispatch: its floating-point operations, and the bytes that it must move.
//!
//! A kernel states its work in its `KernelDef`, as a function of a [`DispatchView`]. A product, a
//! sum, a division, a root and an exponential are one operation each; integers count nothing. A
//! kernel reads or writes each bound span once for every way it uses it, unless it touches only a
//! part: then its function counts that part. So the figures are the least that the formula needs,
//! not what a shader happens to do.

use super::Span;
use crate::error::Result;

/// Floating-point operations that one dispatch does at most, where a recorder can split its work and
/// enough workgroups remain to fill a device.
///
/// Windows ends a dispatch that takes two seconds and takes the device away, and other systems have
/// such a limit too. On a device that does 10^11 operations a second, which is slow, this takes 0.4
/// seconds.
pub const DISPATCH_FLOPS: u64 = 40_000_000_000;

/// Least work of one dispatch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// How a kernel states its work.
pub type WorkFn = fn(&mut DispatchView<'_>) -> Result<Work>;

/// Reads a span of words from the device that holds it.
pub type ReadWords<'a> = dyn FnMut(&Span) -> Result<Vec<u32>> + 'a;

/// A dispatch with its parameters, constants and buffers by name. A name that the kernel does not
/// have is a mistake of the kernel's author, so the methods panic on it.
pub struct DispatchView<'a> {
    pub(super) label: &'static str,
    pub(super) params: Vec<(&'static str, u64)>,
    pub(super) constants: Vec<(&'static str, u64)>,
    pub(super) spans: Vec<(&'static str, BoundSpan<'a>)>,
    pub(super) read_words: &'a mut ReadWords<'a>,
}

/// A bound span, and how many times its elements pass between memory and the device.
#[derive(Clone, Copy)]
pub(super) struct BoundSpan<'a> {
    pub(super) span: &'a Span,
    /// 1 for a span that is only read or only written, 2 for one that is both.
    pub(super) passes: u64,
}

impl<'a> DispatchView<'a> {
    /// A parameter as a count. Of a factor (`f32`) only one thing counts: 0 where it is zero, else
    /// 1.
    pub fn param(&self, name: &str) -> u64 {
        self.find(&self.params, "parameter", name)
    }

    /// The value of a generated constant.
    pub fn constant(&self, name: &str) -> u64 {
        self.find(&self.constants, "constant", name)
    }

    /// Elements of the span bound under this name, four bytes each.
    pub fn len(&self, name: &str) -> u64 {
        self.find(&self.spans, "binding", name).span.len as u64
    }

    /// The words of a span, read from the device. The error is that of the device.
    pub fn words(&mut self, name: &str) -> Result<Vec<u32>> {
        let span = self.find(&self.spans, "binding", name).span;
        (self.read_words)(span)
    }

    /// Bytes of all bound spans; those that are read and written count twice.
    pub fn all_bytes(&self) -> u64 {
        self.spans.iter().map(|(_, bound)| 4 * bound.span.len as u64 * bound.passes).sum()
    }

    /// So many operations on all that is bound.
    pub fn work(&self, flops: u64) -> Work {
        Work { flops, bytes: self.all_bytes() }
    }

    fn find<T: Copy>(&self, list: &[(&'static str, T)], what: &str, name: &str) -> T {
        let found = list.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("{} has no {what} {name}", self.label)).1
    }
}
