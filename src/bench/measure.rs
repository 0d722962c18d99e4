//! Timing: repeats the same work, and reports the first run apart from the steady ones.
//!
//! The first run includes compiling kernels and allocating memory.

use std::time::Instant;

use crate::error::Result;
use crate::gpu::{Clock, Command, Executor, Recording};

/// Several times of the same work, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples(Vec<f64>);

/// A measured time of zero counts as this, less than the resolution of any clock here.
const SHORTEST: f64 = 1e-9;

impl Samples {
    /// Takes at least one time.
    pub fn new(mut seconds: Vec<f64>) -> Self {
        assert!(!seconds.is_empty(), "a measurement is at least one time");
        seconds.iter_mut().for_each(|s| *s = s.max(SHORTEST));
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    /// The shortest time.
    pub fn best(&self) -> f64 {
        self.0[0]
    }

    /// The median time; the mean of the middle two for an even number.
    pub fn median(&self) -> f64 {
        let (n, s) = (self.0.len(), &self.0);
        (s[(n - 1) / 2] + s[n / 2]) / 2.0
    }

    /// Number of times.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Minimum and maximum number of timed runs of one command.
const RUNS: std::ops::RangeInclusive<usize> = 3..=50;
/// Without a device clock, the number of groups of runs to time.
const GROUPS: usize = 5;

/// Times one command on initialised buffers for about `budget` seconds: by the device's clock if it
/// has one, else by the host's, in groups of many runs.
pub fn time_command(device: &mut dyn Executor, command: &Command, budget: f64) -> Result<Samples> {
    let repeated = |n: usize| {
        let mut recording = Recording::new();
        (0..n).for_each(|_| recording.push(command.clone()));
        recording
    };
    device.run(&repeated(1))?;
    let probe = device.run_timed(&repeated(1))?[0];
    let n = ((budget / probe.seconds.max(1e-6)) as usize).clamp(*RUNS.start(), *RUNS.end());
    if probe.clock == Clock::Device || device.runs_references() {
        let timings = device.run_timed(&repeated(n))?;
        return Ok(Samples::new(timings.iter().map(|t| t.seconds).collect()));
    }
    let group = repeated(n.div_ceil(GROUPS));
    let mut seconds = Vec::new();
    for _ in 0..GROUPS {
        let start = Instant::now();
        device.run(&group)?;
        device.wait()?;
        seconds.push(start.elapsed().as_secs_f64() / group.commands().len() as f64);
    }
    Ok(Samples::new(seconds))
}

/// The time of the first run of some work, and of later runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Runs {
    /// Seconds of the first run, including compilation and allocation.
    pub first: f64,
    /// The later runs; `None` if the first alone far exceeded the budget.
    pub steady: Option<Samples>,
}

/// Maximum number of steady runs.
const MOST_RUNS: usize = 20;
/// A first run that takes more than this many budgets, and more than this many seconds, is the only
/// one.
const FAR_BEYOND: f64 = 10.0;

/// Times `work`, which returns its own seconds: once, then for about `budget` seconds.
pub fn time_runs(budget: f64, mut work: impl FnMut() -> Result<f64>) -> Result<Runs> {
    let first = work()?.max(SHORTEST);
    if first > FAR_BEYOND * budget.max(1.0) {
        return Ok(Runs { first, steady: None });
    }
    let start = Instant::now();
    let mut seconds = vec![work()?];
    while seconds.len() < MOST_RUNS && start.elapsed().as_secs_f64() < budget {
        seconds.push(work()?);
    }
    Ok(Runs { first, steady: Some(Samples::new(seconds)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_and_median_are_those_of_the_sorted_times() {
        let samples = Samples::new(vec![3.0, 1.0, 2.0, 10.0]);
        assert_eq!((samples.best(), samples.median(), samples.count()), (1.0, 2.5, 4));
        assert_eq!(Samples::new(vec![5.0]).median(), 5.0);
        assert!(Samples::new(vec![0.0]).best() > 0.0);
    }

    #[test]
    fn the_first_run_stands_apart_and_ends_it_where_it_took_too_long() {
        let mut next = [9.0, 2.0, 1.0, 3.0].into_iter();
        let runs = time_runs(1e9, || Ok(next.next().unwrap_or(2.0))).unwrap();
        let steady = runs.steady.unwrap();
        assert_eq!((runs.first, steady.best(), steady.count()), (9.0, 1.0, MOST_RUNS));
        let mut n = 0;
        let runs = time_runs(1.0, || {
            n += 1;
            Ok(11.0)
        });
        assert_eq!((runs.unwrap().steady, n), (None, 1));
    }
}
