//! `Reading`: an asynchronous read of device values.

use std::time::Instant;

use crate::error::Result;

/// A pending read. It returns what its span held after all commands queued before the read.
pub struct Reading<T>(State<T>);

/// The values, and the time at which the device had finished everything queued before the read.
type Arrived<T> = (Vec<T>, Instant);

enum State<T> {
    Ready(Arrived<T>),
    Started(Box<dyn FnOnce() -> Result<Arrived<T>>>),
}

impl<T: 'static> Reading<T> {
    /// A finished read.
    pub(super) fn ready(values: Vec<T>) -> Self {
        Self(State::Ready((values, Instant::now())))
    }

    /// A read that `wait` finishes.
    pub(super) fn started(wait: impl FnOnce() -> Result<Arrived<T>> + 'static) -> Self {
        Self(State::Started(Box::new(wait)))
    }

    /// This read with `change` applied to its values.
    pub(super) fn map<U: 'static>(self, change: impl FnOnce(Vec<T>) -> Vec<U> + 'static) -> Reading<U> {
        let change = |(values, at): Arrived<T>| (change(values), at);
        Reading(match self.0 {
            State::Ready(arrived) => State::Ready(change(arrived)),
            State::Started(wait) => State::Started(Box::new(move || Ok(change(wait()?)))),
        })
    }

    /// Whether [`Reading::wait`] returns at once: the CPU executor reads synchronously.
    pub fn is_ready(&self) -> bool {
        matches!(self.0, State::Ready(_))
    }

    /// Returns the values. Waits for work queued before the read, not for work queued after it.
    pub fn wait(self) -> Result<Vec<T>> {
        Ok(self.wait_timed()?.0)
    }

    /// [`Reading::wait`], with the time at which the device had finished, which may be long past.
    pub fn wait_timed(self) -> Result<(Vec<T>, Instant)> {
        match self.0 {
            State::Ready(arrived) => Ok(arrived),
            State::Started(wait) => wait(),
        }
    }
}
