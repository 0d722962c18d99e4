//! The report as one self-contained HTML page, from the template `assets/conformance.html`.

use minijinja::{AutoEscape, Environment};
use serde_json::{Value, json};

use super::report::{DeviceReport, Report};
use super::row::{Direction, Row, Status};
use super::table::{Line, error, lines, ulps};
use crate::error::{Context, Result};

const TEMPLATE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/conformance.html"));

/// The page. `command` is the command line that reproduces the report.
pub fn page(report: &Report, command: &str) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_trim_blocks(true);
    environment.set_keep_trailing_newline(true);
    environment.add_template("page", TEMPLATE).context("reading the template of the report")?;
    let names: Vec<&str> = report.devices.iter().map(|d| d.name.as_str()).collect();
    let wrong: Vec<Value> = report.rows().filter(|r| r.status != Status::Passed).map(row_value).collect();
    let slopes = report.paper.iter().filter(|r| r.direction == Direction::Slope);
    let values = json!({
        "title": names.join(", "),
        "version": env!("CARGO_PKG_VERSION"),
        "command": command,
        "passed": report.count(Status::Passed),
        "known": report.count(Status::Known),
        "failed": report.count(Status::Failed),
        "wrong": wrong,
        "devices": report.devices.iter().map(device_value).collect::<Vec<_>>(),
        "slopes": slopes.clone().count(),
        "slopes_right": slopes.filter(|r| r.status == Status::Passed).count(),
        "targets": report.targets(),
    });
    let template = environment.get_template("page").context("reading the template of the report")?;
    template.render(values).context("writing the report as HTML")
}

/// CSS class of a status.
fn class(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Known => "known",
        Status::Failed => "failed",
    }
}

fn device_value(device: &DeviceReport) -> Value {
    let [low, high] = device.subgroup_sizes;
    let features = if device.features.is_empty() { "none".to_string() } else { device.features.join(", ") };
    json!({
        "name": device.name,
        "driver": device.driver,
        "vendor": device.vendor,
        "device_type": device.device_type,
        "rows": device.rows.len(),
        "seconds": format!("{:.1}", device.seconds),
        "features": features,
        "subgroups": if high == 0 { String::new() } else if low == high { low.to_string() } else { format!("{low} to {high}") },
        "notes": device.notes,
        "webgpu_limits": device.webgpu_limits,
        "limits": device.limits,
        "lines": lines(&device.rows).iter().map(line_value).collect::<Vec<_>>(),
    })
}

fn line_value(line: &Line<'_>) -> Value {
    json!({
        "kernel": line.kernel,
        "variant": line.variant,
        "status": class(line.status()),
        "label": line.status().name(),
        "cases": line.cases(),
        "max_abs": error(line.max_abs),
        "max_relative": error(line.max_relative),
        "max_ulp": ulps(line.max_ulp),
        "seconds": format!("{:.2}", line.seconds),
        "rows": line.rows.iter().map(|r| row_value(r)).collect::<Vec<_>>(),
    })
}

fn row_value(row: &Row) -> Value {
    json!({
        "device": row.device,
        "kernel": row.kernel,
        "variant": row.variant,
        "direction": row.direction.name(),
        "case": row.case,
        "status": class(row.status),
        "label": row.status.name(),
        "max_abs": error(row.max_abs),
        "max_relative": error(row.max_relative),
        "max_ulp": ulps(row.max_ulp),
        "reason": row.reason,
        "seconds": format!("{:.3}", row.seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::row::{Place, Variant};
    use crate::kernels::case::Tolerance;

    #[test]
    fn the_page_stands_alone_and_escapes_what_drivers_say() {
        let place = Place { device: "<b>driver</b>", variant: Variant::Reference, case: "odd" };
        let mut row =
            Row::new(place, "loss/sum".to_string(), "portable".to_string(), Direction::Forward, &Tolerance::SUMS);
        row.fail("x < y & \"z\"".to_string());
        let html = page(&Report { paper: vec![row], ..Report::default() }, "longreach check").unwrap();
        assert!(html.contains("&lt;b&gt;driver") && html.contains("x &lt; y &amp;"), "{html}");
        assert!(!html.contains("http") && !html.contains("<script"), "nothing is fetched or run");
    }
}
