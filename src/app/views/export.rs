//! The export of a run: its format, its types, where to, and how the comparison went.

use std::path::Path;

use egui::{ComboBox, Label, RichText, TextEdit, Ui};

use super::{focus, style};
use crate::app::exporting::{ExportState, Exporting};
use crate::app::state::{Action, App, Pick};
use crate::app::tune::TuneAction;
use crate::export::Exported;
use crate::train::PastRun;

pub fn show(ui: &mut Ui, app: &mut App, run: &PastRun, actions: &mut Vec<Action>) {
    style::section(ui, "Export");
    let is_free = app.busy.is_none();
    let export = &mut app.tune.export;
    let formats = Exporting::formats(run.job.method);
    if !formats.iter().any(|(to, _)| *to == export.to) {
        export.to = formats[0].0;
    }
    ui.horizontal_wrapped(|ui| {
        for (to, name) in formats {
            ui.radio_value(&mut export.to, to, name);
        }
    });
    ui.horizontal_wrapped(|ui| {
        let label = ui.label("Weights").id;
        let kinds = Exporting::kinds(export.to);
        export.kind = export.kind.filter(|kind| kinds.contains(kind));
        let name = |kind: Option<crate::export::WeightType>| kind.map_or("usual", |kind| kind.name());
        let combo = ComboBox::from_id_salt("weights").selected_text(name(export.kind)).show_ui(ui, |ui| {
            for kind in std::iter::once(None).chain(kinds.into_iter().map(Some)) {
                if ui.selectable_value(&mut export.kind, kind, name(kind)).clicked() {
                    ui.close();
                }
            }
        });
        focus::return_to(&combo.response, combo.inner.is_some());
        combo.response.labelled_by(label);
        match (run.best, &run.best_checkpoint) {
            (Some(best), Some(_)) => {
                ui.radio_value(&mut export.is_best, false, "last");
                ui.radio_value(&mut export.is_best, true, format!("best (step {})", best.step));
            }
            _ => export.is_best = false,
        }
    });
    let hint = export.suggested(run).display().to_string();
    let what = if export.to.is_file() { "File" } else { "Folder" };
    style::row(
        ui,
        what,
        |ui| {
            if ui.button("Choose…").clicked() {
                actions.push(Action::Pick(Pick::Export));
            }
        },
        |ui| {
            let edit = TextEdit::singleline(&mut export.out).id_salt("export to").hint_text(hint);
            ui.add(edit.desired_width(f32::INFINITY));
        },
    );
    if ui.add_enabled(is_free, egui::Button::new("Export")).clicked() {
        actions.push(Action::Tune(TuneAction::Export { replace: false }));
    }
    outcome(ui, app, &run.job.out, actions);
}

fn outcome(ui: &mut Ui, app: &App, run: &Path, actions: &mut Vec<Action>) {
    let export = &app.tune.export;
    match export.state_of(run) {
        ExportState::Idle => {}
        ExportState::Writing(done, total) => {
            let share = *done as f32 / (*total).max(1) as f32;
            let text = match total {
                0 => "Reading the model".to_string(),
                _ => format!("{done} of {total} tensors; then it is read back and compared"),
            };
            style::progress(ui, egui::ProgressBar::new(share).text(text));
        }
        ExportState::Asks(path) => {
            let text = format!("{} exists. Give another name, or", path.display());
            ui.add(Label::new(RichText::new(text).strong()).wrap());
            if ui.add_enabled(app.busy.is_none(), egui::Button::new("Replace the file")).clicked() {
                actions.push(Action::Tune(TuneAction::Export { replace: true }));
            }
        }
        ExportState::Stopped => style::hint(ui, "Stopped: nothing is written."),
        ExportState::Failed(why) => {
            ui.add(Label::new(RichText::new(why).color(style::bad(ui))).wrap());
        }
        ExportState::Done(path, exported) => {
            for text in verified(path, exported) {
                ui.add(Label::new(RichText::new(text).color(style::good(ui))).wrap().selectable(true));
            }
            if style::is_new(ui, "what was exported") {
                ui.scroll_to_cursor(Some(egui::Align::BOTTOM));
            }
        }
    }
    if *export.state_of(run) != ExportState::Idle {
        for note in &export.notes {
            ui.add(Label::new(RichText::new(note).weak()).wrap());
        }
    }
}

/// What an export wrote, and how far it is from the model in memory.
fn verified(path: &Path, exported: &Exported) -> [String; 2] {
    let c = &exported.comparison;
    [
        format!("Wrote {} ({}, {}).", path.display(), exported.kind.name(), style::bytes(exported.bytes)),
        format!(
            "Verified: on {} tokens logits differ by at most {:.1e}, the divergence is {:.1e} nats a token, and the most \
             likely token is the same after {}.",
            c.tokens, c.largest_difference, c.divergence, c.same_choice
        ),
    ]
}
