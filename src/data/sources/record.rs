//! The records of a file: JSON objects or whole documents, each with its place.

use crate::error::Result;
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;

/// Longest record in bytes. No batch takes that many tokens.
pub const MAX_RECORD_BYTES: u64 = 256 << 20;

/// Where a record is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(u64),
    /// An element of a JSON list, from 1.
    Element(u64),
    /// A row of a table, from 1.
    Row(u64),
    /// A passage of the bundled text, from 1.
    Passage(u64),
    /// The whole file.
    Whole,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, ", line {n}"),
            Self::Element(n) => write!(f, ", element {n}"),
            Self::Row(n) => write!(f, ", row {n}"),
            Self::Passage(n) => write!(f, ", passage {n}"),
            Self::Whole => Ok(()),
        }
    }
}

/// What a record holds.
#[derive(Debug)]
pub enum Content<'a> {
    /// The text of a JSON value, which may be invalid.
    Json(&'a [u8]),
    /// The text of a file.
    Document(String),
}

/// Receives the records of a file in their order. An error ends the reading.
pub type Each<'a> = &'a mut dyn FnMut(Place, Content<'_>) -> Result<()>;

/// A reader that fails where one record is too long.
pub struct Limited<R> {
    inner: R,
    left: Allowance,
}

/// The bytes that the current record may still have.
#[derive(Clone)]
pub struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    /// Begins a new record.
    pub fn renew(&self) {
        self.0.set(MAX_RECORD_BYTES);
    }
}

impl<R> Limited<R> {
    /// The reader, and the allowance that its user renews after each record.
    pub fn new(inner: R) -> (Self, Allowance) {
        let left = Allowance(Rc::new(Cell::new(MAX_RECORD_BYTES)));
        (Self { inner, left: left.clone() }, left)
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let left = self.left.0.get().checked_sub(n as u64);
        self.left
            .0
            .set(left.ok_or_else(|| io::Error::other(format!("a record has more than {MAX_RECORD_BYTES} bytes")))?);
        Ok(n)
    }
}
