//! The documents above the conversation: their sizes, what the cache makes of them, and the fields
//! that open and remove them.

use egui::{RichText, ScrollArea, TextEdit, Ui};

use super::header::UNTRAINED;
use super::{focus, style};
use crate::app::documents::Document;
use crate::app::state::{Action, App, Pick};
use crate::attention::Attention;
use crate::grouped::{grouped, tokens};

/// Height of the list, which scrolls beyond.
const LIST_HEIGHT: f32 = 130.0;
/// Longest name that is shown whole, in characters.
const NAME_LENGTH: usize = 48;
/// Size of the bar that compares two caches.
const BAR: egui::Vec2 = egui::vec2(140.0, 10.0);

pub fn show(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let limit = app.chat.model.as_ref().map(|model| model.max_positions);
    if !app.chat.documents.is_empty() {
        let area = ScrollArea::vertical().id_salt("documents").max_height(LIST_HEIGHT).auto_shrink([false, true]);
        focus::scroll(ui, area, false, |ui| {
            for (i, document) in app.chat.documents.iter().enumerate() {
                ui.horizontal_wrapped(|ui| row(ui, document, i, limit, actions));
            }
        });
        cache(ui, app, limit);
    }
    open(ui, app, actions);
}

/// A document: its name, its size, what is to know about it, and the button that removes it.
fn row(ui: &mut Ui, document: &Document, i: usize, limit: Option<usize>, actions: &mut Vec<Action>) {
    ui.label(RichText::new(shortened(&document.name)).strong()).on_hover_text(&document.name);
    let size = match (document.n_tokens, limit) {
        (Some(n), Some(limit)) => format!("{} · {}", tokens(n), share(n, limit)),
        (Some(n), None) => tokens(n),
        (None, _) if document.is_counting => "counting…".into(),
        (None, _) => format!("{} characters", grouped(document.text.chars().count())),
    };
    let is_too_long = document.n_tokens.zip(limit).is_some_and(|(n, limit)| n > limit);
    let size = RichText::new(size);
    ui.label(if is_too_long { size.color(style::bad(ui)) } else { size.weak() });
    if !document.note.is_empty() {
        style::hint(ui, format!("({})", document.note));
    }
    let name = RichText::new("Remove");
    if ui.small_button(name).on_hover_text("The next question is asked without this document").clicked() {
        actions.push(Action::RemoveDocument(i));
    }
}

/// A name with its middle left out if it is long.
fn shortened(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= NAME_LENGTH {
        return name.to_string();
    }
    let (front, back) = (NAME_LENGTH * 2 / 3, NAME_LENGTH / 3);
    letters[..front].iter().chain(&['…']).chain(&letters[letters.len() - back..]).collect()
}

/// A number of tokens as a share of those that the model reads.
fn share(n: usize, limit: usize) -> String {
    match n as f64 / limit.max(1) as f64 * 100.0 {
        share if n > 0 && share < 1.0 => "less than 1 % of the context".into(),
        share => format!("{share:.0} % of the context"),
    }
}

/// What the selected compression makes of the documents' tokens, or what to do if they do not fit.
fn cache(ui: &mut Ui, app: &App, limit: Option<usize>) {
    let (Some(limit), Ok(attention)) = (limit, app.attention()) else { return };
    let n: usize = app.chat.documents.iter().filter_map(|document| document.n_tokens).sum();
    let is_counted = app.chat.documents.iter().all(|document| document.n_tokens.is_some());
    if n > limit {
        let what = if app.chat.documents.len() == 1 { "The document has" } else { "The documents have" };
        let at_least = if is_counted { "" } else { "at least " };
        let text = format!(
            "{what} {at_least}{}, but the model reads at most {}: remove some text, or open a model with a longer context.",
            tokens(n),
            grouped(limit)
        );
        ui.label(RichText::new(text).color(style::bad(ui)));
        return;
    }
    if n == 0 || !is_counted {
        return;
    }
    let (bytes, dense) = (app.chat.cache_size(attention, n).1, app.chat.cache_size(Attention::Dense, n).1);
    ui.horizontal_wrapped(|ui| match attention {
        Attention::Dense => style::hint(ui, format!("dense cache: {}", style::bytes(dense))),
        Attention::Lrsa(lrsa) => {
            let from = lrsa.longest_whole();
            let text = RichText::new(format!("compresses beyond ~{} tokens", grouped(from))).weak();
            ui.label(text).on_hover_text(format!("{} sink tokens and two partitions of {}", lrsa.sink(), lrsa.lag()));
            if bytes < dense {
                bar(ui, bytes as f32 / dense as f32);
                ui.label(saving(bytes, dense));
            } else {
                style::hint(ui, format!("no smaller yet: {}", style::bytes(dense)));
            }
        }
    });
    if bytes < dense && app.chat.is_untrained() {
        style::hint(ui, UNTRAINED);
    }
}

/// How much smaller a compressed cache is: "3.2x smaller: 17.6 instead of 55.5 MiB".
fn saving(bytes: u64, dense: u64) -> String {
    let (small, large) = (style::bytes(bytes), style::bytes(dense));
    let unit = |text: &str| text.rsplit(' ').next().unwrap_or_default().to_string();
    let small = match small.strip_suffix(&unit(&large)) {
        Some(number) if unit(&small) == unit(&large) => number.trim_end().to_string(),
        _ => small,
    };
    format!("{:.1}x smaller: {small} instead of {large}", dense as f64 / bytes.max(1) as f64)
}

/// A bar of which a share is filled.
fn bar(ui: &mut Ui, share: f32) {
    let (rect, _) = ui.allocate_exact_size(egui::vec2(BAR.x, ui.spacing().interact_size.y), egui::Sense::hover());
    let rect = egui::Rect::from_center_size(rect.center(), BAR);
    let filled = rect.with_max_x(rect.left() + BAR.x * share.clamp(0.0, 1.0));
    ui.painter().rect_filled(rect, 3.0, ui.visuals().widgets.inactive.bg_fill);
    ui.painter().rect_filled(filled, 3.0, ui.visuals().selection.bg_fill);
}

/// The button and the field that open another document.
fn open(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        if ui.button("Add a document…").clicked() {
            actions.push(Action::Pick(Pick::Document));
        }
        path(ui, app, actions);
    });
}

/// The field for the path of a document.
pub fn path(ui: &mut Ui, app: &mut App, actions: &mut Vec<Action>) {
    let path = TextEdit::singleline(&mut app.chat.path).hint_text("or type its path").desired_width(220.0);
    let field = ui.add(path);
    if focus::is_entered(&field) {
        actions.push(Action::Read);
    } else if std::mem::take(&mut app.chat.wants_path) {
        field.request_focus();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_words() {
        assert_eq!(saving(18_454_938, 58_195_968), "3.2x smaller: 17.6 instead of 55.5 MiB");
        assert_eq!(saving(512 << 10, 2 << 20), "4.0x smaller: 512.0 KiB instead of 2.0 MiB");
        assert_eq!((tokens(1), tokens(12_431)), ("1 token".into(), "12,431 tokens".into()));
        assert_eq!(share(12_431, 32_768), "38 % of the context");
        assert_eq!(share(3, 8192), "less than 1 % of the context");
        assert_eq!(share(9000, 8192), "110 % of the context");
        assert_eq!(shortened("moby-dick.txt"), "moby-dick.txt");
        let long = format!("{}.txt", "a".repeat(60));
        assert_eq!(shortened(&long), format!("{}…{}.txt", "a".repeat(32), "a".repeat(12)));
    }
}
