//! Times the steps of a run and leaves out pauses by the observer.

use std::time::Instant;

/// Times steps when the next step is queued before the previous one is reported.
pub(super) struct StepClock {
    /// When the step before the reported one finished, or when the reported one began.
    since: Instant,
    /// Start and end of the last pause.
    held: (Instant, Instant),
}

impl StepClock {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { since: now, held: (now, now) }
    }

    /// Calls `ask`, which may block; its time counts to no step.
    pub fn hold<T>(&mut self, ask: impl FnOnce() -> T) -> T {
        let from = Instant::now();
        let answer = ask();
        self.held = (from, Instant::now());
        answer
    }

    /// Starts a step while none is queued.
    pub fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// A step is queued and the previous one is reported: the pause between them is over for both.
    pub fn queued(&mut self) {
        self.since = after_hold(self.since, self.held);
        self.held = (self.since, self.since);
    }

    /// Seconds of the step that the host found finished at `done`.
    pub fn done(&mut self, done: Instant) -> f64 {
        // During a pause the host does not poll, so it notices the device's completion only
        // afterwards.
        let since = if done < self.held.1 { self.since } else { after_hold(self.since, self.held) };
        self.since = done;
        done.saturating_duration_since(since).as_secs_f64()
    }
}

/// The start time of a step, moved forward by the part of the pause that would count.
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
        // The previous step finished before, during or after the pause.
        assert_eq!(after_hold(at(1), (at(3), at(10))), at(8), "two of nine seconds were the step's");
        assert_eq!(after_hold(at(5), (at(3), at(10))), at(10));
        assert_eq!(after_hold(at(12), (at(3), at(10))), at(12));
    }
}
