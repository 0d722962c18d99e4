//! Buffer handles: recordings name handles, not device memory.
//!
//! A handle holds its element kind, length and lifetime. The executor that runs a recording decides
//! where the bytes are. Persistent storage is freed when the last clone of its handle is dropped.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Element kind of a buffer. Every element is four bytes on a device; the f64 CPU executor widens
/// `Real` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Floating point: f32 on a device, f32 or f64 in the CPU executor.
    Real,
    /// Unsigned integers: token ids, indices, tables.
    U32,
    /// Signed integers: labels.
    I32,
    /// 32-bit words that the kernel unpacks itself: 16-bit weights, quantised blocks.
    Packed,
}

/// How long the content of a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the last handle is dropped: weights, optimiser moments, caches, results.
    Persistent,
    /// From the first to the last command that uses it in one recording; transients share memory.
    Transient,
}

/// Offsets of spans are multiples of this many elements (256 bytes, WebGPU's storage offset
/// alignment).
pub const ELEMENT_ALIGNMENT: usize = 64;

#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) id: u64,
    label: String,
    kind: Kind,
    len: usize,
    lifetime: Lifetime,
}

/// A handle to `len` elements of one kind.
#[derive(Clone, Debug)]
pub struct Buffer(pub(crate) Arc<Info>);

impl Buffer {
    /// A new handle. The executor allocates memory on first use.
    pub fn new(label: impl Into<String>, kind: Kind, len: usize, lifetime: Lifetime) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        assert!(len > 0, "a buffer has at least one element");
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Info { id, label: label.into(), kind, len, lifetime }))
    }

    /// A handle whose content outlives recordings.
    pub fn persistent(label: impl Into<String>, kind: Kind, len: usize) -> Self {
        Self::new(label, kind, len, Lifetime::Persistent)
    }

    /// Unique within the process.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Name for messages and debuggers.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Element kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Never true: handles have at least one element.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Size on a device in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.0.len as u64 * 4
    }

    /// Lifetime of the content.
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime
    }

    /// The whole buffer.
    pub fn span(&self) -> Span {
        Span { buffer: self.clone(), offset: 0, len: self.0.len }
    }

    /// `len` elements from `offset`, which is a multiple of [`ELEMENT_ALIGNMENT`].
    pub fn slice(&self, offset: usize, len: usize) -> Span {
        assert!(offset.is_multiple_of(ELEMENT_ALIGNMENT), "span of {} starts at unaligned {offset}", self.label());
        assert!(
            len > 0 && offset + len <= self.len(),
            "span {offset}+{len} exceeds {} of {}",
            self.label(),
            self.len()
        );
        Span { buffer: self.clone(), offset, len }
    }
}

/// Something for each buffer, by its id.
pub(super) type ById<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

/// Hashes ids, which count up, in one multiplication. A step looks up thousands.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an id is one u64");
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A contiguous range of a buffer's elements; commands bind, copy and clear spans.
#[derive(Clone, Debug)]
pub struct Span {
    /// The buffer.
    pub buffer: Buffer,
    /// First element, a multiple of [`ELEMENT_ALIGNMENT`].
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl Span {
    /// The first `len` elements of this span.
    pub fn prefix(&self, len: usize) -> Span {
        assert!(len > 0 && len <= self.len, "a prefix of {len} does not fit a span of {}", self.len);
        Span { buffer: self.buffer.clone(), offset: self.offset, len }
    }

    /// Element kind.
    pub fn kind(&self) -> Kind {
        self.buffer.kind()
    }

    /// Element range within the buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len
    }
}
