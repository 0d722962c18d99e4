//! Plots of a report: each metric against compression, and over depth and length if there are
//! several depths.

use std::path::{Path, PathBuf};

use super::report::{EvalReport, Row};
use crate::error::Result;
use crate::plot::{Axis, HeatMap, LineChart, Scale, Series, save};

/// Writes the plots to a folder as SVG and PNG. Returns the files.
pub fn plots(report: &EvalReport, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for metric in &report.metrics {
        let chart = against_compression(report, metric);
        let stem = format!("{}-{}", report.task, metric.replace(' ', "-"));
        written.extend(save(dir, &stem, chart.to_svg()?, chart.to_png()?)?);
    }
    for attention in report.attentions() {
        if let Some(map) = over_depth(report, attention) {
            let stem = format!("{}-depth-{attention}", report.task);
            written.extend(save(dir, &stem, map.to_svg()?, map.to_png()?)?);
        }
    }
    Ok(written)
}

/// Name of a row's series. Each kind of control has its own series; all series start with the dense
/// model.
fn series_of(row: &Row) -> &str {
    row.attention.rsplit_once('-').map_or("LRSA", |(control, _)| control)
}

fn against_compression(report: &EvalReport, metric: &str) -> LineChart {
    let mut series: Vec<Series> = Vec::new();
    let mut names: Vec<&str> = report.rows.iter().map(series_of).collect();
    names.dedup();
    let lengths = report.lengths();
    for name in names {
        for &length in &lengths {
            let mut points: Vec<(f64, f64)> = Vec::new();
            for row in report.rows.iter().filter(|r| r.length == length) {
                let is_wanted = series_of(row) == name || row.attention == "dense";
                let place = row.compression;
                if !is_wanted || points.iter().any(|p| p.0 == place) {
                    continue;
                }
                points.extend(report.mean(&row.attention, Some(length), metric).map(|(mean, _)| (place, mean)));
            }
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let label = if lengths.len() > 1 { format!("{name}, {length}") } else { name.to_string() };
            if !series.iter().any(|s| s.label == label) {
                series.push(Series::new(label, points));
            }
        }
    }
    let mut ticks: Vec<f64> = report.rows.iter().map(|r| r.compression).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let model = model_name(report);
    LineChart {
        title: format!("{}: {metric}", report.task),
        subtitle: format!("{model}, sink {}, lag {}", report.sink, report.lag),
        x: Axis::new("compression of a partition (times; 1 is dense)", Scale::Log).with_ticks(ticks),
        y: Axis::new(metric, Scale::Linear),
        series,
    }
}

fn model_name(report: &EvalReport) -> String {
    let last = |path: &str| Path::new(path).file_name().map_or(path.to_string(), |n| n.to_string_lossy().into_owned());
    let adapter = report.adapter.as_deref().map(|a| format!(" with {}", last(a))).unwrap_or_default();
    format!("{}{adapter}", last(&report.model))
}

/// A heat map over depth and length. `None` if the report has fewer than two depths.
fn over_depth(report: &EvalReport, attention: &str) -> Option<HeatMap> {
    let metric = report.metrics.first()?;
    let rows: Vec<&Row> = report.rows.iter().filter(|r| r.attention == attention).collect();
    let mut depths: Vec<f64> = rows.iter().filter_map(|r| r.depth).collect();
    depths.sort_by(f64::total_cmp);
    depths.dedup();
    if depths.len() < 2 {
        return None;
    }
    let lengths = report.lengths();
    let value = |depth: f64, length: usize| {
        let row = rows.iter().find(|r| r.depth == Some(depth) && r.length == length)?;
        row.values.get(metric).copied()
    };
    Some(HeatMap {
        title: format!("{}, {attention}: {metric}", report.task),
        subtitle: format!("{}, sink {}, lag {}", model_name(report), report.sink, report.lag),
        x_label: "length of the prompt (tokens)".into(),
        y_label: "depth of the answer".into(),
        columns: lengths.iter().map(usize::to_string).collect(),
        rows: depths.iter().map(|d| format!("{:.0} %", 100.0 * d)).collect(),
        values: depths.iter().map(|&d| lengths.iter().map(|&l| value(d, l)).collect()).collect(),
    })
}
