//! The report on a study so far: `report.md` with tables, comparison and settings, and plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::cell::{Cell, CellName, TrainingRecord};
use super::plan::{Arm, StudyPlan, StudyTask};
use super::statistics::{compare, mean_and_spread};
use crate::atomic_file::write_file;
use crate::error::Result;
use crate::plot::{Axis, LineChart, Scale, Series, save};

/// The cells found in a study's folder, and those missing.
struct Found<'a> {
    plan: &'a StudyPlan,
    cells: Vec<Cell>,
    missing: Vec<CellName>,
}

impl Found<'_> {
    fn of(&self, arm: Arm, attention: &str) -> Vec<Cell> {
        let is_wanted = |c: &&Cell| c.name.arm == arm && c.name.attention == attention;
        self.cells.iter().filter(is_wanted).cloned().collect()
    }

    /// Mean over seeds, standard deviation over seeds, and number of seeds.
    fn score(&self, arm: Arm, attention: &str, metric: usize) -> Option<(f64, Option<f64>, usize)> {
        let means: Vec<f64> = self.of(arm, attention).iter().map(|c| c.means[metric]).collect();
        let (mean, spread) = mean_and_spread(&means);
        (!means.is_empty()).then_some((mean, spread, means.len()))
    }

    fn metrics(&self) -> Vec<String> {
        self.cells.first().map(|c| c.metrics.clone()).unwrap_or_default()
    }
}

/// Writes the report on the cells in `dir` and returns its files. `command` is the command line of
/// the study.
pub fn write_report(plan: &StudyPlan, dir: &Path, command: &str) -> Result<Vec<PathBuf>> {
    let (mut cells, mut missing) = (Vec::new(), Vec::new());
    for name in CellName::all(plan) {
        match name.read(dir)? {
            Some(cell) => cells.push(cell),
            None => missing.push(name),
        }
    }
    let found = Found { plan, cells, missing };
    let mut written = Vec::new();
    for (i, metric) in found.metrics().iter().enumerate() {
        let chart = chart(&found, i, metric);
        written.extend(save(dir, &metric.replace(' ', "-"), chart.to_svg()?, chart.to_png()?)?);
    }
    let path = dir.join("report.md");
    write_file(&path, text(&found, dir, command)?)?;
    written.push(path);
    Ok(written)
}

fn chart(found: &Found<'_>, metric: usize, name: &str) -> LineChart {
    let policies = found.plan.policies().unwrap_or_default();
    let mut series = Vec::new();
    for arm in Arm::ALL {
        let of = |p: &crate::eval::Policy| Some((p.compression(), found.score(arm, p.name(), metric)?.0));
        let mut points: Vec<(f64, f64)> = policies.iter().filter(|p| !p.is_control()).filter_map(of).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.push(Series { label: arm.name().to_string(), points });
    }
    let ticks = policies.iter().map(|p| p.compression()).collect();
    LineChart {
        title: format!("{name} on {}", what(found.plan)),
        subtitle: format!("{}, sink {}, lag {}", model(found.plan), found.plan.sink, found.plan.lag),
        x: Axis::new("compression of a partition (times; 1 is dense)", Scale::Log).with_ticks(ticks),
        y: Axis::new(format!("{name}, mean over seeds"), Scale::Linear),
        series,
    }
}

fn model(plan: &StudyPlan) -> String {
    Path::new(&plan.model).file_name().map_or(plan.model.clone(), |n| n.to_string_lossy().into_owned())
}

fn what(plan: &StudyPlan) -> String {
    match plan.task {
        StudyTask::Needle => format!("pass keys in {} tokens", plan.length),
        StudyTask::Qa => format!("questions about {} tokens of documents", plan.length),
    }
}

fn text(found: &Found<'_>, dir: &Path, command: &str) -> Result<String> {
    let plan = found.plan;
    let mut text = format!("# {} on {}\n\n", model(plan), what(plan));
    let done = found.cells.len();
    let all = done + found.missing.len();
    let _ = writeln!(
        text,
        "{} held-out questions for each cell; {done} of {all} cells are computed. Tuned models: mean over seeds \
        ± standard deviation over seeds; in brackets the number of seeds if it is not {}.\n",
        plan.samples,
        plan.seeds.len()
    );
    if let Some(layers) = found.cells.iter().find_map(|cell| cell.layers.as_ref()) {
        let _ = writeln!(text, "Of the model, {layers}.\n");
    }
    for (i, metric) in found.metrics().iter().enumerate() {
        table(&mut text, found, i, metric);
        let _ = writeln!(text, "![{metric}]({}.svg)\n", metric.replace(' ', "-"));
        comparison(&mut text, found, i, metric);
    }
    training(&mut text, found, dir)?;
    settings(&mut text, plan, command)?;
    if !found.missing.is_empty() {
        let names: Vec<String> = found.missing.iter().map(|n| format!("{} {}", n.model(), n.attention)).collect();
        let _ = writeln!(text, "\n## Not run yet\n\n{}.", names.join(", "));
    }
    Ok(text)
}

