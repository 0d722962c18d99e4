//! The report on a study so far: `report.md` with tables, comparison and settings, and plots.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::cell::{Cell, CellName, ModelName, TrainingRecord};
use super::plan::{StudyPlan, StudyTask};
use super::recipe::{BASE, Recipe, TrainedWith, display_name};
use super::statistics::{Comparison, compare, mean_and_spread};
use super::test_set::{Test, TestKind};
use crate::atomic_file::write_file;
use crate::error::Result;
use crate::plot::{Axis, LineChart, Scale, Series, save};

/// The cells found in a study's folder, and those missing.
struct Found<'a> {
    plan: &'a StudyPlan,
    cells: Vec<Cell>,
    missing: Vec<CellName>,
}

/// The cells of one test.
struct OfTest<'a> {
    plan: &'a StudyPlan,
    test: Option<Test>,
    cells: Vec<&'a Cell>,
}

impl Found<'_> {
    /// The tests with any cells.
    fn tests(&self) -> Vec<OfTest<'_>> {
        let all = std::iter::once(None).chain(self.plan.also.iter().copied().map(Some));
        let of = |test| {
            let cells = self.cells.iter().filter(|cell| cell.name.test == test).collect();
            OfTest { plan: self.plan, test, cells }
        };
        all.map(of).filter(|of| !of.cells.is_empty()).collect()
    }
}

impl OfTest<'_> {
    fn of(&self, arm: &str, attention: &str) -> Vec<Cell> {
        let is_wanted = |c: &&&Cell| c.name.model.arm == arm && c.name.attention == attention;
        self.cells.iter().filter(is_wanted).copied().cloned().collect()
    }

    /// Mean over seeds, standard deviation over seeds, and number of seeds.
    fn score(&self, arm: &str, attention: &str, metric: usize) -> Option<(f64, Option<f64>, usize)> {
        let means: Vec<f64> = self.of(arm, attention).iter().map(|c| c.means[metric]).collect();
        let (mean, spread) = mean_and_spread(&means);
        (!means.is_empty()).then_some((mean, spread, means.len()))
    }

    fn metrics(&self) -> Vec<String> {
        self.cells.first().map(|c| c.metrics.clone()).unwrap_or_default()
    }

    /// Title of a metric: `exact`, or `needle-4000: exact`.
    fn title(&self, metric: &str) -> String {
        self.test.map_or(metric.to_string(), |test| format!("{test}: {metric}"))
    }

    /// File name of a metric's plot, without its ending.
    fn file(&self, metric: &str) -> String {
        self.title(metric).replace(": ", "-").replace(' ', "-")
    }
}

/// Names of the models: the base model's, then the recipes'.
fn arms(plan: &StudyPlan) -> Vec<&str> {
    std::iter::once(BASE).chain(plan.recipes.iter().map(|recipe| recipe.name.as_str())).collect()
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
    for of_test in found.tests() {
        for (i, metric) in of_test.metrics().iter().enumerate() {
            let chart = chart(&of_test, i, metric);
            written.extend(save(dir, &of_test.file(metric), chart.to_svg()?, chart.to_png()?)?);
        }
    }
    let path = dir.join("report.md");
    write_file(&path, text(&found, dir, command)?)?;
    written.push(path);
    Ok(written)
}

