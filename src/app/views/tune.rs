//! The fine-tuning page: settings on the left, progress and curves on the right.

use egui::{Label, Panel, RichText, ScrollArea, Ui};
use egui_plot::{Legend, Line, Plot, PlotPoints, Points};

use super::run_texts::{duration, in_short};
use super::{focus, runs, style, tune_settings};
use crate::app::labels::name_of;
use crate::app::state::{Action, App};
use crate::app::tune::{RunState, Tune, TuneAction, loss_curves};
use crate::train::Method;

/// Tooltip of the button that stops a training run.
pub(super) const KEEPS: &str = "Ends the run and saves the weights after the last whole step";

/// A page narrower than this many points has the run above the settings.
const NARROW: f32 = 520.0;

/// Colour of the validation loss; it stands out on both themes.
const VALIDATION: egui::Color32 = egui::Color32::from_rgb(230, 120, 30);

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    Panel::top("tune tabs").frame(style::SIDE).show(ui, |ui| {
        ui.horizontal(|ui| {
            for (name, is_list) in [("New run", false), ("Runs", true)] {
                if ui.selectable_label(app.tune.history.is_shown == is_list, name).clicked() {
                    actions.push(Action::Tune(TuneAction::ShowRuns(is_list)));
                }
            }
        });
    });
    if app.tune.history.is_shown {
        return runs::show(ui, app, actions);
    }
    if ui.available_width() < NARROW {
        // The run is above the settings while there is one.
        let area = ScrollArea::vertical().id_salt("run and settings").auto_shrink([false, false]);
        focus::scroll(ui, area, true, |ui| {
            if app.tune.is_running() && style::is_new(ui, "run above the settings") {
                ui.scroll_to_cursor(Some(egui::Align::TOP));
            }
            if app.tune.run != RunState::Idle || app.tune.save_failed.is_some() {
                progress(ui, app, actions);
                curves(ui, &app.tune);
                ui.separator();
            }
            tune_settings::show(ui, app, actions);
        });
        return;
    }
    let width = (0.45 * ui.available_width()).clamp(250.0, 440.0);
    Panel::left("run settings").frame(style::SIDE).exact_size(width).resizable(false).show(ui, |ui| {
        let area = ScrollArea::vertical().auto_shrink([false, false]);
        focus::scroll(ui, area, true, |ui| tune_settings::show(ui, app, actions));
    });
    egui::CentralPanel::default().frame(style::CENTRE).show(ui, |ui| {
        progress(ui, app, actions);
        curves(ui, &app.tune);
    });
}

