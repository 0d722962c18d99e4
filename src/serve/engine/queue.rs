//! The queue before the engine, and what the engine's thread and the server's share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, error::SendError};

use crate::serve::door::{Door, Refused};
use crate::serve::job::Job;
use crate::serve::metrics::Metrics;

/// What server and engine share.
#[derive(Debug)]
pub struct Shared {
    /// Counters.
    pub metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Jobs between submission and their start.
    n_waiting: AtomicUsize,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    is_loaded: bool,
    /// When running jobs are to end.
    stop_at: Option<Instant>,
    /// Mean time of a job, newer ones counting more.
    mean: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Loading,
    Ready,
    Stopping,
    Dead(String),
}

impl Shared {
    /// The state of an engine that is loading its models.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let state = State { phase: Phase::Loading, is_loaded: false, stop_at: None, mean: Duration::from_secs(1) };
        Arc::new(Self { metrics, state: Mutex::new(state), n_waiting: AtomicUsize::new(0) })
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The engine takes jobs from now on.
    pub fn ready(&self) {
        self.with(|state| {
            state.is_loaded = true;
            if state.phase == Phase::Loading {
                state.phase = Phase::Ready;
            }
        });
    }

    /// The engine has failed.
    pub fn die(&self, why: String) {
        self.with(|state| state.phase = Phase::Dead(why));
    }

    /// Takes no more jobs. Those that wait are refused, and running ones end by themselves or after
    /// `grace`.
    pub fn stop(&self, grace: Duration) {
        self.with(|state| {
            if !matches!(state.phase, Phase::Dead(_)) {
                state.phase = Phase::Stopping;
            }
            state.stop_at = Instant::now().checked_add(grace);
        });
    }

    /// When running jobs are to end, if the server is stopping.
    pub fn stop_at(&self) -> Option<Instant> {
        self.with(|state| state.stop_at)
    }

    /// Whether the models are still being loaded, also when the server is stopping.
    pub fn is_loading(&self) -> bool {
        self.with(|state| !state.is_loaded && !matches!(state.phase, Phase::Dead(_)))
    }

    /// Whether the engine takes jobs, or why not.
    pub fn check(&self) -> Result<(), Refused> {
        match self.with(|state| state.phase.clone()) {
            Phase::Ready => Ok(()),
            Phase::Loading => Err(Refused::Loading),
            Phase::Stopping => Err(Refused::Stopping),
            Phase::Dead(why) => Err(Refused::Dead(why)),
        }
    }

    /// A job has left the queue.
    pub fn leave_queue(&self) {
        let before = self.n_waiting.fetch_sub(1, Ordering::Relaxed);
        self.metrics.waiting.store(before.saturating_sub(1) as u64, Ordering::Relaxed);
    }

    /// A job took so long from its first token to its last.
    pub fn took(&self, time: Duration) {
        self.with(|state| state.mean = state.mean.mul_f64(0.9) + time.mul_f64(0.1));
    }
}

/// Where jobs for an [`super::Engine`] are handed in.
#[derive(Clone, Debug)]
pub struct EngineDoor {
    shared: Arc<Shared>,
    jobs: UnboundedSender<Job>,
    most_waiting: usize,
}

impl EngineDoor {
    /// A door to the engine that receives `jobs`. At most `most_waiting` jobs wait for it.
    pub fn new(shared: Arc<Shared>, jobs: UnboundedSender<Job>, most_waiting: usize) -> Self {
        Self { shared, jobs, most_waiting }
    }
}

impl Door for EngineDoor {
    fn submit(&self, job: Job) -> Result<(), Refused> {
        self.shared.check()?;
        let waiting = self.shared.n_waiting.fetch_add(1, Ordering::Relaxed);
        if waiting >= self.most_waiting {
            self.shared.leave_queue();
            let mean = self.shared.with(|state| state.mean).as_secs_f64();
            return Err(Refused::Full { retry_after_s: mean.ceil().clamp(1.0, 60.0) as u64 });
        }
        self.shared.metrics.waiting.store(waiting as u64 + 1, Ordering::Relaxed);
        self.jobs.send(job).map_err(|SendError(_)| {
            self.shared.leave_queue();
            Refused::Dead("the engine has ended".into())
        })
    }

    fn ready(&self) -> Result<(), Refused> {
        self.shared.check()
    }

    fn most_waiting(&self) -> usize {
        self.most_waiting
    }

    fn close(&self, grace: Duration) {
        self.shared.stop(grace);
    }

    fn stop(&self) {
        self.shared.stop(Duration::ZERO);
    }
}
