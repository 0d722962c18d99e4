//! What the check of a run found: a table, notes, and the first examples.

use egui::{Grid, Label, RichText, Ui};

use super::{run_texts, style};
use crate::app::checked_run::{CheckedRun, PreviewExample};

pub fn show(ui: &mut Ui, found: &CheckedRun) {
    if let Some(why) = &found.too_large {
        ui.add(Label::new(RichText::new(why).color(style::bad(ui))).wrap());
    }
    let widest = 0.62 * ui.available_width();
    Grid::new("check of the run").num_columns(2).max_col_width(widest).striped(true).show(ui, |ui| {
        for (name, text) in found.rows(style::bytes, run_texts::duration) {
            ui.label(name);
            ui.add(Label::new(text).wrap().selectable(true));
            ui.end_row();
        }
    });
    for note in &found.notes {
        ui.add(Label::new(RichText::new(note).weak()).wrap());
    }
    examples(ui, &found.examples);
}

fn examples(ui: &mut Ui, examples: &[PreviewExample]) {
    style::hint(ui, "The first examples. The loss counts underlined text; pale text is context only.");
    for (i, example) in examples.iter().enumerate() {
        ui.collapsing(format!("Example {}", i + 1), |ui| {
            ui.horizontal_wrapped(|ui| {
                ui.spacing_mut().item_spacing.x = 0.0;
                for (text, learnt) in example {
                    let text = RichText::new(text);
                    ui.label(if *learnt { text.strong().underline() } else { text.weak() });
                }
            });
        });
    }
}
