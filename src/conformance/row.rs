//! A row of the report: one kernel, in one case and direction, on one device.

use std::time::Instant;

use serde::{Serialize, Serializer};

use crate::error::Result;
use crate::gpu::{Dispatch, Executor, Features, KernelDef};
use crate::kernels::case::Tolerance;
use crate::verify::Mismatch;
use crate::verify::dispatch_check::{DispatchCheck, Grid};
use crate::verify::strict;

/// The part of an op or of a run that a row checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The op's result.
    Forward,
    /// Its gradients.
    Backward,
    /// Its gradients against central differences, in f64.
    Slope,
    /// A dispatch within a whole training step, prefill or decode.
    Step,
    /// Its translation to a driver's language.
    Translation,
}

impl Direction {
    /// Display name.
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

/// The result of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Within tolerance.
    Passed,
    /// Wrong, as listed in the known deviations.
    Known,
    /// Wrong; or correct despite a listed deviation, so that the list stays current.
    Failed,
}

impl Status {
    /// Display name, readable without colour.
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
    /// `family/kernel`, with the weight format if there are several.
    pub kernel: String,
    /// The shader variant, and whether it had naga's runtime checks.
    pub variant: String,
    /// The direction.
    pub direction: Direction,
    /// Name of the case.
    pub case: String,
    /// The result.
    pub status: Status,
    /// Largest absolute error against the f64 reference.
    #[serde(serialize_with = "finite")]
    pub max_abs: f64,
    /// Largest error relative to the largest magnitude in its buffer, or to the magnitude below
    /// which the tolerance stops shrinking.
    #[serde(serialize_with = "finite")]
    pub max_relative: f64,
    /// Largest error in units in the last place of the reference's value.
    #[serde(serialize_with = "finite")]
    pub max_ulp: f64,
    /// The failure; for a passed row, the justification of the tolerance.
    pub reason: String,
    /// Seconds of the check, including compilation, reference and read-back.
    pub seconds: f64,
}

/// Replaces infinity, which JSON cannot represent.
fn finite<S: Serializer>(x: &f64, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.serialize_f64(if x.is_finite() { *x } else { f64::MAX })
}

/// How kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// As their Rust references.
    Reference,
    /// As shaders, in the variants for a set of features.
    Shader { features: Features, run: Run },
}

/// How a shader is modified before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Unmodified.
    Trusted,
    /// With naga's runtime checks.
    Checked,
    /// Behaviour that WGSL leaves undefined becomes an error: see [`strict`].
    Strict,
}

impl Variant {
    /// The `variant` column of a kernel's rows.
    pub(super) fn of(self, kernel: &KernelDef) -> String {
        self.with(kernel.features())
    }

    /// The checks of the alternatives that run in this variant. Empty for references: alternatives
    /// share them.
    pub(super) fn alternatives(self, check: &DispatchCheck) -> Vec<DispatchCheck> {
        match self {
            Variant::Reference => vec![],
            Variant::Shader { features, .. } => check.alternatives(features),
        }
    }

    /// The `variant` column of whole runs.
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

/// Common fields of the rows of one walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) device: &'a str,
    pub(super) variant: Variant,
    pub(super) case: &'a str,
}

impl<'a> Place<'a> {
    /// The same place with another case name.
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

    /// Adds one check in the given variant: its mismatches, or the device's error. A strict variant
    /// runs in buffers of its own only.
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

    /// Like [`Row::examine`], in buffers of its own only.
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

    /// Adds a mismatch. The first one beyond the tolerance becomes the reason.
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

/// The row of a kernel and direction in `rows`, added if missing.
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
