//! The settings of a training run: data, method and preset, and the others in a section that opens.

use egui::{CollapsingHeader, ComboBox, RichText, TextEdit, Ui};

use super::style;
use crate::app::chat::FACTORS;
use crate::app::data_counts::DataCounts;
use crate::app::form::{Field, Form, Preset, SECTIONS, field};
use crate::app::labels::in_words;
use crate::app::message::PreviewExample;
use crate::app::state::{Action, App, Pick};
use crate::app::tune_actions::TuneAction;
use crate::train::{Method, TrainJob};

/// Width of the labels in the section with the other settings.
const LABEL_WIDTH: f32 = 130.0;

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let is_free = app.busy.is_none();
    let job = app.job();
    style::section(ui, "Data");
    let data = path(ui, "Training data", "folder with train.jsonl", &mut app.tune.data, Pick::Data, actions);
    if data.lost_focus() {
        actions.push(Action::Tune(TuneAction::CountData));
    }
    // Rows that come and go have a scope of their own, so that the fields below keep their ids, and so
    // the focus.
    ui.push_id("counts", |ui| counts(ui, app, job.as_ref().ok()));
    path(ui, "Save to", "folder for the adapter", &mut app.tune.out, Pick::Out, actions);
    if ui.add_enabled(is_free && !app.tune.data.trim().is_empty(), egui::Button::new("Preview examples")).clicked() {
        actions.push(Action::Preview);
    }
    ui.push_id("preview", |ui| preview(ui, app.tune.examples(app.settings.model.trim())));
    style::section(ui, "Method");
    ui.horizontal_wrapped(|ui| {
        ui.radio_value(&mut app.tune.method, Method::Lora, "Adapter (LoRA)");
        ui.radio_value(&mut app.tune.method, Method::Full, "Full (all weights)");
    });
    ui.horizontal_wrapped(|ui| {
        ui.label("Cache").on_hover_text("The model learns to answer with a cache that is compressed so far");
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
fn counts(ui: &mut Ui, app: &App, job: Option<&TrainJob>) {
    let is_of_data = |counts: &&DataCounts| counts.path.as_os_str() == app.tune.data.trim();
    let Some(counts) = app.tune.counts.as_ref().filter(is_of_data) else { return };
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

fn presets(ui: &mut Ui, form: &mut Form) {
    for preset in Preset::ALL {
        let (name, what) = preset.text();
        if ui.radio(form.preset() == preset, format!("{name}: {what}")).clicked() {
            *form = Form::of(preset);
        }
    }
    ui.push_id("changed", |ui| {
        let changed: Vec<String> = form.changed().filter_map(|name| Some(field(name)?.label.clone())).collect();
        if changed.is_empty() {
            return;
        }
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
        ui.allocate_ui_with_layout(
            egui::vec2(LABEL_WIDTH, ui.spacing().interact_size.y),
            egui::Layout::left_to_right(egui::Align::Center),
            |ui| {
                ui.set_min_width(LABEL_WIDTH);
                ui.label(label).on_hover_text(&field.help);
            },
        );
        if field.is_switch {
            let mut is_on = text == "true";
            ui.checkbox(&mut is_on, "").on_hover_text(&field.help);
            text = is_on.to_string();
        } else if !field.choices.is_empty() {
            let shown = if text.is_empty() { field.default.clone() } else { text.clone() };
            ComboBox::from_id_salt(name)
                .selected_text(shown.clone())
                .show_ui(ui, |ui| {
                    for (value, help) in &field.choices {
                        if ui.selectable_label(*value == shown, value).on_hover_text(help).clicked() {
                            text.clone_from(value);
                        }
                    }
                })
                .response
                .on_hover_text(&field.help);
        } else {
            let hint = automatic(name, job).unwrap_or_else(|| field.default.clone());
            let edit = TextEdit::singleline(&mut text).id_salt(name).hint_text(hint).desired_width(f32::INFINITY);
            ui.add(edit).on_hover_text(&field.help);
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
        _ => None,
    }
}

fn start(ui: &mut Ui, app: &mut App, job: Result<TrainJob, String>, actions: &mut Vec<Action>) {
    let is_free = app.busy.is_none();
    let is_complete = !app.tune.data.trim().is_empty() && !app.tune.out.trim().is_empty() && job.is_ok();
    style::section(ui, "Start");
    ui.push_id("wrong", |ui| {
        if let Err(why) = &job {
            ui.label(RichText::new(why).color(style::bad(ui)));
        }
    });
    ui.horizontal_wrapped(|ui| {
        if ui.add_enabled(is_free && is_complete, egui::Button::new("Estimate memory")).clicked() {
            actions.push(Action::Estimate);
        }
        if let Some(bytes) = job.as_ref().ok().and_then(|job| app.tune.estimate_of(job, &app.settings.device)) {
            ui.label(format!("{} of device memory", style::bytes(bytes)));
        }
    });
    let button = egui::Button::new(RichText::new("Start training").strong()).min_size(egui::vec2(160.0, 34.0));
    if ui.add_enabled(is_free && is_complete, button).clicked() {
        actions.push(Action::Train);
    }
    ui.push_id("replace", |ui| {
        let Some(folder) = app.tune.asks_to_replace().filter(|_| is_free) else { return };
        let text = format!("{} holds the result of an earlier run. Choose another folder, or", folder.display());
        ui.label(RichText::new(text).strong());
        if ui.button("Replace the result").clicked() {
            actions.push(Action::Replace);
        }
    });
    let has_paths = !app.tune.data.trim().is_empty() && !app.tune.out.trim().is_empty();
    if !has_paths {
        style::hint(ui, "Choose the training data and an output folder.");
    } else if app.settings.model.trim().is_empty() {
        style::hint(ui, "Trains the bundled story model. Choose another model on the chat page.");
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
