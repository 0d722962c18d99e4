//! The submits in flight, of all recordings: how many there are, and how long each took.
//!
//! The host learns that a submit has ended when it waits for it, and then it knows the time. If the
//! submit had ended before the host asked, it knows only a bound. A submit begins when the one before
//! it ends, or when the host hands it over, whichever is later. If the host is slower than the device
//! this measures the host, which only makes submits shorter than necessary.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::pace::Pace;

/// A wait that takes at least so long has met the end of what it waited for.
const WAITED: Duration = Duration::from_micros(100);

/// A submit to wait for: its number among all submits of the device, and wgpu's index.
#[derive(Clone, Debug)]
pub(super) struct Ticket<I> {
    pub(super) number: u64,
    pub(super) index: I,
}

struct Submit<I> {
    ticket: Ticket<I>,
    /// Commands in it.
    n: usize,
    pace: Pace,
    /// When the host handed it over.
    at: Instant,
}

/// The submits of recordings that are not known to have ended, oldest first.
pub(super) struct Flight<I> {
    submits: VecDeque<Submit<I>>,
    n_submitted: u64,
    /// The last end that the host has met.
    last_end: Option<Instant>,
}

impl<I: Clone> Flight<I> {
    /// Nothing in flight.
    pub(super) fn new() -> Self {
        Self { submits: VecDeque::new(), n_submitted: 0, last_end: None }
    }

    /// A ticket for the latest submit, whatever is in it.
    pub(super) fn ticket(&mut self, index: I) -> Ticket<I> {
        self.n_submitted += 1;
        Ticket { number: self.n_submitted, index }
    }

    /// Adds a submit of `n` commands of a recording, handed over at `at`.
    pub(super) fn add(&mut self, ticket: Ticket<I>, n: usize, pace: &Pace, at: Instant) {
        self.submits.push_back(Submit { ticket, n, pace: pace.clone(), at });
    }

    /// The oldest submit, if more than `most` are in flight.
    pub(super) fn oldest_beyond(&self, most: usize) -> Option<Ticket<I>> {
        self.submits.front().filter(|_| self.submits.len() > most).map(|submit| submit.ticket.clone())
    }

    /// The number of submits of recordings in flight.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        self.submits.len()
    }

    /// Records that all submits up to number `last` have ended, which the host asked for at `asked`
    /// and learnt at `now`.
    pub(super) fn ended(&mut self, last: u64, asked: Instant, now: Instant) {
        let n_ended = self.submits.partition_point(|submit| submit.ticket.number <= last);
        let ended: Vec<Submit<I>> = self.submits.drain(..n_ended).collect();
        let since = |submit: &Submit<I>| {
            let began = self.last_end.map_or(submit.at, |end| end.max(submit.at));
            now.saturating_duration_since(began)
        };
        if now.saturating_duration_since(asked) < WAITED {
            ended.iter().for_each(|submit| submit.pace.took(submit.n, since(submit), false));
            return;
        }
        if let Some(first) = ended.first() {
            // They ran one after the other, and nobody saw where one ended: each gets its share.
            let each = since(first).div_f64(ended.iter().map(|submit| submit.n).sum::<usize>() as f64);
            ended.iter().for_each(|submit| submit.pace.took(submit.n, each.mul_f64(submit.n as f64), true));
        }
        self.last_end = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::IN_FLIGHT;
    use super::*;

    const TARGET: Duration = Duration::from_millis(50);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn submit(flight: &mut Flight<()>, n: usize, pace: &Pace, at: Instant) -> u64 {
        let ticket = flight.ticket(());
        let number = ticket.number;
        flight.add(ticket, n, pace, at);
        number
    }

    /// Runs of one submit each, of `n` commands that take `each`, by a host that is never slower and
    /// reads nothing back. Returns the most submits in flight.
    fn run_many(flight: &mut Flight<()>, pace: &Pace, n: usize, each: Duration, device: &mut Instant) -> usize {
        let (mut most, mut host) = (0, *device);
        let mut ends = Vec::new();
        for _ in 0..30 {
            while let Some(oldest) = flight.oldest_beyond(pace.in_flight()) {
                let end: Instant = ends[oldest.number as usize - 1];
                let asked = host;
                host = host.max(end);
                flight.ended(oldest.number, asked, host);
            }
            let n = n.min(pace.commands());
            submit(flight, n, pace, host);
            *device = host.max(*device) + each * n as u32;
            ends.push(*device);
            most = most.max(flight.len());
        }
        most
    }

    #[test]
    fn in_flight_over_runs_is_bounded_and_short_recordings_are_measured() {
        let (mut flight, pace) = (Flight::new(), Pace::new(TARGET));
        let mut device = Instant::now();
        assert_eq!(run_many(&mut flight, &pace, 40, ms(1), &mut device), IN_FLIGHT + 1);
        assert!((40..=64).contains(&pace.commands()), "{}", pace.commands());
        let (mut flight, pace) = (Flight::new(), Pace::new(TARGET));
        assert_eq!(run_many(&mut flight, &pace, 40, ms(20), &mut device), IN_FLIGHT + 1);
        assert_eq!(pace.commands(), 2, "two commands of 20 ms are one submit");
    }

    #[test]
    fn a_submit_begins_when_the_one_before_it_ends() {
        let (mut flight, first, second) = (Flight::new(), Pace::new(TARGET), Pace::new(TARGET));
        let start = Instant::now();
        let a = submit(&mut flight, 10, &first, start);
        let b = submit(&mut flight, 10, &second, start);
        flight.ended(a, start, start + ms(500));
        assert_eq!(first.commands(), 1);
        flight.ended(b, start + ms(500), start + ms(510));
        assert_eq!(second.commands(), 20, "10 ms, and not 510");
        assert_eq!(flight.len(), 0);
    }

    #[test]
    fn submits_that_end_unseen_get_their_shares() {
        let (mut flight, long, short) = (Flight::new(), Pace::new(TARGET), Pace::new(TARGET));
        let start = Instant::now();
        submit(&mut flight, 60, &long, start);
        submit(&mut flight, 4, &short, start);
        let read = flight.ticket(()).number;
        flight.ended(read, start, start + ms(128));
        assert!((24..=25).contains(&long.commands()), "60 in 120 ms: {}", long.commands());
        assert_eq!(short.commands(), 8, "4 in 8 ms, at most doubled");
    }

    #[test]
    fn what_ended_long_before_the_host_asked_is_not_measured() {
        let (mut flight, pace) = (Flight::new(), Pace::new(TARGET));
        let start = Instant::now();
        let number = submit(&mut flight, 2, &pace, start);
        let later = start + Duration::from_secs(60);
        flight.ended(number, later, later);
        assert_eq!(pace.commands(), 2);
        let number = submit(&mut flight, 2, &pace, later);
        flight.ended(number, later, later + ms(1));
        assert_eq!(pace.commands(), 4, "the minute does not count");
    }
}
