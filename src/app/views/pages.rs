//! The pages with their names, and the key of the shortcuts.

use egui::Key;

use crate::app::state::Page;

/// Pages with their names and shortcut keys.
pub const PAGES: [(Page, &str, Key); 4] = [
    (Page::Chat, "Chat", Key::Num1),
    (Page::Models, "Models", Key::Num2),
    (Page::Tune, "Fine-tune", Key::Num3),
    (Page::Devices, "Devices", Key::Num4),
];

/// Name of the key of the shortcuts.
pub const COMMAND: &str = if cfg!(target_os = "macos") { "Cmd" } else { "Ctrl" };
