//! Plots of time and memory against sequence length, from a benchmark report.

use std::path::{Path, PathBuf};

use super::report::{Activity, ModelRow, Report};
use crate::error::{Context, Result};
use crate::plot::{Axis, LineChart, Scale, Series, save};

/// A plot: its file name, its title, the quantity it shows, and the rows it includes.
struct Picture {
    stem: &'static str,
    title: &'static str,
    quantity: &'static str,
    value: fn(&ModelRow) -> Option<f64>,
    activities: &'static [Activity],
    unit: fn(f64) -> (f64, &'static str),
}

const TRAINING: &[Activity] = &[Activity::TrainLora, Activity::TrainFull];

const PICTURES: [Picture; 6] = [
    Picture {
        stem: "attention-time",
        title: "Time of attention, forward and backward",
        quantity: "time of both directions",
        value: |row| row.best_seconds.or(row.first_seconds),
        activities: &[Activity::Attention],
        unit: time_unit,
    },
    Picture {
        stem: "train-time",
        title: "Time of a training step",
        quantity: "time of a step",
        value: |row| row.median_seconds,
        activities: TRAINING,
        unit: time_unit,
    },
    Picture {
        stem: "prefill-time",
        title: "Time to feed a prompt",
        quantity: "time to feed the prompt",
        value: |row| row.median_seconds,
        activities: &[Activity::Prefill],
        unit: time_unit,
    },
    Picture {
        stem: "decode-time",
        title: "Time of one generated token",
        quantity: "time of a token",
        value: |row| row.median_seconds,
        activities: &[Activity::Decode],
        unit: time_unit,
    },
    Picture {
        stem: "memory",
        title: "Peak memory on the device",
        quantity: "peak memory",
        value: |row| Some(row.peak_bytes as f64),
        activities: &[Activity::TrainLora, Activity::TrainFull, Activity::Prefill],
        unit: memory_unit,
    },
    Picture {
        stem: "kv-cache",
        title: "Size of the KV cache",
        quantity: "KV cache",
        value: |row| Some(row.kv_bytes as f64),
        activities: &[Activity::Decode],
        unit: memory_unit,
    },
];

/// Factor and name of the unit for times up to `most` seconds.
fn time_unit(most: f64) -> (f64, &'static str) {
    if most < 2.0 { (1e3, "ms") } else { (1.0, "s") }
}

/// Factor and name of the unit for sizes up to `most` bytes.
fn memory_unit(most: f64) -> (f64, &'static str) {
    let mib = 1.0 / f64::from(1 << 20);
    if most * mib < 2048.0 { (mib, "MiB") } else { (mib / 1024.0, "GiB") }
}

/// `LoRA, streamed, LRSA 4x`: what tells a row from the others of the plot.
fn series_name(row: &ModelRow, rows: &[&ModelRow]) -> String {
    let mut parts = Vec::new();
    if rows.iter().any(|other| other.activity != row.activity) {
        let name = row.activity.name();
        parts.push(name.strip_prefix("train, ").unwrap_or(name).to_string());
    }
    let is_alike = |other: &&&ModelRow| other.chunk.is_some() == row.chunk.is_some();
    if row.recompute && (row.chunk.is_none() || rows.iter().filter(is_alike).any(|other| !other.recompute)) {
        parts.push("recomputed".to_string());
    }
    if row.chunk.is_some() {
        parts.push("streamed".to_string());
    }
    parts.push(row.attention.replacen("lrsa", "LRSA", 1));
    parts.join(", ")
}

fn chart(picture: &Picture, report: &Report) -> Option<LineChart> {
    let rows: Vec<&ModelRow> = report.runs.iter().filter(|r| picture.activities.contains(&r.activity)).collect();
    let most = rows.iter().copied().filter_map(picture.value).fold(0.0, f64::max);
    let (factor, unit) = (picture.unit)(most);
    let mut series: Vec<Series> = Vec::new();
    for &row in &rows {
        let Some(value) = (picture.value)(row).filter(|&v| v > 0.0) else { continue };
        let label = series_name(row, &rows);
        let point = (row.length as f64, value * factor);
        match series.iter_mut().find(|s| s.label == label) {
            Some(found) => found.points.push(point),
            None => series.push(Series::new(label, vec![point])),
        }
    }
    series.iter_mut().for_each(|s| s.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let mut lengths: Vec<f64> = rows.iter().map(|r| r.length as f64).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.dedup();
    (!series.is_empty()).then(|| LineChart {
        title: picture.title.to_string(),
        subtitle: format!("{}, on {}", report.model, report.device),
        x: Axis::new("length of the sequence (tokens)", Scale::Log).with_ticks(lengths),
        y: Axis::new(format!("{} ({unit})", picture.quantity), Scale::Log),
        series,
    })
}

/// Writes every plot for which the report has rows to a folder, as SVG and PNG; returns the files.
pub fn plots(report: &Report, dir: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let mut written = Vec::new();
    for picture in &PICTURES {
        let Some(chart) = chart(picture, report) else { continue };
        written.extend(save(dir, picture.stem, chart.to_svg()?, chart.to_png()?)?);
    }
    Ok(written)
}
