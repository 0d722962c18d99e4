//! Values on their way from a device to the host.

use crate::error::Result;

/// A read that was started: it gives what its span held after everything that was queued before it.
pub struct Reading<T>(State<T>);

enum State<T> {
    Ready(Vec<T>),
    Started(Box<dyn FnOnce() -> Result<Vec<T>>>),
}

impl<T: 'static> Reading<T> {
    /// A read that is done already.
    pub(super) fn ready(values: Vec<T>) -> Self {
        Self(State::Ready(values))
    }

    /// A read that `wait` finishes.
    pub(super) fn started(wait: impl FnOnce() -> Result<Vec<T>> + 'static) -> Self {
        Self(State::Started(Box::new(wait)))
    }

    /// The same read of other values.
    pub(super) fn map<U: 'static>(self, change: impl FnOnce(Vec<T>) -> Vec<U> + 'static) -> Reading<U> {
        Reading::started(move || Ok(change(self.wait()?)))
    }

    /// Whether [`Reading::wait`] has nothing to wait for: an executor on the CPU reads at once.
    pub fn is_ready(&self) -> bool {
        matches!(self.0, State::Ready(_))
    }

    /// The values. Waits for what was queued before the read, and not for what was queued after it.
    pub fn wait(self) -> Result<Vec<T>> {
        match self.0 {
            State::Ready(values) => Ok(values),
            State::Started(wait) => wait(),
        }
    }
}
