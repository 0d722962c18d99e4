//! A part of a buffer, as prepared recordings refer to it.

/// A span by the number of its buffer; offset and length in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) buffer: usize,
    pub(super) offset: u64,
    pub(super) len: u64,
}
