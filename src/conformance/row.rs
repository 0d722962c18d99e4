//! A row of the conformance report: one kernel in one case, one way, on one device.

use std::time::Instant;

use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::gpu::{Dispatch, Executor, Features, KernelDef};
use crate::kernels::case::Tolerance;
use crate::verify::Mismatch;
use crate::verify::dispatch_check::{DispatchCheck, Grid};
use crate::verify::strict;

/// Which part of an op, or of a run, a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The op's result.
    Forward,
    /// Its gradients.
    Backward,
    /// Its gradients against difference quotients, in f64.
    Slope,
    /// A dispatch within a whole training step, prefill or decode.
    Step,
    /// Its translation to a driver's language.
    Translation,
}

impl Direction {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
            Direction::Slope => "slope",
            Direction::Step => "step",
            Direction::Translation => "translation",
        }
    }
}

/// What a row came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Within tolerance.
    Passed,
    /// Wrong, as the table of known deviations expects.
    Known,
    /// Wrong; or right where a deviation is listed, so that the list stays true.
    Failed,
}

impl Status {
    /// As it is printed: readable without colour.
    pub fn name(self) -> &'static str {
        match self {
            Status::Passed => "pass",
            Status::Known => "known deviation",
            Status::Failed => "FAIL",
        }
    }
}

/// One kernel in one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the adapter and its backend, or `cpu`.
    pub device: String,
    /// `family/kernel`, with the weight format where there are several.
    pub kernel: String,
    /// Which variant of the shader, and whether naga's runtime checks were in it.
    pub variant: String,
    /// Which way.
    pub direction: Direction,
    /// Name of the case.
    pub case: String,
    /// What it came to.
    pub status: Status,
    /// Largest absolute error against the f64 reference.
    #[serde(serialize_with = "finite")]
    pub max_abs: f64,
    /// Largest error as a fraction of the largest magnitude in its buffer, or of the magnitude below which the tolerance no longer
    /// shrinks with it.
    #[serde(serialize_with = "finite")]
    pub max_relative: f64,
    /// Largest error in units of the last place of the reference's value.
    #[serde(serialize_with = "finite")]
    pub max_ulp: f64,
    /// What is wrong; where nothing is, why the tolerance is right.
    pub reason: String,
    /// Time of the check, with compilation, reference and read-back.
    pub seconds: f64,
}

/// JSON has no infinity.
fn finite<S: Serializer>(x: &f64, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_f64(if x.is_finite() { *x } else { f64::MAX })
}

/// How kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// As their Rust references.
    Reference,
    /// As shaders, in the variants that a device's features pick.
    Shader { features: Features, run: Run },
}

/// What is done to a shader before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Nothing.
    Trusted,
    /// naga adds its runtime checks.
    Checked,
    /// What WGSL leaves to the device is made to go wrong: see [`strict`].
    Strict,
}

impl Variant {
    /// The variant column of a kernel's rows.
    pub(super) fn of(self, kernel: &KernelDef) -> String {
        self.with(kernel.features())
    }

    /// The checks of the alternatives that run in this variant. A reference has none: it is theirs as well.
    pub(super) fn alternatives(self, check: &DispatchCheck) -> Vec<DispatchCheck> {
        match self {
            Variant::Reference => vec![],
            Variant::Shader { features, .. } => check.alternatives(features),
        }
    }

    /// The same for whole runs.
    pub(super) fn of_all(self) -> String {
        self.with(Features::ALL)
    }

    fn with(self, known: Features) -> String {
        match self {
            Variant::Reference => "reference".to_string(),
            Variant::Shader { features, run } => {
                let run = match run {
                    Run::Trusted => "",
                    Run::Checked => ", bounds-checked",
                    Run::Strict => ", strict",
                };
                format!("{}{run}", known.and(features))
            }
        }
    }
}

/// What the rows of one walk have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) device: &'a str,
    pub(super) variant: Variant,
    pub(super) case: &'a str,
}

