//! Conformance rows that need no device: the translation of every shader to every driver's
//! language.

use super::row::{Direction, Place, Row, Variant};
use super::shaders::{TranslationRow, TranslationStatus};
use crate::kernels::case::Tolerance;

/// The value of the column `device` in these rows.
const NO_DEVICE: &str = "no device";

/// One row per translation; it fails if naga or a validator rejects the shader.
pub(super) fn translation_rows(translations: &[TranslationRow]) -> Vec<Row> {
    let made = translations.iter().filter(|t| t.status != TranslationStatus::NotApplicable);
    made.map(|t| {
        let place = Place { device: NO_DEVICE, variant: Variant::Reference, case: t.target.name() };
        let (kernel, variant) = (t.kernel.clone(), t.variant.clone());
        let mut row = Row::new(place, kernel, variant, Direction::Translation, &Tolerance::EXACT);
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
