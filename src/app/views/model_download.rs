//! The offer of a download with its size, and the progress of one.

use egui::{Frame, Margin, ProgressBar, RichText, Ui};

use super::style;
use crate::app::downloads::{Download, DownloadState, Offer, Progress};
use crate::app::models::ModelAction;
use crate::app::state::{Action, App};
use crate::checkpoint::hub_survey::Survey;

/// Draws the offer and the download, if there are any.
pub fn show(ui: &mut Ui, app: &App, actions: &mut Vec<Action>) {
    if let Some(offer) = &app.models.offer {
        boxed(ui, |ui| self::offer(ui, offer, actions));
    }
    if let Some(download) = &app.models.download {
        boxed(ui, |ui| self::download(ui, download, actions));
    }
}

/// The download in a few words, for the status bar.
pub fn in_short(app: &App) -> Option<String> {
    let download = app.models.download.as_ref()?;
    let percent = 100.0 * download.progress.share();
    let what = match download.state {
        DownloadState::Running => "Downloading",
        DownloadState::Paused => "Paused:",
        DownloadState::Failed(_) => "Broken off:",
    };
    Some(format!("{what} {}, {percent:.0} %", download.survey.name))
}

fn boxed(ui: &mut Ui, content: impl FnOnce(&mut Ui)) {
    let stroke = ui.visuals().widgets.active.bg_stroke;
    let frame = Frame::NONE.stroke(stroke).corner_radius(6).inner_margin(Margin::symmetric(10, 8));
    frame.outer_margin(Margin { bottom: 2, ..Margin::ZERO }).show(ui, |ui| {
        ui.set_width(ui.available_width());
        content(ui);
    });
}

fn offer(ui: &mut Ui, offer: &Offer, actions: &mut Vec<Action>) {
    let mut button = |ui: &mut Ui, name: &str, action: ModelAction| {
        if ui.button(name).clicked() {
            actions.push(Action::Models(action));
        }
    };
    match &offer.answer {
        None => {
            ui.horizontal_wrapped(|ui| {
                ui.add(egui::Spinner::new().size(14.0));
                ui.label(format!("Looking up {}…", offer.model));
                button(ui, "Cancel", ModelAction::DropOffer);
            });
        }
        Some(Err(why)) => {
            ui.label(RichText::new(why).color(style::bad(ui)));
            ui.horizontal_wrapped(|ui| {
                button(ui, "Try again", ModelAction::Look(offer.model.clone()));
                button(ui, "Close", ModelAction::DropOffer);
            });
        }
        Some(Ok(survey)) if survey.files.is_empty() => {
            ui.label(format!("{} has several GGUF files. Choose one of them:", survey.name));
            for choice in &survey.choices {
                let file = choice.name.split_once(':').map_or(choice.name.as_str(), |(_, file)| file);
                let text = format!("{file} ({})", style::bytes(choice.size));
                button(ui, &text, ModelAction::Look(choice.name.clone()));
            }
            button(ui, "Cancel", ModelAction::DropOffer);
        }
        Some(Ok(survey)) => {
            ui.label(offer_text(survey));
            if survey.is_gated {
                style::hint(
                    ui,
                    "The hub gives this model to those who have accepted its licence on its page. The environment variable \
                     HF_TOKEN has to hold your access token.",
                );
            }
            let lacking = survey.lacking_bytes();
            if lacking > 0 {
                let text = format!("The disk is too small. Free another {} first.", style::bytes(lacking));
                ui.label(RichText::new(text).color(style::bad(ui)));
            }
            ui.horizontal_wrapped(|ui| {
                if lacking > 0 {
                    button(ui, "Look again", ModelAction::Look(offer.model.clone()));
                } else {
                    button(ui, "Download", ModelAction::Download);
                }
                button(ui, "Not now", ModelAction::DropOffer);
            });
        }
    }
}

