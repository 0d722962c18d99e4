//! The door of the engine: where the server's side hands jobs over.

use std::time::Duration;

use super::job::Job;

/// Takes jobs for the engine. Implementations return at once.
pub trait Door: Send + Sync {
    /// Hands over a job. Its events say what becomes of it.
    fn submit(&self, job: Job) -> Result<(), Refused>;

    /// Whether the engine takes jobs at all. A full queue is no reason against it.
    fn ready(&self) -> Result<(), Refused>;

    /// Most jobs that wait at once. A request with more jobs could never be taken whole.
    fn most_waiting(&self) -> usize {
        usize::MAX
    }

    /// The server takes no more requests: jobs that wait end with `Failure::Stopping`, and running ones
    /// may go on for the grace period.
    fn close(&self, grace: Duration);

    /// The grace period is over: ends the jobs that still run or wait with `Failure::Stopping`.
    fn stop(&self);
}

/// Why the engine does not take a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full; a later try may succeed.
    Full { retry_after_s: u64 },
    /// The model is still being loaded.
    Loading,
    /// The server is stopping.
    Stopping,
    /// The engine has failed for good.
    Dead(String),
}
