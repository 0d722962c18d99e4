//! The report of a run: scores by shader, survivors, and stale entries of the equivalents list.

use std::collections::BTreeMap;

use longreach::error::Result;
use serde_json::{Value, json};

use super::equivalent::{Equivalent, equivalents};
use super::mutant::Mutant;

/// Minimum score of all shaders together.
const TARGET: f64 = 0.95;
/// Minimum score of one shader.
const SHADER_TARGET: f64 = 0.85;

/// The verdict on a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does not compile, so it could not ship and does not count.
    Refused,
    /// A case detects it, or the device hangs or crashes.
    Killed(String),
    /// Every case passes.
    Survived,
    /// It survived and is listed with this reason.
    Equivalent(String),
}

/// A mutant and its verdict.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The mutant.
    pub mutant: Mutant,
    /// The verdict.
    pub verdict: Verdict,
}

impl Outcome {
    /// `shaders/x.wgsl:line: before → after [operator]`
    pub fn describe(&self) -> String {
        let m = &self.mutant;
        format!("shaders/{}.wgsl:{}: {} → {} [{}]", m.path, m.line, m.before, m.after, m.operator)
    }
}

/// Counts for one shader file or for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShaderScore {
    /// All mutants.
    pub mutants: usize,
    /// Detected mutants.
    pub killed: usize,
    /// Mutants that do not compile.
    pub refused: usize,
    /// Mutants listed as equivalent.
    pub equivalent: usize,
    /// Remaining mutants.
    pub survivors: usize,
}

impl ShaderScore {
    fn count(&mut self, verdict: &Verdict) {
        self.mutants += 1;
        match verdict {
            Verdict::Refused => self.refused += 1,
            Verdict::Killed(_) => self.killed += 1,
            Verdict::Survived => self.survivors += 1,
            Verdict::Equivalent(_) => self.equivalent += 1,
        }
    }

    /// Share of killed mutants among those that compile and are not equivalent; 1 if there are
    /// none.
    pub fn score(&self) -> f64 {
        let counted = self.killed + self.survivors;
        if counted == 0 { 1.0 } else { self.killed as f64 / counted as f64 }
    }

    fn json(&self) -> Value {
        json!({
            "mutants": self.mutants,
            "killed": self.killed,
            "refused": self.refused,
            "equivalent": self.equivalent,
            "survivors": self.survivors,
            "score": self.score(),
        })
    }

    fn row(&self, name: &str) -> String {
        let Self { mutants, killed, refused, equivalent, survivors } = self;
        let score = 100.0 * self.score();
        format!("{name:<28} {mutants:>7} {killed:>7} {refused:>8} {equivalent:>11} {survivors:>10} {score:>8.1} %")
    }
}

/// The report of a whole run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The device of the run.
    pub device: String,
    /// Every mutant with its verdict.
    pub outcomes: Vec<Outcome>,
    /// Stale entries of the equivalents list.
    pub stale: Vec<String>,
}

impl Report {
    /// Applies the list of equivalent mutants. Only a run of all cases (`complete`) reports entries
    /// whose mutant was killed or does not exist.
    pub(super) fn new(device: String, judged: Vec<(Mutant, Verdict)>, complete: bool) -> Result<Self> {
        let list = equivalents()?;
        let mut outcomes: Vec<Outcome> =
            judged.into_iter().map(|(mutant, verdict)| Outcome { mutant, verdict }).collect();
        let mut stale = Vec::new();
        for entry in &list {
            let fits = |o: &&mut Outcome| {
                o.mutant.path == entry.path && o.mutant.before == entry.before && o.mutant.after == entry.after
            };
            match outcomes.iter_mut().find(fits).map(|o| &mut o.verdict) {
                Some(verdict @ Verdict::Survived) => *verdict = Verdict::Equivalent(entry.reason.clone()),
                Some(verdict) => stale.push((entry, format!("it is {verdict:?}"))),
                None => stale.push((entry, "there is no such mutant".to_string())),
            }
        }
        let selected = |e: &Equivalent| outcomes.iter().any(|o| o.mutant.path == e.path);
        let stale = stale.into_iter().filter(|(e, _)| complete && selected(e));
        let stale =
            stale.map(|(e, why)| format!("equivalent.txt:{}: {}: {} → {}: {why}", e.line, e.path, e.before, e.after));
        Ok(Self { device, stale: stale.collect(), outcomes })
    }

    /// Scores by path.
    pub fn scores(&self) -> BTreeMap<&'static str, ShaderScore> {
        let mut scores: BTreeMap<&'static str, ShaderScore> = BTreeMap::new();
        for outcome in &self.outcomes {
            scores.entry(outcome.mutant.path).or_default().count(&outcome.verdict);
        }
        scores
    }

    /// The counts of all shaders together.
    pub fn total(&self) -> ShaderScore {
        let mut total = ShaderScore::default();
        self.outcomes.iter().for_each(|o| total.count(&o.verdict));
        total
    }

    /// Mutants that survived and are not listed as equivalent.
    pub fn survivors(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|o| o.verdict == Verdict::Survived)
    }

    /// Failed criteria, as sentences; empty if there are none.
    pub fn shortfalls(&self) -> Vec<String> {
        let mut found = self.stale.clone();
        let low = |name: &str, score: f64, target: f64| {
            (score < target).then(|| {
                format!(
                    "{name}: the cases detect {:.1} % of the faults, less than {:.0} %",
                    100.0 * score,
                    100.0 * target
                )
            })
        };
        found.extend(self.scores().into_iter().filter_map(|(path, s)| low(path, s.score(), SHADER_TARGET)));
        found.extend(low("all shaders", self.total().score(), TARGET));
        found
    }

    /// The table: one line per shader and one for all.
    pub fn table(&self) -> String {
        let head = format!(
            "{:<28} {:>7} {:>7} {:>8} {:>11} {:>10} {:>10}",
            "shader", "mutants", "killed", "refused", "equivalent", "survivors", "score"
        );
        let rows = self.scores().into_iter().map(|(path, score)| score.row(path));
        let lines: Vec<String> = std::iter::once(head).chain(rows).chain([self.total().row("all")]).collect();
        lines.join("\n")
    }

    /// The report as a JSON object.
    pub fn json(&self) -> Value {
        let shaders: serde_json::Map<String, Value> =
            self.scores().into_iter().map(|(path, score)| (path.to_string(), score.json())).collect();
        let survivor = |o: &Outcome| {
            let m = &o.mutant;
            json!({ "shader": m.path, "line": m.line, "operator": m.operator, "before": m.before, "after": m.after })
        };
        json!({
            "device": self.device,
            "shaders": shaders,
            "total": self.total().json(),
            "survivors": self.survivors().map(survivor).collect::<Vec<_>>(),
            "shortfalls": self.shortfalls(),
        })
    }
}
