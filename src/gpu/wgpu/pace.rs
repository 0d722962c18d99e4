//! Sizes the submits of a recording: short enough for Windows' two-second GPU timeout, long enough to
//! keep overhead low.
//!
//! Each prepared recording has a pace of its own, since commands of one take longer than those of
//! another. A new one starts small, and each submit is waited for before the next, larger one until
//! sizes no longer grow: six waits in its first run, and none later. `flight.rs` measures. Results do
//! not depend on where a recording is split.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Maximum commands per submit.
const MOST: usize = 64;
/// Commands of the first submit, before anything has been measured.
const FIRST: usize = 2;
/// Submits that may be in flight when the host prepares the next one.
pub(super) const IN_FLIGHT: usize = 3;

/// The size of a recording's next submit. A clone is another handle to the same pace.
#[derive(Clone)]
pub(super) struct Pace(Arc<Mutex<State>>);

struct State {
    /// Target duration of one submit.
    target: Duration,
    commands: usize,
    /// Whether sizes no longer grow from one submit to the next.
    settled: bool,
}

impl Pace {
    /// Sizes submits to take `target`.
    pub(super) fn new(target: Duration) -> Self {
        Self(Arc::new(Mutex::new(State { target, commands: FIRST, settled: false })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Commands of the next submit, from 1 to [`MOST`].
    pub(super) fn commands(&self) -> usize {
        self.state().commands
    }

    /// Submits that may be in flight before the next one: none as long as sizes grow, so that each is
    /// measured.
    pub(super) fn in_flight(&self) -> usize {
        if self.state().settled { IN_FLIGHT } else { 0 }
    }

    /// Records that a submit of `n` commands took `took`, or, if that is not `exact`, at most so long.
    /// A bound may be far too large, so it never makes submits shorter.
    pub(super) fn took(&self, n: usize, took: Duration, exact: bool) {
        let mut state = self.state();
        let took = took.max(Duration::from_micros(1));
        let fitting = n as f64 * state.target.as_secs_f64() / took.as_secs_f64();
        // Shrinks at once and at most doubles what was measured: a slow submit may follow a quick one.
        let least = if exact { 1 } else { state.commands };
        let most = MOST.min(state.commands.max(2 * n));
        let commands = (fitting as usize).clamp(least, most);
        state.settled |= commands <= state.commands;
        state.commands = commands;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    /// Commands per submit after 20 submits on a device that takes `each` milliseconds per command.
    fn after_submits(pace: &Pace, each: f64) -> usize {
        for _ in 0..20 {
            let n = pace.commands();
            pace.took(n, ms(n as f64 * each), true);
        }
        pace.commands()
    }

    #[test]
    fn submits_take_about_the_target() {
        let pace = Pace::new(TARGET);
        assert_eq!(after_submits(&pace, 0.1), MOST);
        assert_eq!(after_submits(&pace, 900.0), 1, "a command that takes long is submitted alone");
        assert!((4..=5).contains(&after_submits(&pace, 10.0)));
        assert_eq!(after_submits(&pace, 0.1), MOST, "it grows again");
        assert!((1..=2).contains(&after_submits(&Pace::new(TARGET / 3), 10.0)));
    }

    #[test]
    fn one_long_submit_is_answered_at_once() {
        let pace = Pace::new(TARGET);
        assert_eq!(after_submits(&pace, 0.1), MOST);
        pace.took(MOST, ms(640.0), true);
        assert!((4..=5).contains(&pace.commands()), "{}", pace.commands());
    }

    #[test]
    fn each_submit_is_waited_for_while_sizes_grow() {
        let pace = Pace::new(TARGET);
        let mut sizes = Vec::new();
        while pace.in_flight() == 0 {
            let n = pace.commands();
            sizes.push(n);
            pace.took(n, ms(n as f64 * 0.1), true);
        }
        assert_eq!(sizes, [2, 4, 8, 16, 32, 64]);
        pace.took(MOST, ms(6400.0), true);
        assert_eq!(pace.in_flight(), IN_FLIGHT, "what was measured once is not new again");
        let slow = Pace::new(TARGET);
        slow.took(2, ms(200.0), true);
        assert_eq!((slow.commands(), slow.in_flight()), (1, IN_FLIGHT));
    }

    #[test]
    fn a_bound_never_shrinks_and_the_rest_of_a_recording_grows_nothing() {
        let pace = Pace::new(TARGET);
        pace.took(2, ms(1.0), false);
        assert_eq!(pace.commands(), 4);
        pace.took(4, Duration::from_secs(60), false);
        assert_eq!(pace.commands(), 4);
        pace.took(1, ms(0.01), true);
        assert_eq!(pace.commands(), 4, "one command says little about eight");
    }
}
