//! The fine-tuning page: settings on the left, progress and curves on the right.

use egui::{Panel, RichText, ScrollArea, TextEdit, Ui};
use egui_plot::{Legend, Line, Plot, PlotPoints};

use super::style;
use crate::app::chat::FACTORS;
use crate::app::message::PreviewExample;
use crate::app::state::{Action, App, Pick};
use crate::app::tune::{Preset, RunState, Tune};
use crate::train::Method;

/// Tooltip of the button that stops a training run.
pub(super) const KEEPS: &str = "Ends after this step and saves the trained weights";

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let width = (0.45 * ui.available_width()).clamp(250.0, 440.0);
    Panel::left("run settings").frame(style::SIDE).exact_size(width).resizable(false).show(ui, |ui| {
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| settings(ui, app, actions));
    });
    egui::CentralPanel::default().frame(style::CENTRE).show(ui, |ui| {
        progress(ui, app, actions);
        curves(ui, &app.tune);
    });
}

fn settings(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let is_free = app.busy.is_none();
    style::section(ui, "Data");
    path(ui, "Training data", "folder with train.jsonl", &mut app.tune.data, Pick::Data, actions);
    path(ui, "Save to", "folder for the adapter", &mut app.tune.out, Pick::Out, actions);
    if ui.add_enabled(is_free && !app.tune.data.trim().is_empty(), egui::Button::new("Preview examples")).clicked() {
        actions.push(Action::Preview);
    }
    preview(ui, app.tune.examples(app.settings.model.trim()));
    style::section(ui, "Method");
    ui.horizontal_wrapped(|ui| {
        ui.radio_value(&mut app.tune.method, Method::Lora, "Adapter (LoRA)");
        ui.radio_value(&mut app.tune.method, Method::Full, "Full (all weights)");
    });
    ui.horizontal_wrapped(|ui| {
        ui.label("Cache");
        for (factor, name) in FACTORS {
            ui.selectable_value(&mut app.tune.factor, factor, name);
        }
    });
    for preset in Preset::ALL {
        let (name, what) = preset.text();
        ui.radio_value(&mut app.tune.preset, preset, format!("{name}: {what}"));
    }
    ui.checkbox(&mut app.tune.recompute, "Recompute activations: less memory, about a third more time");
    style::section(ui, "Start");
    let is_complete = !app.tune.data.trim().is_empty() && !app.tune.out.trim().is_empty();
    let has_model = !app.settings.model.trim().is_empty();
    ui.horizontal_wrapped(|ui| {
        if ui.add_enabled(is_free && is_complete, egui::Button::new("Estimate memory")).clicked() {
            actions.push(Action::Estimate);
        }
        if let Some(bytes) = app.tune.estimate_of(&app.job(), &app.settings.device) {
            ui.label(format!("{} of device memory", style::bytes(bytes)));
        }
    });
    let start = egui::Button::new(RichText::new("Start training").strong()).min_size(egui::vec2(160.0, 34.0));
    if ui.add_enabled(is_free && is_complete, start).clicked() {
        actions.push(Action::Train);
    }
    if let Some(folder) = app.tune.asks_to_replace().filter(|_| is_free) {
        let text = format!("{} holds the result of an earlier run. Choose another folder, or", folder.display());
        ui.label(RichText::new(text).strong());
        if ui.button("Replace the result").clicked() {
            actions.push(Action::Replace);
        }
    }
    if !is_complete {
        style::hint(ui, "Choose the training data and an output folder.");
    } else if !has_model {
        style::hint(ui, "Trains the bundled story model. Choose another model on the chat page.");
    }
    if has_model {
        let line = app.command_line();
        ui.collapsing("Same run on the command line", |ui| {
            ui.add(egui::Label::new(RichText::new(&line).monospace()).wrap().selectable(true));
            if ui.button("Copy").clicked() {
                actions.push(Action::Copy(line.clone()));
            }
        });
    }
}

fn path(ui: &mut Ui, label: &str, hint: &str, field: &mut String, pick: Pick, actions: &mut Vec<Action>) {
    style::row(
        ui,
        label,
        |ui| {
            if ui.button("Folder…").clicked() {
                actions.push(Action::Pick(pick));
            }
        },
        |ui| {
            ui.add(TextEdit::singleline(field).hint_text(hint).desired_width(f32::INFINITY));
        },
    );
}

