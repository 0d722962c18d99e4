//! The device page: choose a device, list the adapters, and check that a device computes correctly.

use egui::{RichText, ScrollArea, Ui};

use super::{focus, style};
use crate::app::state::{Action, App, Busy};

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    focus::scroll(ui, ScrollArea::vertical().auto_shrink([false, false]), true, |ui| {
        style::section(ui, "Device");
        style::hint(
            ui,
            "The device for the next model you open. auto selects a GPU if there is one, otherwise the CPU.",
        );
        let mut choices = vec![("auto".to_string(), "auto".to_string()), ("cpu".to_string(), "CPU".to_string())];
        for adapter in app.devices.adapters.iter().flatten() {
            choices.push((adapter.index.to_string(), format!("{}: {}", adapter.backend, adapter.name)));
        }
        for (value, name) in &choices {
            if ui.radio(app.settings.device == *value, name).clicked() {
                app.settings.device.clone_from(value);
                actions.push(Action::SettingsChanged);
            }
        }
        if ui.add_enabled(app.busy.is_none(), egui::Button::new("Open the model on this device")).clicked() {
            actions.push(Action::OpenModel);
        }
        adapters(ui, app);
        check(ui, app, &choices, actions);
    });
}

fn adapters(ui: &mut Ui, app: &App) {
    style::section(ui, "Graphics devices");
    let Some(list) = &app.devices.adapters else {
        style::hint(ui, "Looking for devices…");
        return;
    };
    if list.is_empty() {
        style::hint(
            ui,
            "No graphics device with compute shaders was found, so the CPU does all the work. Check that a GPU driver is installed.",
        );
    }
    for adapter in list {
        ui.collapsing(format!("{} ({}, {})", adapter.name, adapter.backend, adapter.device_type), |ui| {
            egui::Grid::new(("adapter", adapter.index)).num_columns(2).show(ui, |ui| {
                let rows = [
                    ("Driver", adapter.driver.clone()),
                    ("Largest binding", format!("{} MiB", adapter.max_binding_mib)),
                    ("Features used", adapter.features.join(", ")),
                ];
                for (name, value) in rows {
                    ui.label(name);
                    ui.add(egui::Label::new(value).wrap());
                    ui.end_row();
                }
            });
        });
    }
}

fn check(ui: &mut Ui, app: &App, choices: &[(String, String)], actions: &mut Vec<Action>) {
    style::section(ui, "Check");
    style::hint(ui, "Compares one case of every kernel and gradient with its reference in double precision.");
    ui.horizontal_wrapped(|ui| {
        for (value, name) in choices.iter().filter(|c| c.0 != "auto") {
            if ui.add_enabled(app.busy.is_none(), egui::Button::new(format!("Check {name}"))).clicked() {
                actions.push(Action::Check(value.clone()));
            }
        }
    });
    if let Some(result) = &app.devices.result {
        let (text, colour) = match result.failed {
            0 if !result.is_complete => {
                (format!("Stopped after {} checks, all passed.", result.passed), ui.visuals().text_color())
            }
            0 => (format!("All {} checks passed.", result.passed), style::good(ui)),
            n => (format!("{n} of {} checks failed.", result.passed + n), style::bad(ui)),
        };
        ui.horizontal_wrapped(|ui| {
            ui.label(RichText::new(text).strong().color(colour));
            if ui.button("Save report").on_hover_text("Saves check.html to the working folder").clicked() {
                actions.push(Action::SaveReport("check.html".into()));
            }
        });
    } else if app.busy == Some(Busy::Checking) {
        ui.label(format!("{} checks so far", app.devices.lines.len()));
    }
    if app.devices.lines.is_empty() {
        return;
    }
    let widest = (0.4 * ui.available_width()).max(80.0);
    egui::Grid::new("checks").num_columns(4).max_col_width(widest).striped(true).show(ui, |ui| {
        for heading in ["", "Kernel", "Case", "Relative error"] {
            ui.label(RichText::new(heading).strong());
        }
        ui.end_row();
        // Failed checks first, then the newest of those that passed.
        let failed = app.devices.lines.iter().filter(|l| !l.passed);
        for line in failed.chain(app.devices.lines.iter().rev().filter(|l| l.passed)).take(60) {
            let (mark, colour) = if line.passed { ("pass", style::good(ui)) } else { ("FAIL", style::bad(ui)) };
            ui.label(RichText::new(mark).color(colour)).on_hover_text(&line.reason);
            ui.label(&line.kernel);
            ui.label(&line.case);
            ui.label(format!("{:.1e}", line.relative_error));
            ui.end_row();
        }
    });
}
