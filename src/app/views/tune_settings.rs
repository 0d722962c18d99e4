//! The settings of a training run: data, method and preset, and the others in a section that opens.

use std::path::Path;

use egui::{CollapsingHeader, ComboBox, RichText, TextEdit, Ui};

use super::{focus, style, tune_check};
use crate::app::chat::FACTORS;
use crate::app::data_counts::DataCounts;
use crate::app::form::{Field, Form, Preset, SECTIONS, field};
use crate::app::labels::{BUNDLED, in_words, name_of};
use crate::app::state::{Action, App, Page, Pick};
use crate::app::tune::TuneAction;
use crate::attention::Attention;
use crate::train::{Draws, Keep, Method, TrainJob};

/// Width of the scroll bar beside the fields.
const SCROLL_BAR: f32 = 8.0;
/// Width of the labels in the section with the other settings.
const LABEL_WIDTH: f32 = 112.0;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let job = app.job();
    ui.set_max_width(ui.available_width() - SCROLL_BAR);
    style::section(ui, "Model and data");
    let model = app.tune_model();
    let name = if model.is_empty() { BUNDLED.into() } else { name_of(Path::new(model)) };
    style::row(
        ui,
        "Model",
        |ui| {
            if ui.button("Change…").on_hover_text("The models page lists them: Use for fine-tuning").clicked() {
                actions.push(Action::Show(Page::Models));
            }
        },
        |ui| {
            ui.add(egui::Label::new(RichText::new(name).strong()).truncate()).on_hover_text(model);
        },
    );
    let data =
        path(ui, "Training data", "a file or a folder with train.jsonl", &mut app.tune.data, Pick::Data, actions);
    if data.lost_focus() {
        actions.push(Action::Tune(TuneAction::CountData));
    }
    let counted = app.tune.counts.as_ref().filter(|counts| counts.path.as_os_str() == app.tune.data.trim());
    style::rows_if(ui, counted.is_some(), "counts", |ui| {
        if let Some(counted) = counted {
            counts(ui, counted, job.as_ref().ok());
        }
    });
    path(ui, "Save to", "folder for the adapter", &mut app.tune.out, Pick::Out, actions);
    style::section(ui, "Method");
    ui.horizontal_wrapped(|ui| {
        ui.radio_value(&mut app.tune.method, Method::Lora, "Adapter (LoRA)");
        ui.radio_value(&mut app.tune.method, Method::Full, "Full fine-tune");
    });
    ui.horizontal_wrapped(|ui| {
        ui.label("Cache").on_hover_text(
            "The model learns to answer with a cache that is compressed so far, and twice as far. Half of the steps have \
             the dense cache, except those with a text of more than 8,192 tokens.",
        );
        for (factor, name) in FACTORS {
            ui.selectable_value(&mut app.tune.factor, factor, name);
        }
    });
    presets(ui, &mut app.tune.form);
    ui.checkbox(&mut app.tune.recompute, "Recompute activations: less memory, about a third more time");
    CollapsingHeader::new("More settings").id_salt("more settings").show(ui, |ui| {
        more(ui, &mut app.tune.form, job.as_ref().ok());
    });
    start(ui, app, job.map_err(|e| in_words(&e.to_string())), actions);
}

fn path(
    ui: &mut Ui,
    label: &str,
    hint: &str,
    text: &mut String,
    pick: Pick,
    actions: &mut Vec<Action>,
) -> egui::Response {
    let mut response = None;
    style::row(
        ui,
        label,
        |ui| {
            if ui.button("Folder…").clicked() {
                actions.push(Action::Pick(pick));
            }
        },
        |ui| {
            let edit = TextEdit::singleline(text).id_salt(label).hint_text(hint).desired_width(f32::INFINITY);
            response = Some(ui.add(edit));
        },
    );
    response.unwrap_or_else(|| ui.label(""))
}

/// Says how many examples there are, and how many of them validate.
fn counts(ui: &mut Ui, counts: &DataCounts, job: Option<&TrainJob>) {
    if let Some(why) = &counts.problem {
        ui.label(RichText::new(why).color(style::bad(ui)));
        return;
    }
    let held = job.and_then(|job| job.valid_fraction).map(|f| (f * counts.n_train as f64).round().max(1.0) as usize);
    style::hint(
        ui,
        match (counts.n_train, counts.n_valid, held) {
            (n, 0, Some(held)) => format!("{n} examples; about {held} are held out for validation"),
            (n, 0, None) => format!("{n} examples, none for validation"),
            (n, valid, _) => format!("{n} examples, and {valid} for validation"),
        },
    );
}

fn presets(ui: &mut Ui, form: &mut Form) {
    for preset in Preset::ALL {
        let (name, what) = preset.text();
        if ui.radio(form.preset() == preset, format!("{name}: {what}")).clicked() {
            *form = Form::of(preset);
        }
    }
    let changed: Vec<String> = form.changed().filter_map(|name| Some(field(name)?.label.clone())).collect();
    style::rows_if(ui, !changed.is_empty(), "changed", |ui| {
        ui.horizontal_wrapped(|ui| {
            let text = format!("{}, changed: {}", form.preset().text().0, changed.join(", "));
            ui.label(RichText::new(text).strong());
            if ui.button("Reset").on_hover_text("Sets these fields back to the preset").clicked() {
                *form = Form::of(form.preset());
            }
        });
    });
}

fn more(ui: &mut Ui, form: &mut Form, job: Option<&TrainJob>) {
    for (section, names) in SECTIONS {
        ui.add_space(4.0);
        ui.label(RichText::new(section).strong());
        for name in names {
            if let Some(field) = field(name) {
                setting(ui, form, name, field, job);
            }
        }
    }
}

