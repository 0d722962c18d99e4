//! The report as a terminal table: a line for each kernel and variant, then every failure in full.

use super::report::{DeviceReport, Report};
use super::row::{Direction, Row, Status};

/// A summary of the rows of one kernel and variant.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    pub(super) kernel: &'a str,
    pub(super) variant: &'a str,
    pub(super) n_passed: usize,
    pub(super) n_known: usize,
    pub(super) n_failed: usize,
    pub(super) max_abs: f64,
    pub(super) max_relative: f64,
    pub(super) max_ulp: f64,
    pub(super) seconds: f64,
    pub(super) rows: Vec<&'a Row>,
}

impl Line<'_> {
    pub(super) fn status(&self) -> Status {
        match (self.n_failed, self.n_known) {
            (0, 0) => Status::Passed,
            (0, _) => Status::Known,
            _ => Status::Failed,
        }
    }

    /// `12/12`.
    pub(super) fn cases(&self) -> String {
        format!("{}/{}", self.n_passed, self.rows.len())
    }
}

/// Groups rows into lines: by kernel in order of first appearance, then by variant.
pub(super) fn lines(rows: &[Row]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for row in rows {
        let at = lines.iter().position(|l| l.kernel == row.kernel && l.variant == row.variant);
        let at = at.unwrap_or_else(|| {
            let after = lines.iter().rposition(|l| l.kernel == row.kernel).map_or(lines.len(), |i| i + 1);
            let (kernel, variant) = (row.kernel.as_str(), row.variant.as_str());
            let (n_passed, n_known, n_failed, rows) = (0, 0, 0, vec![]);
            let (max_abs, max_relative, max_ulp, seconds) = (0.0, 0.0, 0.0, 0.0);
            lines.insert(
                after,
                Line { kernel, variant, n_passed, n_known, n_failed, max_abs, max_relative, max_ulp, seconds, rows },
            );
            after
        });
        let line = &mut lines[at];
        match row.status {
            Status::Passed => line.n_passed += 1,
            Status::Known => line.n_known += 1,
            Status::Failed => line.n_failed += 1,
        }
        line.max_abs = line.max_abs.max(row.max_abs);
        line.max_relative = line.max_relative.max(row.max_relative);
        line.max_ulp = line.max_ulp.max(row.max_ulp);
        line.seconds += row.seconds;
        line.rows.push(row);
    }
    lines
}

/// The whole report as text.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for device in &report.devices {
        push_device(&mut text, device);
    }
    push_paper(&mut text, report);
    push_failures(&mut text, report);
    let [passed, known, failed] = [Status::Passed, Status::Known, Status::Failed].map(|s| report.count(s));
    text.push_str(&format!("{passed} passed, {known} known deviations, {failed} failed\n"));
    text
}

/// Summarises the results that need no device.
fn push_paper(text: &mut String, report: &Report) {
    if report.paper.is_empty() {
        return;
    }
    text.push_str("no device\n");
    let of = |direction: Direction| {
        let rows = report.paper.iter().filter(move |r| r.direction == direction);
        let right = rows.clone().filter(|r| r.status == Status::Passed).count();
        (right, rows.count())
    };
    let (right, n) = of(Direction::Slope);
    text.push_str(&format!("  gradients against difference quotients, f64 references: {right} of {n} agree\n"));
    for t in report.targets() {
        let (validated, translated, failed) = (t.validated, t.translated, t.failed);
        let run =
            if t.run_on.is_empty() { "not run here".to_string() } else { format!("run on {}", t.run_on.join(", ")) };
        text.push_str(&format!(
            "  {:7}  {validated:>3} validated, {translated:>3} translated only, {failed} failed; {run}\n",
            t.target
        ));
    }
    text.push('\n');
}

