//! How the peers on GPUs are timed, so that all of them are timed alike.

use std::time::Instant;

/// What a run may fail with.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Seconds of the first run and of the best later one, and how many later ones there were.
pub struct Runs {
    pub first: f64,
    pub best: f64,
    pub later: usize,
}

/// Times a first run, and further ones for `seconds`, three at least.
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