impl<'a> Place<'a> {
    /// The same place in another case.
    pub(super) fn named<'b>(&self, case: &'b str) -> Place<'b>
    where
        'a: 'b,
    {
        Place { case, ..*self }
    }
}

impl Row {
    /// A row without findings yet.
    pub(super) fn new(
        place: Place<'_>,
        kernel: String,
        variant: String,
        direction: Direction,
        tolerance: &Tolerance,
    ) -> Self {
        Self {
            device: place.device.to_string(),
            kernel,
            variant,
            direction,
            case: place.case.to_string(),
            status: Status::Passed,
            max_abs: 0.0,
            max_ulp: 0.0,
            max_relative: 0.0,
            reason: tolerance.reason.to_string(),
            seconds: 0.0,
        }
    }

    /// Takes in one check in the given variant: what its examination found, or the device's error. A strict variant leaves the check's own
    /// buffers alone.
    pub(super) fn examine(
        &mut self,
        device: &mut dyn Executor,
        check: &DispatchCheck,
        variant: Variant,
        tolerance: &Tolerance,
    ) -> Result<()> {
        match variant {
            Variant::Shader { run: Run::Strict, .. } => self.examine_alone(device, check, variant, tolerance),
            _ => {
                let start = Instant::now();
                let examined = check.examine(device);
                self.take(start, examined, tolerance)
            }
        }
    }

    /// As [`Row::examine`], in buffers of its own alone.
    pub(super) fn examine_alone(
        &mut self,
        device: &mut dyn Executor,
        check: &DispatchCheck,
        variant: Variant,
        tolerance: &Tolerance,
    ) -> Result<()> {
        let start = Instant::now();
        let kernel = match variant {
            Variant::Shader { features, run: Run::Strict } => strict(check.dispatch.kernel, features),
            _ => check.dispatch.kernel,
        };
        let dispatch = Dispatch { kernel, ..check.dispatch.clone() };
        let examined = check.run_guarded(device, &dispatch, Grid::Recorded).map(|(found, _)| found);
        self.take(start, examined, tolerance)
    }

    fn take(&mut self, start: Instant, examined: Result<Vec<Mismatch>>, tolerance: &Tolerance) -> Result<()> {
        self.seconds += start.elapsed().as_secs_f64();
        match examined {
            Ok(found) => found.iter().for_each(|d| self.add(d, tolerance)),
            Err(e) => {
                self.fail(e.to_string());
                return Err(e);
            }
        }
        Ok(())
    }

    /// Takes a mismatch in. The first that is not allowed gives the reason.
    pub(super) fn add(&mut self, d: &Mismatch, tolerance: &Tolerance) {
        self.max_abs = self.max_abs.max(d.max_abs);
        self.max_ulp = self.max_ulp.max(d.max_ulp);
        self.max_relative = self.max_relative.max(d.max_abs / tolerance.floor(d.scale));
        if self.status == Status::Passed && !tolerance.allows(d) {
            let Tolerance { relative, absolute, reason } = tolerance;
            self.fail(format!("{d}; allowed: {relative:e} of {:.3e} + {absolute:e} ({reason})", d.scale));
        }
    }

    /// Marks the row as failed.
    pub(super) fn fail(&mut self, reason: String) {
        self.status = Status::Failed;
        self.reason = reason;
    }
}

/// The row of a kernel and direction among `rows`, made where there is none.
pub(super) fn row_of<'r>(
    rows: &'r mut Vec<Row>,
    place: Place<'_>,
    kernel: &KernelDef,
    direction: Direction,
    tolerance: &Tolerance,
) -> &'r mut Row {
    let (name, variant) = (kernel.name(), place.variant.of(kernel));
    let same = |r: &Row| r.kernel == name && r.variant == variant && r.direction == direction;
    let at = rows.iter().position(same).unwrap_or_else(|| {
        rows.push(Row::new(place, name, variant, direction, tolerance));
        rows.len() - 1
    });
    &mut rows[at]
}