fn push_device(text: &mut String, device: &DeviceReport) {
    let features =
        if device.features.is_empty() { "no optional features".to_string() } else { device.features.join(", ") };
    let limits = if device.webgpu_limits { "WebGPU's default limits" } else { "the adapter's own limits" };
    text.push_str(&format!("{}\n  {} ({features}; {limits})\n", device.name, device.driver));
    device.notes.iter().for_each(|n| text.push_str(&format!("  note: {n}\n")));
    let lines = lines(&device.rows);
    let kernel = lines.iter().map(|l| l.kernel.len()).max().unwrap_or(0).max("kernel".len());
    let variant = lines.iter().map(|l| l.variant.len()).max().unwrap_or(0).max("variant".len());
    text.push_str(&format!(
        "\n  {:kernel$}  {:variant$}  {:>7}  {:>9}  {:>8}  {:>7}  {:>7}\n",
        "kernel", "variant", "cases", "max error", "of scale", "ULP", "seconds"
    ));
    for line in &lines {
        let status = line.status();
        let mark = if status == Status::Passed { String::new() } else { format!("  {}", status.name()) };
        text.push_str(&format!(
            "  {:kernel$}  {:variant$}  {:>7}  {:>9}  {:>8}  {:>7}  {:>7.2}{mark}\n",
            line.kernel,
            line.variant,
            line.cases(),
            error(line.max_abs),
            error(line.max_relative),
            ulps(line.max_ulp),
            line.seconds
        ));
    }
    text.push_str(&format!("\n  {} rows in {:.1} s\n\n", device.rows.len(), device.seconds));
}

/// An absolute error in few characters.
pub(super) fn error(x: f64) -> String {
    if x == 0.0 { "exact".to_string() } else { format!("{x:.1e}") }
}

/// Units in the last place in few characters.
pub(super) fn ulps(x: f64) -> String {
    match x {
        0.0 => "0".to_string(),
        x if x < 100.0 => format!("{x:.1}"),
        x if x < 1e5 => format!("{x:.0}"),
        x => format!("{x:.0e}"),
    }
}

fn push_failures(text: &mut String, report: &Report) {
    let bad: Vec<&Row> = report.rows().filter(|r| r.status != Status::Passed).collect();
    for row in &bad {
        let Row { device, kernel, variant, case, reason, .. } = row;
        let direction = if row.direction == Direction::Step { "" } else { row.direction.name() };
        let status = row.status.name();
        text.push_str(&format!("{status}: {kernel} [{variant}] {direction} on {device}, case {case}\n  {reason}\n"));
    }
    if !bad.is_empty() {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::row::{Place, Variant};
    use crate::kernels::case::Tolerance;

    fn row(kernel: &str, variant: &str) -> Row {
        let place = Place { device: "pretended", variant: Variant::Reference, case: "odd" };
        Row::new(place, kernel.to_string(), variant.to_string(), Direction::Forward, &Tolerance::SUMS)
    }

    #[test]
    fn lines_gather_a_kernel_in_all_its_variants() {
        let mut wrong = row("b", "portable");
        wrong.fail("x".to_string());
        let rows = [row("a", "portable"), row("b", "portable"), row("a", "checked"), wrong];
        let lines = lines(&rows);
        let names: Vec<(&str, &str, String)> = lines.iter().map(|l| (l.kernel, l.variant, l.cases())).collect();
        let line = |k, v, c: &str| (k, v, c.to_string());
        assert_eq!(names, [line("a", "portable", "1/1"), line("a", "checked", "1/1"), line("b", "portable", "1/2")]);
        assert_eq!(lines[2].status(), Status::Failed);
    }

    #[test]
    fn failures_are_told_in_full() {
        let mut wrong = row("loss/sum", "portable");
        wrong.fail("out[3] is off".to_string());
        let text = table(&Report { paper: vec![wrong], ..Report::default() });
        assert!(text.contains("FAIL: loss/sum [portable] forward on pretended, case odd\n  out[3] is off"), "{text}");
        assert!(text.ends_with("0 passed, 0 known deviations, 1 failed\n"), "{text}");
    }
}
