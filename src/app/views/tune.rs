//! The fine-tuning page: settings on the left, progress and curves on the right.

use egui::{Panel, RichText, ScrollArea, Ui};
use egui_plot::{Legend, Line, Plot, PlotPoints, Points};

use super::{style, tune_settings};
use crate::app::state::{Action, App};
use crate::app::tune::{RunState, Tune};
use crate::checkpoint::record::AttentionRecord;
use crate::train::{Method, TrainJob};

/// Tooltip of the button that stops a training run.
pub(super) const KEEPS: &str = "Ends after this step and saves the trained weights";

/// Colour of the validation loss; it stands out on both themes.
const VALIDATION: egui::Color32 = egui::Color32::from_rgb(230, 120, 30);

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let width = (0.45 * ui.available_width()).clamp(250.0, 440.0);
    Panel::left("run settings").frame(style::SIDE).exact_size(width).resizable(false).show(ui, |ui| {
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| tune_settings::show(ui, app, actions));
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
            for (name, again) in [("Try again", true), ("Discard", false)] {
                if ui.button(name).clicked() {
                    actions.push(Action::SaveAgain(again));
                }
            }
        });
        return;
    }
    if tune.run != RunState::Idle {
        ui.add(egui::Label::new(RichText::new(in_short(&tune.run_job)).strong()).wrap());
        if !tune.is_running() && app.describes_another() {
            style::hint(ui, "The settings have changed since this run.");
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
                tune.run_job.out.display()
            );
            ui.label(RichText::new(text).color(style::good(ui)));
            let what = if tune.run_job.method == Method::Lora { "adapter" } else { "model" };
            let button = egui::Button::new(format!("Chat with this {what}"));
            if summary.steps > 0 && ui.add_enabled(app.busy.is_none(), button).clicked() {
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

/// A run in one line: what it trains, with which cache, for how long, and where it is saved.
pub(super) fn in_short(job: &TrainJob) -> String {
    let method = if job.method == Method::Lora { "Adapter" } else { "All weights" };
    let cache = match job.attention {
        Some(AttentionRecord::Lrsa { keep, .. }) if job.keeps.is_empty() => {
            format!("cache compressed {:.3}x", 1.0 / keep).replace(".000x", "x")
        }
        Some(AttentionRecord::Lrsa { .. }) => "cache compressed by several ratios".into(),
        _ => "dense cache".into(),
    };
    let length = match (job.steps, job.epochs.unwrap_or(1)) {
        (Some(1), _) => "1 step".to_string(),
        (Some(steps), _) => format!("{steps} steps"),
        (None, 1) => "1 epoch".into(),
        (None, epochs) => format!("{epochs} epochs"),
    };
    let model = job.model.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = job.out.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    format!("{name}: {method} of {model}, {cache}, {length}")
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
        plot.line(Line::new("training", PlotPoints::from(tune.losses())).width(1.5));
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

#[cfg(test)]
mod tests {
    use super::{duration, in_short};
    use crate::checkpoint::record::AttentionRecord;
    use crate::train::{Method, TrainJob};

    #[test]
    fn a_run_is_named_by_what_it_trains() {
        let attention = |keep| Some(AttentionRecord::Lrsa { sink: 16, lag: 128, keep });
        let job = TrainJob { model: "models/m.gguf".into(), out: "runs/a".into(), ..TrainJob::default() };
        let short = |job: TrainJob| in_short(&job);
        let four = TrainJob { attention: attention(0.25), steps: Some(20), ..job.clone() };
        assert_eq!(short(four), "a: Adapter of m.gguf, cache compressed 4x, 20 steps");
        let full = TrainJob { method: Method::Full, epochs: Some(3), attention: attention(0.4), ..job };
        assert_eq!(short(full), "a: All weights of m.gguf, cache compressed 2.500x, 3 epochs");
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([9.4, 200.0, 3900.0].map(duration), ["9 s", "3 min 20 s", "1 h 05 min"]);
    }
}
