//! Values on their way from a device to the host.

use std::time::Instant;

use crate::error::Result;

/// A read that was started: it gives what its span held after everything that was queued before it.
pub struct Reading<T>(State<T>);

/// Values, and when the device was found done with what was queued before their read.
type Arrived<T> = (Vec<T>, Instant);

enum State<T> {
    Ready(Arrived<T>),
    Started(Box<dyn FnOnce() -> Result<Arrived<T>>>),
}

impl<T: 'static> Reading<T> {
    /// A read that is done already.
    pub(super) fn ready(values: Vec<T>) -> Self {
        Self(State::Ready((values, Instant::now())))
    }

    /// A read that `wait` finishes.
    pub(super) fn started(wait: impl FnOnce() -> Result<Arrived<T>> + 'static) -> Self {
        Self(State::Started(Box::new(wait)))
    }

    /// The same read of other values.
    pub(super) fn map<U: 'static>(self, change: impl FnOnce(Vec<T>) -> Vec<U> + 'static) -> Reading<U> {
        let change = |(values, at): Arrived<T>| (change(values), at);
        Reading(match self.0 {
            State::Ready(arrived) => State::Ready(change(arrived)),
            State::Started(wait) => State::Started(Box::new(move || Ok(change(wait()?)))),
        })
    }

    /// Whether [`Reading::wait`] has nothing to wait for: an executor on the CPU reads at once.
    pub fn is_ready(&self) -> bool {
        matches!(self.0, State::Ready(_))
    }

    /// The values. Waits for what was queued before the read, and not for what was queued after it.
    pub fn wait(self) -> Result<Vec<T>> {
        Ok(self.wait_timed()?.0)
    }

    /// [`Reading::wait`], and when the device was found done, which may be long ago.
    pub fn wait_timed(self) -> Result<(Vec<T>, Instant)> {
        match self.0 {
            State::Ready(arrived) => Ok(arrived),
            State::Started(wait) => wait(),
        }
    }
}
