//! Measuring: the time of each command, the rows of a benchmark, and what is made of them.

mod common;

use longreach::gpu::{Clock, CpuExecutor, Executor, Recording, Timing};
use longreach::kernels::case::{Case, Recorded};
use longreach::kernels::matmul;

/// A case with a large product among its dispatches, on the device.
fn product(device: &mut dyn Executor) -> Recorded {
    let case: Option<Case> = matmul::cases().into_iter().find(|c| c.bench);
    case.expect("matrix products have a case for benchmarks").record(device).unwrap()
}

/// Runs a recording with and without timing: same results, one positive time for each dispatch, and no more time in all than
/// passed on the host's clock.
fn timings_of_a_product(device: &mut dyn Executor) -> Vec<Timing> {
    let recorded = product(device);
    device.run(&recorded.recording).unwrap();
    let untimed = recorded.outputs[0].read(device).unwrap();
    let mut clear = Recording::new();
    clear.clear(recorded.outputs[0].span());
    device.run(&clear).unwrap();
    device.wait().unwrap();
    let start = std::time::Instant::now();
    let timings = device.run_timed(&recorded.recording).unwrap();
    let wall = start.elapsed().as_secs_f64();
    assert_eq!(timings.len(), recorded.recording.commands().len());
    assert_eq!(recorded.outputs[0].read(device).unwrap(), untimed);
    let total: f64 = timings.iter().map(|t| t.seconds).sum();
    assert!(total > 1e-4 && total <= wall, "{total} s of commands in {wall} s");
    let longest = timings.iter().map(|t| t.seconds).fold(0.0, f64::max);
    assert!(timings[0].seconds >= 0.1 * longest, "the forward product is no small part: {timings:?}");
    timings
}

#[test]
fn the_cpu_executor_times_each_command_by_the_hosts_clock() {
    let timings = timings_of_a_product(&mut CpuExecutor::<f32>::new());
    assert!(timings.iter().all(|t| t.clock == Clock::Host));
}

#[test]
fn a_gpu_times_each_command_by_its_own_clock_where_it_has_one() {
    let Some(mut device) = common::software_device() else { return };
    let timings = timings_of_a_product(&mut device);
    let has_clock = common::test_adapter_or_skip().unwrap().features.contains(&"timestamps");
    let clock = if has_clock { Clock::Device } else { Clock::Host };
    assert!(timings.iter().all(|t| t.clock == clock), "{timings:?}");
}

#[test]
fn a_gpu_without_timestamps_goes_by_the_hosts_clock() {
    let Some(mut device) = common::minimal_device() else { return };
    let timings = timings_of_a_product(&mut device);
    assert!(timings.iter().all(|t| t.clock == Clock::Host));
}