fn table(text: &mut String, found: &Found<'_>, metric: usize, name: &str) {
    let attentions = &found.plan.attentions;
    let _ = writeln!(text, "## {name}\n\n| | {} |\n|---|{}", attentions.join(" | "), "---:|".repeat(attentions.len()));
    for arm in Arm::ALL {
        let _ = write!(text, "| {} |", arm.name());
        for attention in attentions {
            let shown = match found.score(arm, attention, metric) {
                None => "-".to_string(),
                Some((mean, spread, n)) => {
                    let spread = spread.map(|s| format!(" ± {s:.2}")).unwrap_or_default();
                    let wanted = if arm == Arm::Base { 1 } else { found.plan.seeds.len() };
                    let count = if n == wanted { String::new() } else { format!(" ({n})") };
                    format!("{mean:.2}{spread}{count}")
                }
            };
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    text.push('\n');
}

fn comparison(text: &mut String, found: &Found<'_>, metric: usize, name: &str) {
    let mut rows = String::new();
    for attention in &found.plan.attentions {
        // Use only seeds that both arms have.
        let (mut dense, mut lrsa) = (found.of(Arm::DenseTuned, attention), found.of(Arm::LrsaTuned, attention));
        let seeds = |cells: &[Cell]| cells.iter().map(|c| c.name.seed).collect::<Vec<_>>();
        let (of_dense, of_lrsa) = (seeds(&dense), seeds(&lrsa));
        dense.retain(|c| of_lrsa.contains(&c.name.seed));
        lrsa.retain(|c| of_dense.contains(&c.name.seed));
        if let Some(c) = compare(&dense, &lrsa, metric) {
            let _ = writeln!(
                rows,
                "| {attention} | {:+.3} | {:+.3} to {:+.3} | {} | {} | {} | {} |",
                c.difference,
                c.interval.0,
                c.interval.1,
                if c.p < 1e-4 { "< 0.0001".to_string() } else { format!("{:.4}", c.p) },
                c.n,
                c.n_documents,
                dense.len()
            );
        }
    }
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "LRSA-tuned minus dense-tuned ({name}), paired by question after averaging over seeds: bootstrap over documents, \
        sign-flip test.\n\n| | difference | 95 % interval | p | questions | documents | seeds \
         |\n|---|---:|---:|---:|---:|---:|---:|\n{rows}"
    );
}

fn training(text: &mut String, found: &Found<'_>, dir: &Path) -> Result<()> {
    let mut rows = String::new();
    for arm in [Arm::DenseTuned, Arm::LrsaTuned] {
        for &seed in &found.plan.seeds {
            if let Some(r) = TrainingRecord::read(dir, arm, seed)? {
                let _ = writeln!(
                    rows,
                    "| {} | {seed} | {:.4} | {} | {:.0} | {:.0} |",
                    arm.name(),
                    r.last_loss,
                    r.tokens,
                    r.seconds,
                    r.peak_bytes as f64 / f64::from(1 << 20)
                );
            }
        }
    }
    if !rows.is_empty() {
        let _ = writeln!(
            text,
            "## Training\n\nThe loss is the mean of the last ten steps.\n\n| | seed | loss | tokens | seconds | MiB \
             |\n|---|---:|---:|---:|---:|---:|\n{rows}"
        );
    }
    Ok(())
}

fn settings(text: &mut String, plan: &StudyPlan, command: &str) -> Result<()> {
    let plan = serde_json::to_string_pretty(plan)?;
    let _ = writeln!(
        text,
        "## Settings\n\nThe command\n\n```sh\n{command}\n```\n\nruns the study and continues an interrupted one. `study.json`:\n\n\
         ```json\n{plan}\n```"
    );
    Ok(())
}