fn preview(ui: &mut Ui, examples: &[PreviewExample]) {
    if examples.is_empty() {
        return;
    }
    style::hint(ui, "The loss counts underlined text. Pale text is context only.");
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

fn progress(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let tune = &app.tune;
    if let Some(why) = &tune.save_failed {
        ui.label(RichText::new(format!("The trained weights could not be saved: {why}.")).color(style::bad(ui)));
        ui.label("They are still in memory. Free some disk space, then try again.");
        ui.horizontal_wrapped(|ui| {
            for (name, again) in [("Try again", true), ("Discard", false)] {
                if ui.button(name).clicked() {
                    actions.push(Action::SaveAgain(again));
                }
            }
        });
        return;
    }
    match &tune.run {
        RunState::Idle => {
            ui.add_space(24.0);
            style::hint(ui, "Loss and learning rate appear here during a run.");
        }
        RunState::Running | RunState::Paused => {
            let share = tune.steps.len() as f32 / tune.total_steps.max(1) as f32;
            let text = format!("step {} of {}", tune.steps.len(), tune.total_steps);
            ui.add(egui::ProgressBar::new(share).text(text));
            ui.horizontal_wrapped(|ui| {
                let is_paused = tune.run == RunState::Paused;
                if ui.button(if is_paused { "Resume" } else { "Pause" }).clicked() {
                    actions.push(Action::Pause(!is_paused));
                }
                if ui.button("Stop and save").on_hover_text(KEEPS).clicked() {
                    actions.push(Action::Stop);
                }
                ui.label(figures(tune));
            });
        }
        RunState::Done(summary) => {
            let how = if summary.cancelled { "Stopped" } else { "Done" };
            let loss = summary.loss.map(|l| format!(", loss {l:.3}")).unwrap_or_default();
            let text = format!(
                "{how} after {} steps{loss}, {:.0} tokens/s, {} of device memory. Saved to {}.",
                summary.steps,
                summary.tokens_per_s,
                style::bytes(summary.peak_bytes),
                tune.run_out
            );
            ui.label(RichText::new(text).color(style::good(ui)));
            let button = egui::Button::new("Chat with this adapter");
            if tune.run_method == Method::Lora && ui.add_enabled(app.busy.is_none(), button).clicked() {
                actions.push(Action::ChatWithAdapter);
            }
        }
        RunState::Failed(why) => {
            ui.label(RichText::new(format!("The run failed: {why}")).color(style::bad(ui)));
        }
    }
    for note in tune.notes.iter().rev().take(3) {
        style::hint(ui, note);
    }
}

fn figures(tune: &Tune) -> String {
    let mut parts = Vec::new();
    if let Some(step) = tune.steps.last() {
        parts.push(format!("loss {:.3}", step.loss));
        parts.push(format!("learning rate {:.1e}", step.lr));
        parts.push(style::bytes(step.bytes));
    }
    parts.extend(tune.tokens_per_s().map(|t| format!("{t:.0} tokens/s")));
    parts.extend(tune.seconds_left().map(|s| format!("{} left", duration(s))));
    parts.join(", ")
}

/// `1 h 05 min`, `3 min 20 s`, `9 s`.
fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

fn curves(ui: &mut Ui, tune: &Tune) {
    if tune.steps.is_empty() {
        return;
    }
    let height = (ui.available_height() - 20.0).max(120.0);
    let plot = |id: &str, share: f32| {
        Plot::new(id.to_string()).height(height * share).allow_scroll(false).allow_drag(false).allow_zoom(false)
    };
    ui.label("Loss");
    plot("loss", 0.62).legend(Legend::default()).show(ui, |plot| {
        for past in &tune.past {
            plot.line(Line::new(past.name.clone(), PlotPoints::from(past.losses.clone())).width(1.0));
        }
        plot.line(Line::new("this run", PlotPoints::from(tune.losses())).width(2.0));
        if !tune.evaluations.is_empty() {
            let points: Vec<[f64; 2]> = tune.evaluations.iter().map(|e| [e.step as f64, e.loss]).collect();
            plot.line(Line::new("validation", PlotPoints::from(points)).width(2.0));
        }
    });
    ui.label("Learning rate");
    plot("learning rate", 0.25).show(ui, |plot| {
        let points: Vec<[f64; 2]> = tune.steps.iter().map(|s| [s.step as f64, s.lr]).collect();
        plot.line(Line::new("learning rate", PlotPoints::from(points)));
    });
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([9.4, 200.0, 3900.0].map(duration), ["9 s", "3 min 20 s", "1 h 05 min"]);
    }
}
