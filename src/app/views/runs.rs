//! The list of runs, and what is known of the chosen one: its curves, its settings, and its export.

use egui::{CentralPanel, Grid, Label, Panel, RichText, ScrollArea, Ui};
use egui_plot::{Legend, Line, LineStyle, Plot, PlotPoints, Points};

use super::run_texts::in_short;
use super::{export, focus, style};
use crate::app::history::{MOST_COMPARED, all_settings};
use crate::app::labels::name_of;
use crate::app::labels::{in_words, label};
use crate::app::state::{Action, App};
use crate::app::tune::{TuneAction, loss_curves};
use crate::train::{PastRun, PastState};

/// Most points of a curve on the screen.
const MOST_POINTS: usize = 1000;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let width = (0.45 * ui.available_width()).clamp(250.0, 440.0);
    Panel::left("runs").frame(style::SIDE).exact_size(width).resizable(false).show(ui, |ui| {
        focus::scroll(ui, ScrollArea::vertical().auto_shrink([false, false]), false, |ui| list(ui, app, actions));
    });
    CentralPanel::default().frame(style::CENTRE).show(ui, |ui| {
        focus::scroll(ui, ScrollArea::vertical().auto_shrink([false, false]), true, |ui| {
            comparison(ui, app);
            chosen(ui, app, actions);
        });
    });
}

fn list(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        style::section(ui, "Runs");
        if ui.button("Refresh").clicked() {
            actions.push(Action::Tune(TuneAction::ReadRuns));
        }
    });
    let history = &app.tune.history;
    let Some(runs) = &history.runs else {
        style::hint(ui, "Looking for runs…");
        return;
    };
    style::hint(
        ui,
        match runs.as_slice() {
            [] => {
                "There is no run yet. Runs of the command line appear here too, once a run of the app has been saved \
                   beside them."
                    .to_string()
            }
            _ => "Tick several runs to compare them.".into(),
        },
    );
    for run in runs {
        ui.push_id(&run.job.out, |ui| row(ui, app, run, actions));
    }
}

fn row(ui: &mut Ui, app: &App, run: &PastRun, actions: &mut Vec<Action>) {
    let (history, dir) = (&app.tune.history, &run.job.out);
    ui.horizontal(|ui| {
        let mut is_compared = history.compared.contains(dir);
        let has_room = is_compared || history.compared.len() < MOST_COMPARED;
        let tick = ui.add_enabled(has_room, egui::Checkbox::without_text(&mut is_compared));
        if tick.on_hover_text(format!("Compare {}", name_of(dir))).changed() {
            actions.push(Action::Tune(TuneAction::Compare(dir.clone(), is_compared)));
        }
        ui.vertical(|ui| {
            (ui.spacing_mut().button_padding.x, ui.spacing_mut().item_spacing.y) = (4.0, 2.0);
            let is_chosen = history.chosen.as_ref() == Some(dir);
            let name = egui::Button::selectable(is_chosen, RichText::new(name_of(dir)).strong()).truncate();
            if ui.add(name).on_hover_text(dir.display().to_string()).clicked() {
                actions.push(Action::Tune(TuneAction::Choose(dir.clone())));
            }
            ui.add(Label::new(RichText::new(facts(run)).weak()).wrap());
        });
    });
}

/// Date, model, method, state and best validation loss of a run.
fn facts(run: &PastRun) -> String {
    let method = if run.job.method == crate::train::Method::Lora { "adapter" } else { "full" };
    let model = run.job.model.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut parts = vec![date(run.changed), model.to_string(), method.to_string(), state(run)];
    parts.extend(run.best.map(|best| format!("validation loss {:.3}", best.loss)));
    parts.join(", ")
}

/// What became of a run.
fn state(run: &PastRun) -> String {
    let n = run.n_steps();
    match &run.state {
        PastState::Finished => format!("done, {n} steps"),
        PastState::Running => format!("running, {n} steps so far"),
        PastState::Stopped => format!("stopped at step {n}"),
        PastState::Failed(_) => format!("failed at step {n}"),
    }
}

