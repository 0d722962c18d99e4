//! Rows that follow from the cases: every dispatch of every case on a device, and every gradient against its slope.

use std::time::Instant;

use super::row::{Direction, Place, Row, row_of};
use crate::error::{Error, Result};
use crate::gpu::{Executor, walk};
use crate::kernels::case::{Case, Tolerance};
use crate::kernels::gradient;

/// Difference quotients in f64 leave this much of the gradient's length.
const SLOPE: Tolerance =
    Tolerance { relative: 1e-6, absolute: 0.0, reason: "what a central difference in f64 resolves" };

/// The cases of every family, benchmark sizes left out.
pub fn all_cases() -> Vec<Case> {
    let all = crate::kernels::cases().into_iter().chain(crate::attention::cases());
    all.filter(|c| !c.bench).collect()
}

/// The first case of every op.
pub fn quick_cases() -> Vec<Case> {
    let mut cases = all_cases();
    let mut seen: Vec<String> = Vec::new();
    cases.retain(|c| {
        let op = op_of(&c.name).to_string();
        let is_new = !seen.contains(&op);
        seen.push(op);
        is_new
    });
    cases
}

/// `family/op` of a case's name.
fn op_of(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The rows of one case on a device: each dispatch in place and guarded. The error is that of the device; rows before it count.
pub(super) fn check_case(
    device: &mut dyn Executor,
    place: Place<'_>,
    case: &Case,
    only: &dyn Fn(&'static crate::gpu::KernelDef) -> bool,
) -> (Vec<Row>, Option<Error>) {
    let mut rows = Vec::new();
    let tolerance = &case.tolerance;
    let recorded = match case.record(device) {
        Ok(recorded) => recorded,
        Err(e) => {
            row_of(&mut rows, place, op_of(&case.name).to_string(), Direction::Forward, tolerance).fail(e.to_string());
            return (rows, Some(e));
        }
    };
    let walked = walk::visit(device, &recorded.recording, |device, trial| {
        let direction = if trial.command < recorded.backward_from { Direction::Forward } else { Direction::Backward };
        if !only(trial.dispatch.kernel) {
            return trial.run_in_place(device).map(|_| ());
        }
        let row = row_of(&mut rows, place, trial.dispatch.kernel.name(), direction, tolerance);
        let start = Instant::now();
        let examined = trial.examine(device);
        row.seconds += start.elapsed().as_secs_f64();
        match examined {
            Ok(found) => found.iter().for_each(|d| row.add(d, tolerance)),
            Err(e) => {
                row.fail(e.to_string());
                return Err(e);
            }
        }
        Ok(())
    });
    (rows, walked.err())
}

/// The rows of the gradient checks, which need no device: each analytic gradient of each case, in f64, against the slope of
/// its forward.
pub(super) fn check_slopes(cases: &[Case]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in cases {
        let start = Instant::now();
        let place = Place { device: "cpu (f64)", variant: "twin", case: &case.name };
        for slope in gradient::check(case)? {
            let kernel = op_of(&case.name).to_string();
            let mut row = Row::new(place, kernel, Direction::Slope, &SLOPE);
            row.case = format!("{}, input {}", case.name, slope.input);
            row.max_abs = (slope.analytic - slope.numeric).abs();
            row.scale = slope.scale;
            row.seconds = start.elapsed().as_secs_f64();
            if slope.relative_error() >= SLOPE.relative {
                let (analytic, numeric) = (slope.analytic, slope.numeric);
                row.fail(format!(
                    "the gradient says {analytic:e} along a direction, the difference quotient {numeric:e}"
                ));
            }
            rows.push(row);
        }
    }
    Ok(rows)
}
