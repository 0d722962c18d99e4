//! Sizes submits: short enough for Windows' two-second GPU timeout, long enough to keep overhead
//! low.
//!
//! The time between the ends of two consecutive submits, while more are queued, is the duration of
//! the second. The next submits are sized by it. If the host is slower than the device this
//! measures the host, which only makes submits shorter than necessary. Results do not depend on
//! where a recording is split.

use std::time::{Duration, Instant};

/// Maximum commands per submit.
const MOST: usize = 64;
/// Commands of the first submits, before anything has been measured.
const FIRST: usize = 8;

/// The size of the next submit.
pub(super) struct Pace {
    /// Target duration of one submit.
    target: Duration,
    commands: usize,
    last_end: Option<Instant>,
}

impl Pace {
    /// Sizes submits to take `target`.
    pub(super) fn new(target: Duration) -> Self {
        Self { target, commands: FIRST, last_end: None }
    }

    /// Commands of the next submit, from 1 to [`MOST`].
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Starts a recording: ignores the time since the last one.
    pub(super) fn restart(&mut self) {
        self.last_end = None;
    }

    /// Records that a submit of `n` commands was found finished at `now`.
    pub(super) fn ended(&mut self, n: usize, now: Instant) {
        if let Some(last) = self.last_end.replace(now) {
            let took = now.duration_since(last).max(Duration::from_micros(1));
            let fitting = n as f64 * self.target.as_secs_f64() / took.as_secs_f64();
            // Shrinks at once and at most doubles: a slow submit may follow a quick one.
            self.commands = (fitting as usize).clamp(1, MOST.min(2 * self.commands));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    /// Commands per submit after 20 submits on a device that takes `ms` per command.
    fn settled(pace: &mut Pace, ms: f64) -> usize {
        let mut now = Instant::now();
        pace.restart();
        for _ in 0..20 {
            let n = pace.commands();
            now += Duration::from_secs_f64(n as f64 * ms / 1e3);
            pace.ended(n, now);
        }
        pace.commands()
    }

    #[test]
    fn submits_take_about_the_target() {
        let mut pace = Pace::new(TARGET);
        assert_eq!(settled(&mut pace, 0.1), MOST);
        assert_eq!(settled(&mut pace, 900.0), 1, "a command that takes long is submitted alone");
        assert!((4..=5).contains(&settled(&mut pace, 10.0)));
        assert_eq!(settled(&mut pace, 0.1), MOST, "it grows again");
        assert!((1..=2).contains(&settled(&mut Pace::new(TARGET / 3), 10.0)));
    }

    #[test]
    fn one_long_submit_is_answered_at_once_and_gaps_between_recordings_are_not_measured() {
        let mut pace = Pace { commands: MOST, ..Pace::new(TARGET) };
        let start = Instant::now();
        pace.ended(64, start);
        assert_eq!(pace.commands(), MOST);
        pace.ended(64, start + Duration::from_millis(640));
        assert!(pace.commands() <= 5, "{}", pace.commands());
        let before = pace.commands();
        pace.restart();
        pace.ended(before, start + Duration::from_secs(60));
        assert_eq!(pace.commands(), before);
    }
}
