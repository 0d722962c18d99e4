//! The checks of a mutant: every dispatch of every quick case, by kernel, cheap ones first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use longreach::conformance::all_cases;
use longreach::error::Result;
use longreach::gpu::{CpuExecutor, Dispatch, Executor, Features, KernelDef, WgpuExecutor};
use longreach::kernels::case::Tolerance;
use longreach::verify::dispatch_check::{DispatchCheck, Grid};
use longreach::verify::strict::strict;
use longreach::verify::walk;

/// Whether to run the kernel unchanged or in strict mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    Plain,
    Strict,
}

impl Mode {
    /// The kernel in this mode.
    pub(super) fn of(self, kernel: &'static KernelDef, features: Features) -> &'static KernelDef {
        match self {
            Mode::Plain => kernel,
            Mode::Strict => strict(kernel, features),
        }
    }
}

/// The check of one dispatch of one case.
pub(super) struct Check {
    check: DispatchCheck,
    tolerance: Tolerance,
    case: String,
    /// Time of the unchanged kernel in each mode and variant, including compilation if it compiles
    /// first; measured on demand.
    times: HashMap<(Mode, Features), Duration>,
}

/// The checks by kernel name.
pub(super) struct Suite(HashMap<String, Vec<Check>>);

impl Suite {
    /// Runs the quick cases whose name contains `filter` on the CPU and keeps a check for each
    /// dispatch.
    pub(super) fn record(filter: &str) -> Result<Self> {
        let mut checks: HashMap<String, Vec<Check>> = HashMap::new();
        for case in all_cases().into_iter().filter(|c| c.name.contains(filter)) {
            let mut cpu = CpuExecutor::<f32>::new();
            let recorded = case.record(&mut cpu)?;
            walk::visit(&mut cpu, &recorded.recording, |cpu, check| {
                check.run_in_place(cpu)?;
                let (tolerance, name) = (case.tolerance, case.name.clone());
                for check in check.alternatives(Features::ALL).into_iter().chain([check]) {
                    let (kernel, case) = (check.dispatch.kernel.name(), name.clone());
                    checks.entry(kernel).or_default().push(Check { check, tolerance, case, times: HashMap::new() });
                }
                Ok(())
            })?;
        }
        for list in checks.values_mut() {
            list.sort_by_cached_key(Check::cost);
        }
        Ok(Self(checks))
    }

    /// The checks of a kernel.
    pub(super) fn of(&mut self, kernel: &KernelDef) -> &mut [Check] {
        self.0.get_mut(&kernel.name()).map_or(&mut [], Vec::as_mut_slice)
    }
}

impl Check {
    /// Cost for sorting: first the constants, since they unroll code, and compiling it takes far
    /// longer than running a small case; then the number of bound elements.
    fn cost(&self) -> (u32, Vec<u32>, usize) {
        let d = &self.check.dispatch;
        (d.constants.iter().sum(), d.constants.clone(), d.spans.iter().map(|s| s.len).sum())
    }

    /// The name of the case.
    pub(super) fn case(&self) -> &str {
        &self.case
    }

    /// Time of the unchanged kernel. Fails if it does not pass, since mutants could not be tested
    /// then.
    pub(super) fn baseline(&mut self, device: &mut WgpuExecutor, mode: Mode) -> Result<Duration> {
        let variant = (mode, device.features());
        if let Some(time) = self.times.get(&variant) {
            return Ok(*time);
        }
        let start = Instant::now();
        let kernel = mode.of(self.check.dispatch.kernel, device.features());
        if let Some(why) = self.fails(device, kernel, mode)? {
            longreach::bail!(
                "the unchanged kernel fails, {mode:?}: {why}. Fix that first: `cargo test --test kernels`"
            );
        }
        Ok(*self.times.entry(variant).or_insert(start.elapsed()))
    }

    /// Runs a kernel in the given mode instead of the recorded one, on the recorded grid and on a
    /// folded one; returns how it differs from the reference.
    pub(super) fn fails(
        &self,
        device: &mut dyn Executor,
        kernel: &'static KernelDef,
        mode: Mode,
    ) -> Result<Option<String>> {
        let dispatch = Dispatch { kernel, ..self.check.dispatch.clone() };
        let grids: &[Grid] = match mode {
            Mode::Plain => &[Grid::Folded, Grid::Recorded],
            Mode::Strict => &[Grid::Recorded],
        };
        let mut runs = Vec::new();
        for &grid in grids {
            let (found, written) = self.check.run_guarded(device, &dispatch, grid)?;
            if let Some(wrong) = found.iter().find(|d| !self.tolerance.allows(d)) {
                return Ok(Some(format!("{}: {wrong}", self.case)));
            }
            runs.push(written);
        }
        let same = runs.windows(2).all(|w| w[0] == w[1]);
        Ok((!same)
            .then(|| format!("{}: {}: two runs gave different bits", self.case, self.check.dispatch.kernel.name())))
    }
}
