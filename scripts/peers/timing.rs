//! Timing shared by the GPU peers, so that all are timed the same way.

use std::time::Instant;

/// The result of a run, with any error.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Seconds of the first run and of the best later one, and the number of later ones.
pub struct Runs {
    pub first: f64,
    pub best: f64,
    pub later: usize,
}

/// Times a first run, then further runs for `seconds`, at least three.
pub fn time_runs(seconds: f64, mut run: impl FnMut() -> Result<()>) -> Result<Runs> {
    let mut timed = || -> Result<f64> {
        let start = Instant::now();
        run()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let first = timed()?;
    let mut runs = Runs { first, best: f64::MAX, later: 0 };
    let start = Instant::now();
    while runs.later < 3 || start.elapsed().as_secs_f64() < seconds {
        runs.best = runs.best.min(timed()?);
        runs.later += 1;
    }
    Ok(runs)
}
