//! Times each kernel of the cases marked for benchmarks, alone and warm.

use super::measure::time_command;
use super::report::KernelRow;
use super::roofline::Roofline;
use crate::error::Result;
use crate::gpu::{Command, Dispatch, Executor};
use crate::kernels::case::Case;

/// The cases marked for benchmarks.
fn bench_cases() -> Vec<Case> {
    let all = crate::kernels::cases().into_iter().chain(crate::attention::cases());
    all.filter(|c| c.bench).collect()
}

/// Measures every kernel of the benchmark cases whose label or case name contains `only`, for about
/// `budget` seconds each, and passes each row to `watch`.
pub fn kernel_rows(
    device: &mut dyn Executor,
    roofline: &Roofline,
    only: &str,
    budget: f64,
    watch: &mut dyn FnMut(&KernelRow),
) -> Result<Vec<KernelRow>> {
    let mut rows = Vec::new();
    for case in bench_cases() {
        let recorded = case.record(device)?;
        let wanted = |d: &Dispatch| d.kernel.label.contains(only) || case.name.contains(only);
        let recording = recorded.recording.promoted();
        if !recording.dispatches().any(wanted) {
            continue;
        }
        device.run(&recording)?; // fills every buffer with realistic data
        let mut of_case: Vec<KernelRow> = Vec::new();
        for command in recording.commands() {
            let Command::Dispatch(d) = command else { continue };
            if !wanted(d) {
                continue;
            }
            let work = d.work(&mut |span| device.read_words(span))?;
            let kernel = device.kernel_of(d);
            // The largest of several dispatches of one kernel represents it.
            let same = of_case.iter().position(|r| r.kernel == kernel.name());
            if same.is_some_and(|i| (of_case[i].flops, of_case[i].bytes) >= (work.flops, work.bytes)) {
                continue;
            }
            let samples = time_command(device, command, budget)?;
            let variant = if device.runs_references() {
                "reference".to_string()
            } else {
                device.features().and(kernel.features()).to_string()
            };
            let row = KernelRow::new(kernel.name(), variant, case.name.clone(), work, &samples, roofline);
            match same {
                Some(i) => of_case[i] = row,
                None => of_case.push(row),
            }
        }
        of_case.iter().for_each(&mut *watch);
        rows.extend(of_case);
    }
    Ok(rows)
}