fn setting(ui: &mut Ui, form: &mut Form, name: &str, field: &Field, job: Option<&TrainJob>) {
    let mut text = form.text(name).to_string();
    let before = text.clone();
    ui.horizontal(|ui| {
        let label = RichText::new(&field.label);
        let label = if form.is_changed(name) { label.strong() } else { label };
        let size = egui::vec2(LABEL_WIDTH, ui.spacing().interact_size.y);
        let layout = egui::Layout::left_to_right(egui::Align::Center);
        let label = ui.allocate_ui_with_layout(size, layout, |ui| {
            ui.set_min_width(LABEL_WIDTH);
            ui.label(label).on_hover_text(&field.help).id
        });
        let label = label.inner;
        if field.is_switch {
            let mut is_on = text == "true";
            ui.checkbox(&mut is_on, "").on_hover_text(&field.help).labelled_by(label);
            text = is_on.to_string();
        } else if !field.choices.is_empty() {
            let shown = if text.is_empty() { field.default.clone() } else { text.clone() };
            let list = ComboBox::from_id_salt(name).width(ui.available_width().min(110.0)).selected_text(shown.clone());
            let list = list.show_ui(ui, |ui| {
                for (value, help) in &field.choices {
                    if ui.selectable_label(*value == shown, value).on_hover_text(help).clicked() {
                        text.clone_from(value);
                        ui.close();
                    }
                }
            });
            focus::return_to(&list.response, list.inner.is_some());
            list.response.on_hover_text(&field.help).labelled_by(label);
        } else {
            let hint = automatic(name, job).unwrap_or_else(|| field.default.clone());
            let edit = TextEdit::singleline(&mut text).id_salt(name).hint_text(hint).desired_width(f32::INFINITY);
            ui.add(edit).on_hover_text(&field.help).labelled_by(label);
        }
    });
    if text != before {
        form.set(name, &text);
    }
}

/// The value that the app chooses where the field is empty.
fn automatic(name: &str, job: Option<&TrainJob>) -> Option<String> {
    let job = job?;
    match name {
        "eval_every" => Some(job.eval_every.to_string()),
        "valid_fraction" => Some(job.valid_fraction.map_or_else(|| "0".into(), |fraction| fraction.to_string())),
        "lr" => Some(format!("{:e}", job.learning_rate())),
        "sink" | "lag" | "keep" => Some(match (name, job.attention.as_ref()?.attention().ok()?) {
            (_, Attention::Dense) => "none: the cache is dense".into(),
            ("sink", Attention::Lrsa(lrsa)) => lrsa.sink().to_string(),
            ("lag", Attention::Lrsa(lrsa)) => lrsa.lag().to_string(),
            (_, Attention::Lrsa(lrsa)) => Keep::list(Draws::usual(lrsa, 0).keeps()),
        }),
        _ => None,
    }
}

fn start(ui: &mut Ui, app: &mut App, job: Result<TrainJob, String>, actions: &mut Vec<Action>) {
    let is_free = app.busy.is_none();
    let is_complete = !app.tune.data.trim().is_empty() && !app.tune.out.trim().is_empty() && job.is_ok();
    style::section(ui, "Start");
    style::rows_if(ui, job.is_err(), "wrong", |ui| {
        if let Err(why) = &job {
            ui.label(RichText::new(why).color(style::bad(ui)));
        }
    });
    ui.horizontal_wrapped(|ui| {
        let start = style::primary(ui, "Start training");
        if ui.add_enabled_ui(is_free && is_complete, |ui| ui.add_sized([160.0, 34.0], start)).inner.clicked() {
            actions.push(Action::Train);
        }
        let check = egui::Button::new("Check the run");
        let hint = "Reads the data, plans the memory and measures a step. Trains nothing";
        if ui.add_enabled(is_free && is_complete, check).on_hover_text(hint).clicked() {
            actions.push(Action::CheckRun);
        }
    });
    let replaced = app.tune.asks_to_replace().filter(|_| is_free);
    style::rows_if(ui, replaced.is_some(), "replace", |ui| {
        let Some(folder) = replaced else { return };
        let text = format!("{} holds the result of an earlier run. Choose another folder, or", folder.display());
        ui.label(RichText::new(text).strong());
        if ui.button("Replace the result").clicked() {
            actions.push(Action::Replace);
        }
    });
    let continued = app.tune.asks_to_continue().filter(|_| is_free);
    style::rows_if(ui, continued.is_some(), "continue", |ui| {
        let Some(folder) = continued else { return };
        let text = format!("{} holds a run with these settings that has not reached its end.", folder.display());
        ui.label(RichText::new(text).strong());
        ui.horizontal_wrapped(|ui| {
            if ui.button("Continue it").clicked() {
                actions.push(Action::ContinueRun);
            }
            if ui.button("Start anew").clicked() {
                actions.push(Action::Replace);
            }
        });
    });
    let checked = app.checked();
    style::rows_if(ui, checked.is_some(), "checked", |ui| {
        if let Some(found) = checked {
            tune_check::show(ui, found);
        }
    });
    let has_paths = !app.tune.data.trim().is_empty() && !app.tune.out.trim().is_empty();
    if !has_paths {
        style::hint(ui, "Choose the training data and an output folder.");
    }
    if let Some(line) = app.command_line().filter(|_| has_paths) {
        ui.collapsing("Same run on the command line", |ui| {
            ui.add(egui::Label::new(RichText::new(&line).monospace()).wrap().selectable(true));
            if ui.button("Copy").clicked() {
                actions.push(Action::Copy(line.clone()));
            }
        });
    }
}
