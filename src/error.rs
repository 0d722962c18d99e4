//! The error type of the crate: a message, its context and a kind.
//!
//! An [`Error`] is a sentence with the sentences of its callers in front ("outer: inner"). Each
//! says what went wrong, why, and what to do about it. Settings are named by the fields that hold
//! them, in backticks: `max_length`. The front ends turn fields into flags or labels with
//! [`rename_settings`]. Broken internal invariants are assertions
//! instead; nothing that a user types ends in a panic.

use std::fmt;

/// Result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Kind of an error, for callers that react to it. Everything else is in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is invalid (exit status 2).
    Usage,
    /// The work failed (exit status 1).
    Failed,
    /// A device or the host ran out of memory.
    OutOfMemory,
    /// The device was lost: driver reset, unplugged, timed out.
    DeviceLost,
    /// Training diverged to NaN or infinity.
    Diverged,
    /// Nobody reads the program's output any more (exit status 141).
    ClosedOutput,
    /// The user ended the work. What was done is saved where it can be (exit status 130).
    Interrupted,
}

/// An error with its context chain.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
}

impl Error {
    /// An error of kind [`ErrorKind::Failed`].
    pub fn new(message: impl Into<String>) -> Self {
        Self::of_kind(ErrorKind::Failed, message)
    }

    /// An error of kind [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::of_kind(ErrorKind::Usage, message)
    }

    /// An error of the given kind.
    pub fn of_kind(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: Vec::new() }))
    }

    /// The kind. Adding context does not change it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Adds context in front of the message: the operation that failed.
    pub fn context(mut self, outer: impl fmt::Display) -> Self {
        self.0.context.push(outer.to_string());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outer in self.0.context.iter().rev() {
            write!(f, "{outer}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}

/// The text with each name in backticks replaced by what `name` makes of it, or left with its
/// backticks.
pub fn rename_settings(text: &str, name: impl Fn(&str) -> Option<String>) -> String {
    let is_name =
        |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('`') {
        let inner = &rest[open + 1..];
        out.push_str(&rest[..open]);
        let renamed = inner.find('`').map(|end| (&inner[..end], &inner[end + 1..])).filter(|(s, _)| is_name(s));
        match renamed.and_then(|(setting, after)| Some((name(setting)?, after))) {
            Some((renamed, after)) => {
                out.push_str(&renamed);
                rest = after;
            }
            None => {
                out.push('`');
                rest = inner;
            }
        }
    }
    out + rest
}

/// Adds context to a failing result.
pub trait Context<T> {
    /// Adds `outer` in front of the error's message.
    fn context(self, outer: impl fmt::Display) -> Result<T>;
    /// Like [`Context::context`], but computes the context only on failure.
    fn with_context<D: fmt::Display>(self, outer: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, outer: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.into().context(outer))
    }

    fn with_context<D: fmt::Display>(self, outer: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context(outer()))
    }
}

macro_rules! from_display {
    ($($source:ty),* $(,)?) => {
        $(impl From<$source> for Error {
            fn from(e: $source) -> Self {
                Error::new(e.to_string())
            }
        })*
    };
}
from_display!(
    std::io::Error,
    std::fmt::Error,
    std::str::Utf8Error,
    std::num::TryFromIntError,
    serde_json::Error,
    safetensors::SafeTensorError,
    minijinja::Error,
    Box<dyn std::error::Error + Send + Sync>,
);

/// Returns an [`Error`] with a formatted message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::error::Error::new(format!($($message)+)));
        }
    };
}

/// Returns an [`Error`] with a formatted message.
#[macro_export]
macro_rules! bail {
    ($($message:tt)+) => {
        return Err($crate::error::Error::new(format!($($message)+)))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_reads_from_the_outside_in_and_keeps_the_kind() {
        let e = Error::usage("K is 0").context("reading --keep").context("train");
        assert_eq!(e.to_string(), "train: reading --keep: K is 0");
        assert_eq!(e.kind(), ErrorKind::Usage);
    }

    #[test]
    fn settings_are_renamed_and_other_backticks_stay() {
        let flag = |name: &str| (name != "auto").then(|| format!("--{}", name.replace('_', "-")));
        let renamed = |text: &str| rename_settings(text, flag);
        assert_eq!(renamed("lower `max_tokens` 9, or `lr`"), "lower --max-tokens 9, or --lr");
        for text in ["`auto` works", "`cargo test`", "``", "one ` alone", "`Camel`", "ends in `", ""] {
            assert_eq!(renamed(text), text);
        }
        assert_eq!(renamed("odd ` and `lr`"), "odd ` and --lr");
    }

    #[test]
    fn foreign_errors_take_context() {
        let r: std::result::Result<(), std::io::Error> = Err(std::io::Error::other("disk full"));
        assert_eq!(r.context("writing out.json").unwrap_err().to_string(), "writing out.json: disk full");
    }
}
