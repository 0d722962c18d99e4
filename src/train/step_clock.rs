//! Times the steps of a run and leaves out pauses by the observer.

use std::time::{Duration, Instant};

/// Times steps when the next step is queued before the previous one is reported.
pub(super) struct StepClock {
    /// When the step before the reported one finished, or when the reported one began.
    since: Instant,
    /// Start and end of each pause since the last step was queued.
    held: Vec<(Instant, Instant)>,
}

impl StepClock {
    pub fn new() -> Self {
        Self { since: Instant::now(), held: Vec::new() }
    }

    /// Calls `ask`, which may block; its time counts to no step if it is a pause.
    pub fn hold<T>(&mut self, ask: impl FnOnce() -> T) -> T {
        let from = Instant::now();
        let answer = ask();
        let to = Instant::now();
        if to - from >= SHORTEST_PAUSE {
            self.held.push((from, to));
        }
        answer
    }

    /// Starts a step while none is queued.
    pub fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// A step is queued and the previous one is reported: the pauses until now are over for both.
    pub fn queued(&mut self) {
        self.since = self.held.drain(..).fold(self.since, after_hold);
    }

    /// Seconds of the step that the host found finished at `done`.
    pub fn done(&mut self, done: Instant) -> f64 {
        // During a pause the host does not poll, so it notices the device's completion only
        // afterwards.
        let over = self.held.iter().copied().filter(|&(_, to)| to <= done);
        let since = over.fold(self.since, after_hold);
        self.since = done;
        done.saturating_duration_since(since).as_secs_f64()
    }
}

/// A shorter wait is no pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);

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
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        // The previous step finished before, during or after the pause.
        assert_eq!(after_hold(at(1), (at(3), at(10))), at(8), "two of nine seconds were the step's");
        assert_eq!(after_hold(at(5), (at(3), at(10))), at(10));
        assert_eq!(after_hold(at(12), (at(3), at(10))), at(12));
    }

    #[test]
    fn all_pauses_within_a_step_count_to_none() {
        let mut clock = StepClock::new();
        let start = clock.since;
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        clock.held = vec![(at(2), at(5)), (at(6), at(7))];
        clock.queued();
        assert_eq!((clock.done(at(10)), clock.since), (6.0, at(10)), "four of ten seconds were pauses");
        clock.held = vec![(at(11), at(13)), (at(14), at(20))];
        assert_eq!(clock.done(at(18)), 6.0, "the step was done before the second pause was over");
    }
}
