//! Known deviations: failures of certain backends, vendors and drivers that cannot be fixed here.
//!
//! Each entry states how the failure shows and the reason. A listed deviation that passes fails the
//! report, so that the list stays current.

use super::row::{Row, Status};
use crate::gpu::AdapterReport;

/// One entry. An empty text matches everything; a text matches if it is contained, ignoring case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deviation {
    /// `vulkan`, `metal`, `dx12` or `gl`.
    backend: &'static str,
    /// Vendor, as `info` names it.
    vendor: &'static str,
    /// Part of the driver's name and version.
    driver: &'static str,
    /// Part of the kernel's name.
    kernel: &'static str,
    /// Part of the variant.
    variant: &'static str,
    /// Part of the case's name.
    case: &'static str,
    /// Part of the failure's text: a failure of another kind is not excused.
    expected: &'static str,
    /// Why, with the driver's bug report where there is one.
    reason: &'static str,
}

/// The known deviations. None is known of the drivers that the reports in `docs/conformance/` were
/// made on.
const KNOWN: &[Deviation] = &[];

impl Deviation {
    fn is_on(&self, adapter: &AdapterReport) -> bool {
        contains(adapter.backend, self.backend)
            && contains(&adapter.vendor, self.vendor)
            && contains(&adapter.driver, self.driver)
    }

    fn is_about(&self, row: &Row) -> bool {
        contains(&row.kernel, self.kernel) && contains(&row.variant, self.variant) && contains(&row.case, self.case)
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

/// The entries that concern an adapter.
pub(super) fn on_adapter(adapter: &AdapterReport) -> Vec<&'static Deviation> {
    KNOWN.iter().filter(|d| d.is_on(adapter)).collect()
}

/// Excuses the expected failures of a row, and fails the row if an expected failure did not occur.
pub(super) fn apply(deviations: &[&Deviation], row: &mut Row) {
    let Some(deviation) = deviations.iter().find(|d| d.is_about(row)) else { return };
    match row.status {
        Status::Failed if contains(&row.reason, deviation.expected) => {
            row.status = Status::Known;
            row.reason = format!("{} ({})", deviation.reason, row.reason);
        }
        Status::Passed => row.fail(format!(
            "passes, but is listed as a known deviation ({}): remove it from the list, or narrow its driver",
            deviation.reason
        )),
        Status::Failed | Status::Known => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::row::{Direction, Place, Variant};
    use crate::kernels::case::Tolerance;

    const SUM: Deviation = Deviation {
        backend: "vulkan",
        vendor: "",
        driver: "pretend 1.2",
        kernel: "loss/sum",
        variant: "subgroups",
        case: "",
        expected: "not a number",
        reason: "the driver folds the guard away",
    };

    fn row(kernel: &str) -> Row {
        let place = Place { device: "pretended", variant: Variant::Reference, case: "loss: odd" };
        Row::new(place, kernel.to_string(), "Subgroups".to_string(), Direction::Forward, &Tolerance::SUMS)
    }

    #[test]
    fn an_expected_failure_is_known_and_another_is_not() {
        let mut expected = row("loss/sum");
        expected.fail("out[0] is Not a Number".to_string());
        apply(&[&SUM], &mut expected);
        assert_eq!(expected.status, Status::Known);
        assert!(expected.reason.contains("folds the guard") && expected.reason.contains("out[0]"));
        for (kernel, text) in [("loss/sum", "relative error 3"), ("loss/scale_by", "not a number")] {
            let mut other = row(kernel);
            other.fail(text.to_string());
            apply(&[&SUM], &mut other);
            assert_eq!((other.status, other.reason.as_str()), (Status::Failed, text));
        }
    }

    #[test]
    fn an_expected_failure_that_passes_is_a_failure() {
        let mut unexpected = row("loss/sum");
        apply(&[&SUM], &mut unexpected);
        assert_eq!(unexpected.status, Status::Failed);
        assert!(unexpected.reason.contains("remove it"), "{}", unexpected.reason);
        let mut other = row("norm/rms_norm");
        apply(&[&SUM], &mut other);
        assert_eq!(other.status, Status::Passed);
    }
}
