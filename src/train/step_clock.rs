//! The stopwatch of a run's steps. It leaves out the time in which an observer held the run.

use std::time::Instant;

/// Times steps of which the next is queued before the one before it is reported.
pub(super) struct StepClock {
    /// When the step before the reported one was done, or the reported one was begun.
    since: Instant,
    /// Since when and until when the run was held before the step that is begun.
    held: (Instant, Instant),
}

impl StepClock {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { since: now, held: (now, now) }
    }

    /// Asks something whose answer may take any time, which counts to no step.
    pub fn hold<T>(&mut self, ask: impl FnOnce() -> T) -> T {
        let from = Instant::now();
        let answer = ask();
        self.held = (from, Instant::now());
        answer
    }

    /// A step begins while none is queued.
    pub fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// A step is queued and the one before it is reported: the hold between them is over for both.
    pub fn queued(&mut self) {
        self.since = after_hold(self.since, self.held);
        self.held = (self.since, self.since);
    }

    /// Seconds of the step that a device was found done with at `done`.
    pub fn done(&mut self, done: Instant) -> f64 {
        // A device's answer is heard when somebody listens, which in a hold nobody does.
        let since = if done < self.held.1 { self.since } else { after_hold(self.since, self.held) };
        self.since = done;
        done.saturating_duration_since(since).as_secs_f64()
    }
}

/// The clock of a step, moved on by what it would count of a time in which the run was held.
fn after_hold(clock: Instant, (from, to): (Instant, Instant)) -> Instant {
    clock + to.saturating_duration_since(clock.max(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_counts_to_no_step() {
        let start = Instant::now();
        let at = |seconds: u64| start + std::time::Duration::from_secs(seconds);
        // The step before was done before the hold, in it, or after it.
        assert_eq!(after_hold(at(1), (at(3), at(10))), at(8), "two of nine seconds were the step's");
        assert_eq!(after_hold(at(5), (at(3), at(10))), at(10));
        assert_eq!(after_hold(at(12), (at(3), at(10))), at(12));
    }
}