fn progress(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let tune = &app.tune;
    if let Some(why) = &tune.save_failed {
        ui.label(RichText::new(format!("The trained weights could not be saved: {why}.")).color(style::bad(ui)));
        ui.label("They are still in memory. Free some disk space, then try again.");
        ui.horizontal_wrapped(|ui| {
            let discard = if tune.gives_up { "Discard for good" } else { "Discard" };
            for (name, again) in [("Try again", true), (discard, false)] {
                if ui.button(name).clicked() {
                    actions.push(Action::SaveAgain(again));
                }
            }
        });
        return;
    }
    if tune.run != RunState::Idle {
        let text = format!("{}: {}", name_of(&tune.run_job.out), in_short(&tune.run_job));
        ui.add(Label::new(RichText::new(text).strong()).wrap());
        if !tune.is_running() && app.describes_another() {
            style::hint(ui, "The settings on the left differ from those of this run.");
        }
    }
    match &tune.run {
        RunState::Idle => {
            ui.add_space(24.0);
            style::hint(ui, "Loss and learning rate appear here during a run.");
        }
        RunState::Running | RunState::Paused => {
            let share = tune.n_steps() as f32 / tune.total_steps.max(1) as f32;
            let paused = if tune.run == RunState::Paused { "Paused at " } else { "" };
            let text = format!("{paused}step {} of {}", tune.n_steps(), tune.total_steps);
            style::progress(ui, egui::ProgressBar::new(share).text(text));
            ui.add_enabled_ui(!tune.stops, |ui| {
                ui.horizontal_wrapped(|ui| {
                    let is_paused = tune.run == RunState::Paused;
                    if ui.button(if is_paused { "Resume" } else { "Pause" }).clicked() {
                        actions.push(Action::Pause(!is_paused));
                    }
                    if ui.button("Stop and save").on_hover_text(KEEPS).clicked() {
                        actions.push(Action::Stop);
                    }
                    ui.label(figures(tune));
                })
            });
        }
        RunState::Done(summary) => {
            let how = if summary.cancelled { "Stopped" } else { "Done" };
            let loss = tune.steps.last().map(|line| format!(", loss {}", line.loss_text())).unwrap_or_default();
            let best = summary.best.map(|b| format!(", lowest validation loss {:.3} at step {}", b.loss, b.step));
            let text = match summary.steps {
                0 => "Stopped before the first step was done: nothing is saved.".to_string(),
                steps => format!(
                    "{how} after {steps} steps{loss}{}, {:.0} tokens/s, {} of memory. Saved to {}.",
                    best.unwrap_or_default(),
                    summary.tokens_per_s,
                    style::bytes(summary.peak_bytes),
                    tune.run_job.out.display()
                ),
            };
            ui.add(Label::new(RichText::new(text).color(style::good(ui))).wrap());
            ui.horizontal_wrapped(|ui| {
                let what = if tune.run_job.method == Method::Lora { "adapter" } else { "model" };
                let chat = egui::Button::new(format!("Chat with this {what}"));
                if summary.steps > 0 && ui.add_enabled(app.busy.is_none(), chat).clicked() {
                    actions.push(Action::ChatWithAdapter);
                }
                let compare = egui::Button::new("Export or compare…");
                if summary.steps > 0 && ui.add(compare).on_hover_text("Shows it in the list of runs").clicked() {
                    actions.push(Action::Tune(TuneAction::ShowRun(tune.run_job.out.clone())));
                }
            });
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
        parts.push(format!("loss {}", step.loss_text()));
        parts.push(format!("learning rate {:.1e}", step.lr));
        parts.push(style::bytes(step.bytes));
    }
    parts.extend(tune.tokens_per_s().map(|t| format!("{t:.0} tokens/s")));
    parts.extend(tune.seconds_left().map(|s| format!("{} left", duration(s))));
    parts.join(", ")
}

fn curves(ui: &mut Ui, tune: &Tune) {
    if tune.steps.is_empty() {
        return;
    }
    let height = (ui.available_height() - 20.0).max(180.0);
    let plot = |id: &str, share: f32| {
        let plot = Plot::new(id.to_string()).height(height * share).sense(egui::Sense::hover());
        plot.allow_scroll(false).allow_drag(false).allow_zoom(false)
    };
    ui.label("Loss");
    plot("loss", 0.62).legend(Legend::default()).show(ui, |plot| {
        for (name, points) in loss_curves(&tune.steps, "training") {
            plot.line(Line::new(name, PlotPoints::from(points)).width(1.5));
        }
        let validation = tune.validation();
        if !validation.is_empty() {
            // One name for both, and so one colour and one entry of the legend. A single evaluation
            // is no line yet.
            plot.line(Line::new("validation", PlotPoints::from(validation.clone())).width(2.0).color(VALIDATION));
            plot.points(Points::new("validation", PlotPoints::from(validation)).radius(4.0).color(VALIDATION));
        }
    });
    ui.label("Learning rate");
    plot("learning rate", 0.25).show(ui, |plot| {
        let points: Vec<[f64; 2]> = tune.steps.iter().map(|s| [s.step as f64, s.lr]).collect();
        plot.line(Line::new("learning rate", PlotPoints::from(points)));
    });
}
