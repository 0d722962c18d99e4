//! Rows of what needs no device: the translation of every shader to every driver's language, and the rules for shaders.

use std::time::Instant;

use super::lints::{Rule, lints};
use super::row::{Direction, Place, Row, Variant};
use super::shaders::{TranslationRow, TranslationStatus};
use crate::kernels::case::Tolerance;

/// The column `device` of these rows.
const NO_DEVICE: &str = "no device";

/// Every translation as a row: it fails where naga or a validator refuses it.
pub(super) fn translation_rows(translations: &[TranslationRow]) -> Vec<Row> {
    let made = translations.iter().filter(|t| t.status != TranslationStatus::NotApplicable);
    made.map(|t| {
        let mut row = static_row(t.kernel.clone(), t.variant.clone(), t.target.name(), Direction::Translation);
        match &t.status {
            TranslationStatus::Validated(by) => row.reason = format!("{by} accepts it"),
            TranslationStatus::Translated(why) => row.reason = format!("translated only: {why}"),
            TranslationStatus::NotApplicable => {}
            TranslationStatus::Failed(why) => row.fail(why.clone()),
        }
        row
    })
    .collect()
}

/// A row for every rule that all shaders keep, and one for every place where a rule is broken.
pub(super) fn lint_rows() -> Vec<Row> {
    let start = Instant::now();
    let findings = lints();
    let mut rows = Vec::new();
    for rule in Rule::ALL {
        let broken = findings.iter().filter(|f| f.rule == rule && f.allowed.is_none());
        let before = rows.len();
        for finding in broken {
            let mut row = static_row(finding.kernel.clone(), String::new(), rule.name(), Direction::Lint);
            row.fail(format!("{}: {}", finding.place, finding.what));
            rows.push(row);
        }
        if rows.len() == before {
            let mut row = static_row("all shaders".to_string(), String::new(), rule.name(), Direction::Lint);
            row.reason = "no shader breaks the rule".to_string();
            rows.push(row);
        }
    }
    rows[0].seconds = start.elapsed().as_secs_f64();
    rows
}

fn static_row(kernel: String, variant: String, case: &str, direction: Direction) -> Row {
    let place = Place { device: NO_DEVICE, variant: Variant::Reference, case };
    Row::new(place, kernel, variant, direction, &Tolerance::EXACT)
}