/// What a download would bring, and what is there.
fn offer_text(survey: &Survey) -> String {
    let (total, missing) = (survey.total_bytes(), survey.missing_bytes());
    let files = if survey.files.len() == 1 { "one file".to_string() } else { format!("{} files", survey.files.len()) };
    let mut text = format!("{} is not on this machine. It has {files} of {} in all.", survey.name, style::bytes(total));
    if missing < total {
        text += &format!(" {} of them are already here.", style::bytes(total - missing));
    }
    if let Some(free) = survey.free_bytes {
        text += &format!(" The disk has {} left.", style::bytes(free));
    }
    text + " It opens when it has arrived."
}

fn download(ui: &mut Ui, download: &Download, actions: &mut Vec<Action>) {
    let progress = &download.progress;
    let what = match download.state {
        DownloadState::Running => "Downloading",
        DownloadState::Paused => "Paused:",
        DownloadState::Failed(_) => "Broken off:",
    };
    ui.label(RichText::new(format!("{what} {}", download.survey.name)).strong());
    style::progress(ui, ProgressBar::new(progress.share()).text(format!("{:.0} %", 100.0 * progress.share())));
    ui.label(progress_text(progress));
    match &download.state {
        DownloadState::Running => style::hint(ui, now_text(progress)),
        DownloadState::Paused => style::hint(ui, "It continues where it was."),
        DownloadState::Failed(why) => {
            ui.label(RichText::new(why).color(style::bad(ui)));
        }
    }
    ui.horizontal_wrapped(|ui| {
        let (name, action) = match download.state {
            DownloadState::Running => ("Pause", ModelAction::PauseDownload(true)),
            DownloadState::Paused => ("Resume", ModelAction::PauseDownload(false)),
            DownloadState::Failed(_) => ("Try again", ModelAction::PauseDownload(false)),
        };
        for (name, action) in [(name, action), ("Stop", ModelAction::StopDownload)] {
            if ui.button(name).clicked() {
                actions.push(Action::Models(action));
            }
        }
    });
}

fn progress_text(progress: &Progress) -> String {
    let ((n_whole, n_files), (have, total)) = (progress.files, progress.bytes);
    let mut parts =
        vec![format!("{n_whole} of {n_files} files"), format!("{} of {}", style::bytes(have), style::bytes(total))];
    parts.extend(progress.bytes_per_s.map(|speed| format!("{}/s", style::bytes(speed as u64))));
    parts.extend(progress.seconds_left().map(time_left));
    parts.join(" · ")
}

/// The file that comes now, and what it waits for.
fn now_text(progress: &Progress) -> String {
    match (&progress.note, progress.file.as_str()) {
        (Some(note), "") => note.clone(),
        (Some(note), file) => format!("{file}: {note}"),
        (None, "") => "Connecting…".into(),
        (None, file) => file.to_string(),
    }
}

fn time_left(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s left"),
        60..3600 => format!("{} min left", s.div_ceil(60)),
        _ => format!("{} h {:02} min left", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_said_in_bytes_files_speed_and_time() {
        let mut progress = Progress { files: (1, 3), bytes: (1 << 20, 61 << 20), ..Progress::default() };
        assert_eq!(progress_text(&progress), "1 of 3 files · 1.0 MiB of 61.0 MiB");
        progress.bytes_per_s = Some(f64::from(1 << 20));
        assert_eq!(progress_text(&progress), "1 of 3 files · 1.0 MiB of 61.0 MiB · 1.0 MiB/s · 1 min left");
        assert_eq!(now_text(&progress), "Connecting…");
        progress.file = "model.safetensors".into();
        progress.note = Some("comparing the SHA-256".into());
        assert_eq!(now_text(&progress), "model.safetensors: comparing the SHA-256");
        assert_eq!([9.4, 61.0, 3900.0].map(time_left), ["9 s left", "2 min left", "1 h 05 min left"]);
    }
}