fn chart(of_test: &OfTest<'_>, metric: usize, name: &str) -> LineChart {
    let plan = of_test.plan;
    let policies = plan.policies().unwrap_or_default();
    let mut series = Vec::new();
    for arm in arms(plan) {
        let of = |p: &crate::eval::Policy| Some((p.compression(), of_test.score(arm, p.name(), metric)?.0));
        let mut points: Vec<(f64, f64)> = policies.iter().filter(|p| !p.is_control()).filter_map(of).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        series.push(Series::new(display_name(arm), points));
    }
    let ticks = policies.iter().map(|p| p.compression()).collect();
    let what = of_test.test.map_or_else(|| what(plan), |test| test.to_string());
    LineChart {
        title: format!("{name} on {what}"),
        subtitle: format!("{}, sink {}, lag {}", model(plan), plan.sink, plan.lag),
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
        StudyTask::Needle | StudyTask::Retrieval => format!("pass keys in {} tokens", plan.length),
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
    for of_test in found.tests() {
        for (i, metric) in of_test.metrics().iter().enumerate() {
            let title = of_test.title(metric);
            table(&mut text, &of_test, i, &title);
            let _ = writeln!(text, "![{title}]({}.svg)\n", of_test.file(metric));
            comparisons(&mut text, &of_test, i, &title);
        }
    }
    training(&mut text, found, dir)?;
    settings(&mut text, plan, command)?;
    if !found.missing.is_empty() {
        let names: Vec<String> = found.missing.iter().map(CellName::to_string).collect();
        let _ = writeln!(text, "\n## Not run yet\n\n{}.", names.join(", "));
    }
    Ok(text)
}

fn table(text: &mut String, of_test: &OfTest<'_>, metric: usize, title: &str) {
    let (plan, is_perplexity) = (of_test.plan, of_test.test.is_some_and(|test| test.kind == TestKind::Perplexity));
    let attentions = &plan.attentions;
    let _ = writeln!(text, "## {title}\n\n| | {} |\n|---|{}", attentions.join(" | "), "---:|".repeat(attentions.len()));
    for arm in arms(plan) {
        let _ = write!(text, "| {} |", display_name(arm));
        for attention in attentions {
            let shown = match of_test.score(arm, attention, metric) {
                None => "-".to_string(),
                Some((mean, spread, n)) => {
                    // A difference of 0.01 in a loss is a per cent of perplexity.
                    let digits = if is_perplexity { 3 } else { 2 };
                    let spread = spread.map(|s| format!(" ± {s:.digits$}")).unwrap_or_default();
                    let wanted = if arm == BASE { 1 } else { plan.seeds.len() };
                    let count = if n == wanted { String::new() } else { format!(" ({n})") };
                    format!("{mean:.digits$}{spread}{count}")
                }
            };
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    text.push('\n');
}

/// Compares every recipe with the first one that trains with dense attention, and every other LRSA
/// recipe with `lrsa-tuned`.
fn comparisons(text: &mut String, of_test: &OfTest<'_>, metric: usize, title: &str) {
    let recipes = &of_test.plan.recipes;
    let dense = recipes.iter().find(|recipe| recipe.attention == TrainedWith::Dense);
    let plain = recipes.iter().find(|recipe| **recipe == Recipe::lrsa_tuned());
    let mut all: Vec<(&Recipe, &Recipe)> = Vec::new();
    all.extend(recipes.iter().filter_map(|other| Some((dense?, other))));
    all.extend(
        recipes.iter().filter(|other| other.attention == TrainedWith::Lrsa).filter_map(|other| Some((plain?, other))),
    );
    for (before, after) in all.into_iter().filter(|(before, after)| before.name != after.name) {
        comparison(text, of_test, metric, title, (&before.name, &after.name));
    }
}

/// Compares the second model with the first one under each attention.
fn comparison(text: &mut String, of_test: &OfTest<'_>, metric: usize, title: &str, (before, after): (&str, &str)) {
    let mut rows = String::new();
    for attention in &of_test.plan.attentions {
        // Use only seeds that both have.
        let (mut old, mut new) = (of_test.of(before, attention), of_test.of(after, attention));
        let seeds = |cells: &[Cell]| cells.iter().map(|c| c.name.model.seed).collect::<Vec<_>>();
        let (of_old, of_new) = (seeds(&old), seeds(&new));
        old.retain(|c| of_new.contains(&c.name.model.seed));
        new.retain(|c| of_old.contains(&c.name.model.seed));
        if let Some(c) = compare(&old, &new, metric) {
            let Comparison { n, n_documents, difference, interval: (low, high), p } = c;
            let p = if p < 1e-4 { "< 0.0001".to_string() } else { format!("{p:.4}") };
            let _ = writeln!(
                rows,
                "| {attention} | {difference:+.3} | {low:+.3} to {high:+.3} | {p} | {n} | {n_documents} | {} |",
                old.len()
            );
        }
    }
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "{} minus {} ({title}), paired by question after averaging over seeds: bootstrap over documents, sign-flip \
        test.\n\n| | difference | 95 % interval | p | questions | documents | seeds |\n|---|---:|---:|---:|---:|---:|---:|\n{rows}",
        display_name(after),
        display_name(before)
    );
}

fn training(text: &mut String, found: &Found<'_>, dir: &Path) -> Result<()> {
    let mut rows = String::new();
    for recipe in &found.plan.recipes {
        for &seed in &found.plan.seeds {
            if let Some(r) = TrainingRecord::read(dir, &ModelName::trained(&recipe.name, seed))? {
                let _ = writeln!(
                    rows,
                    "| {} | {seed} | {} | {:.4} | {} | {:.0} | {:.0} |",
                    display_name(&recipe.name),
                    r.steps,
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
            "## Training\n\nThe loss is the mean of the last ten steps: what each recipe minimises.\n\n\
             | | seed | steps | loss | tokens | seconds | MiB |\n|---|---:|---:|---:|---:|---:|---:|\n{rows}"
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