/// A date in the time zone of this machine.
fn date(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    at.map(|at| at.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

fn comparison(ui: &mut Ui, app: &App) {
    let history = &app.tune.history;
    let drawn = history.drawn();
    if drawn.is_empty() {
        style::hint(ui, "Choose a run to see its curves and settings.");
        return;
    }
    curves(ui, &drawn);
    if drawn.len() < 2 {
        return;
    }
    style::section(ui, "Settings that differ");
    let rows = history.differences();
    if rows.is_empty() {
        style::hint(ui, "None: these runs have the same settings.");
        return;
    }
    let width = ui.available_width() / (drawn.len() + 1) as f32 - ui.spacing().item_spacing.x;
    Grid::new("differences").num_columns(drawn.len() + 1).max_col_width(width).striped(true).show(ui, |ui| {
        ui.label("");
        for run in &drawn {
            ui.add(Label::new(RichText::new(name_of(&run.job.out)).strong()).wrap());
        }
        ui.end_row();
        for (name, texts) in rows {
            ui.add(Label::new(name).wrap());
            for text in texts {
                ui.add(Label::new(text).wrap());
            }
            ui.end_row();
        }
    });
}

fn curves(ui: &mut Ui, runs: &[&PastRun]) {
    ui.label(if runs.len() == 1 {
        "Loss, with the validation loss as points and a ring around the lowest"
    } else {
        "Loss of each run, with its validation loss as points and a ring around the lowest"
    });
    if runs.len() > 1 {
        ui.horizontal_wrapped(|ui| {
            for (i, run) in runs.iter().enumerate() {
                ui.label(RichText::new(name_of(&run.job.out)).strong().color(style::series(i)));
            }
        });
    }
    let height = (0.35 * ui.ctx().content_rect().height()).clamp(140.0, 320.0);
    let mut plot = Plot::new("losses").height(height).sense(egui::Sense::hover());
    let by_cache = match runs {
        [run] => loss_curves(&run.logs.steps, &name_of(&run.job.out)),
        _ => Vec::new(),
    };
    if by_cache.len() > 1 {
        plot = plot.legend(Legend::default());
    }
    plot.allow_scroll(false).allow_drag(false).allow_zoom(false).show(ui, |plot| {
        for (i, (name, losses)) in by_cache.iter().enumerate() {
            plot.line(Line::new(name, PlotPoints::from(thinned(losses))).width(1.5).color(style::series(i)));
        }
        for (i, run) in runs.iter().enumerate() {
            let name = if by_cache.len() > 1 { "validation".to_string() } else { name_of(&run.job.out) };
            // In the colour of the run, or in one of its own beside several lines.
            let colour = style::series(if by_cache.len() > 1 { by_cache.len() } else { i });
            if by_cache.is_empty() {
                let losses: Vec<[f64; 2]> = run.logs.steps.iter().map(|line| [line.step as f64, line.loss]).collect();
                plot.line(Line::new(name.clone(), PlotPoints::from(thinned(&losses))).width(1.5).color(colour));
            }
            let validation: Vec<[f64; 2]> =
                run.logs.evaluations.iter().map(|line| [line.step as f64, line.loss]).collect();
            if !validation.is_empty() {
                let line = Line::new(name.clone(), PlotPoints::from(validation.clone())).width(1.0);
                plot.line(line.style(LineStyle::dashed_loose()).color(colour));
                plot.points(Points::new(name.clone(), PlotPoints::from(validation)).radius(4.0).color(colour));
            }
            if let Some(best) = run.best {
                let ring = Points::new(name, PlotPoints::from(vec![[best.step as f64, best.loss]]));
                plot.points(ring.radius(8.0).filled(false).color(colour));
            }
        }
    });
}

/// At most so many points of a curve, with its first and its last.
fn thinned(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last).map(|(_, point)| *point).collect()
}

fn chosen(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let Some(run) = app.tune.history.chosen().cloned() else { return };
    style::section(ui, &name_of(&run.job.out));
    ui.add(Label::new(in_short(&run.job)).wrap());
    ui.add(Label::new(RichText::new(outcome(&run)).weak()).wrap());
    if let PastState::Failed(why) = &run.state {
        ui.add(Label::new(RichText::new(in_words(why)).color(style::bad(ui))).wrap());
    }
    let is_free = app.busy.is_none();
    let act = |ui: &mut Ui, name: String, hint: &str, action: TuneAction, actions: &mut Vec<Action>| {
        if ui.add_enabled(is_free, egui::Button::new(name)).on_hover_text(hint).clicked() {
            actions.push(Action::Tune(action));
        }
    };
    ui.horizontal_wrapped(|ui| {
        if run.is_resumable() {
            let text = format!("Resume from step {}", run.saved_at.unwrap_or_default());
            act(ui, text, "Goes on with the settings of the run", TuneAction::Resume(run.job.out.clone()), actions);
        }
        if run.has_result {
            let chat = TuneAction::ChatWith(run.job.out.clone(), run.job.out.clone());
            act(ui, "Chat with the result".into(), "Opens what was saved last", chat, actions);
        }
        if let (Some(best), Some(folder)) = (run.best, &run.best_checkpoint) {
            let text = format!("Chat with the best (step {})", best.step);
            let chat = TuneAction::ChatWith(run.job.out.clone(), folder.clone());
            act(ui, text, "Opens the checkpoint with the lowest validation loss", chat, actions);
        }
    });
    ui.collapsing("Settings", |ui| {
        let widest = 0.6 * ui.available_width();
        Grid::new("settings of the run").num_columns(2).max_col_width(widest).striped(true).show(ui, |ui| {
            for (name, text) in all_settings(&run) {
                ui.label(label(&name));
                ui.add(Label::new(if text.is_empty() { "on".into() } else { text }).wrap().selectable(true));
                ui.end_row();
            }
        });
    });
    if run.has_result {
        export::show(ui, app, &run, actions);
    }
}

/// How a run ended, and its losses.
fn outcome(run: &PastRun) -> String {
    let mut parts = vec![state(run), date(run.changed)];
    parts.extend(run.logs.steps.last().map(|line| format!("loss {}", line.loss_text())));
    if let Some(best) = run.best {
        let kept = if run.best_checkpoint.is_some() { "" } else { ", its checkpoint is gone" };
        parts.push(format!("best validation loss {:.3} at step {}{kept}", best.loss, best.step));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_keep_their_ends() {
        let points: Vec<[f64; 2]> = (0..2501).map(|i| [f64::from(i), 0.0]).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MOST_POINTS + 1 && thin[0][0] == 0.0 && thin[thin.len() - 1][0] == 2500.0);
        assert_eq!(thinned(&points[..7]), points[..7]);
        assert!(thinned(&[]).is_empty());
    }
}
