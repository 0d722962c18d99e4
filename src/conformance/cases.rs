//! Report rows of the cases: every dispatch of every case on a device, and every gradient check.

use std::time::Instant;

use super::row::{Direction, Place, Row, Status, Variant, row_of};
use crate::error::{Error, Result};
use crate::gpu::{Executor, KernelDef};
use crate::kernels::case::{Case, Tolerance};
use crate::verify::gradient_check;
use crate::verify::walk;

/// The error of a central difference in f64, as a fraction of the gradient's norm, stays below
/// this.
const SLOPE: Tolerance =
    Tolerance { relative: 1e-6, absolute: 0.0, reason: "the accuracy of a central difference in f64" };

/// The cases of every family, without benchmark sizes and without those whose kernels software
/// drivers take minutes to compile.
pub fn all_cases() -> Vec<Case> {
    every_case().filter(|c| !c.slow).collect()
}

/// The cases whose kernels software drivers take minutes to compile.
pub fn slow_cases() -> Vec<Case> {
    every_case().filter(|c| c.slow).collect()
}

/// The cases of [`all_cases`] and those whose kernels software drivers compile for minutes.
pub fn every_case() -> impl Iterator<Item = Case> {
    crate::kernels::cases().into_iter().chain(crate::attention::cases()).filter(|c| !c.bench)
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

/// The `family/op` part of a case's name.
fn op_of(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

/// The rows of one case on a device: each dispatch of a kernel that `wanted` accepts, in place and
/// guarded, and again as a strict variant if one is given. Fails on device errors; the rows made
/// before the error are valid.
pub(super) fn check_case(
    device: &mut dyn Executor,
    place: Place<'_>,
    case: &Case,
    strict: Option<Variant>,
    wanted: &dyn Fn(&KernelDef) -> bool,
) -> (Vec<Row>, Option<Error>) {
    let mut rows = Vec::new();
    let tolerance = &case.tolerance;
    let failed = |why: &Error| {
        let op = op_of(&case.name).to_string();
        let mut row = Row::new(place, op, place.variant.of_all(), Direction::Forward, tolerance);
        row.fail(why.to_string());
        row
    };
    let recorded = match case.record(device) {
        Ok(recorded) => recorded,
        Err(e) => return (vec![failed(&e)], Some(e)),
    };
    let touches = |kernel: &'static KernelDef| kernel.with_alternatives().into_iter().any(wanted);
    if !recorded.recording.dispatches().any(|d| touches(d.kernel)) {
        return (rows, None);
    }
    let walked = walk::visit(device, &recorded.recording, |device, check| {
        let direction = if check.command < recorded.backward_from { Direction::Forward } else { Direction::Backward };
        for variant in std::iter::once(place.variant).chain(strict) {
            // Alternatives run in their own buffers.
            for alternative in variant.alternatives(&check).iter().filter(|r| wanted(r.dispatch.kernel)) {
                let row =
                    row_of(&mut rows, Place { variant, ..place }, alternative.dispatch.kernel, direction, tolerance);
                row.examine_alone(device, alternative, variant, tolerance)?;
            }
            if wanted(check.dispatch.kernel) {
                let row = row_of(&mut rows, Place { variant, ..place }, check.dispatch.kernel, direction, tolerance);
                row.examine(device, &check, variant, tolerance)?;
            }
        }
        if wanted(check.dispatch.kernel) { Ok(()) } else { device.run(&check.alone()) }
    });
    let broken_off = walked.err();
    // What comes after it was not checked, also if it is no kernel that failed.
    if let Some(e) = broken_off.as_ref().filter(|_| rows.iter().all(|row| row.status != Status::Failed)) {
        rows.push(failed(e));
    }
    (rows, broken_off)
}

/// The rows of the gradient checks, which need no device: each analytic gradient of each case, in
/// f64, against the slope of its forward pass.
pub(super) fn check_slopes(cases: &[Case]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in cases {
        let start = Instant::now();
        let place = Place { device: "cpu (f64)", variant: Variant::Reference, case: &case.name };
        for slope in gradient_check::check(case)? {
            let kernel = op_of(&case.name).to_string();
            let mut row = Row::new(place, kernel, place.variant.of_all(), Direction::Slope, &SLOPE);
            row.case = format!("{}, input {}", case.name, slope.input);
            row.max_abs = (slope.analytic - slope.numeric).abs();
            row.max_relative = slope.relative_error();
            row.seconds = start.elapsed().as_secs_f64();
            if slope.relative_error().is_nan() || slope.relative_error() >= SLOPE.relative {
                let (analytic, numeric) = (slope.analytic, slope.numeric);
                row.fail(format!(
                    "slope along a direction: {analytic:e} by the gradient, {numeric:e} by a central difference"
                ));
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Breakable, CpuExecutor};

    #[test]
    fn a_case_that_is_broken_off_between_its_kernels_fails() {
        let device = &mut CpuExecutor::<f32>::new();
        let ends = |case: &Case, device: &mut CpuExecutor<f32>| {
            let recorded = case.record(device).unwrap();
            let kernels: Vec<&'static KernelDef> = recorded.recording.dispatches().map(|d| d.kernel).collect();
            (kernels[0], kernels[kernels.len() - 1])
        };
        let cases = quick_cases();
        let differ = |case: &&Case| {
            let (first, last) = ends(case, &mut CpuExecutor::<f32>::new());
            !std::ptr::eq(first, last)
        };
        let case = cases.iter().find(differ).expect("some case has several kernels");
        let (first, _) = ends(case, device);
        let place = Place { device: "cpu", variant: Variant::Reference, case: &case.name };
        // The first kernel is checked elsewhere, and running it fails.
        let (rows, e) =
            check_case(&mut Breakable::new(device, &mut || true), place, case, None, &|k| !std::ptr::eq(k, first));
        assert!(e.is_some() && rows.len() == 1, "{rows:?}");
        assert_eq!((rows[0].status, rows[0].reason.as_str()), (Status::Failed, "stopped"));
        let (rows, e) = check_case(device, place, case, None, &|_| true);
        assert!(e.is_none() && rows.iter().all(|row| row.status == Status::Passed), "{rows:?}");
    }
}
