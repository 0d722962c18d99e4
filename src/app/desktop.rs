//! Desktop integration: the window icon and dropped files.

use std::path::PathBuf;
use std::time::Duration;

use winit::event::WindowEvent;
use winit::window::Icon;

use super::chat::{Dropped, dropped};
use super::state::{Action, Page, Pick};

/// The window icon, for platforms that show one.
pub(super) fn icon() -> Option<Icon> {
    let png = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/icon/longreach-64.png"));
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().ok()?;
    let mut dots = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut dots).ok()?;
    Icon::from_rgba(dots, info.width, info.height).ok()
}

/// An id for a new conversation: the time, and a number that tells apart what two windows begin in the
/// same second.
pub(super) fn fresh_id() -> String {
    format!("{}-{:08x}", chrono::Local::now().format("%Y%m%d-%H%M%S"), rand::random::<u32>())
}

/// The effect of a window event that egui does not handle.
#[derive(Debug, PartialEq)]
pub(super) enum Meant {
    Read(PathBuf),
    Act(Action),
}

/// What an event on a page asks for. A path dropped on the page for training is training data, unless
/// it is a model or an adapter.
pub(super) fn meant(event: WindowEvent, page: Page) -> Option<Meant> {
    let WindowEvent::DroppedFile(path) = event else { return None };
    Some(match dropped(path) {
        Dropped::Document(path) if page == Page::Tune => Meant::Act(Action::Picked(Pick::Data, path)),
        Dropped::Document(path) => Meant::Read(path),
        Dropped::Model(path) => Meant::Act(Action::Picked(Pick::ModelFolder, path)),
        Dropped::Adapter(path) => Meant::Act(Action::Picked(Pick::Adapter, path)),
    })
}

/// Time in which nobody can close a file dialog that has opened.
const TOO_SOON: Duration = Duration::from_millis(300);

/// What to say if a file dialog ended after so long without a path. The dialog library does not tell
/// a dialog that could not open from one that the user closed.
pub(super) fn no_dialog(after: Duration) -> Option<&'static str> {
    (after < TOO_SOON).then_some(
        "no file dialog opened: type the path into the field instead (on Linux, xdg-desktop-portal or zenity shows \
         the dialogs)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::documents::read_document;
    use crate::app::settings::Settings;
    use crate::app::state::App;

    #[test]
    fn what_is_dropped_on_the_window_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("book.txt"), "Call me Ishmael.").unwrap();
        std::fs::create_dir(at("adapter")).unwrap();
        std::fs::write(at("adapter/adapter_config.json"), "{}").unwrap();
        let drop = |name| meant(WindowEvent::DroppedFile(at(name)), Page::Chat);
        assert_eq!(drop("m.gguf"), Some(Meant::Act(Action::Picked(Pick::ModelFolder, at("m.gguf")))));
        assert_eq!(drop("adapter"), Some(Meant::Act(Action::Picked(Pick::Adapter, at("adapter")))));
        assert_eq!(meant(WindowEvent::HoveredFileCancelled, Page::Chat), None);
        let Some(Meant::Read(path)) = drop("book.txt") else { panic!("a document is read") };
        let (mut app, _) = App::new(Settings::default());
        app.on_action(Action::Document(read_document(&path).unwrap()));
        assert_eq!(app.chat.documents[0].name.as_str(), "book.txt");
    }

    #[test]
    fn data_dropped_on_the_page_for_training_is_training_data() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("train.jsonl");
        std::fs::write(&file, "{}").unwrap();
        for path in [file, dir.path().to_path_buf()] {
            let event = WindowEvent::DroppedFile(path.clone());
            let (mut app, _) = App::new(Settings::default());
            let Some(Meant::Act(action)) = meant(event, Page::Tune) else { panic!("{path:?} is not read") };
            app.on_action(action);
            assert_eq!((app.tune.data, app.chat.documents), (path.display().to_string(), vec![]));
        }
        let model = WindowEvent::DroppedFile("m.gguf".into());
        assert_eq!(meant(model, Page::Tune), Some(Meant::Act(Action::Picked(Pick::ModelFolder, "m.gguf".into()))));
    }

    #[test]
    fn a_dialog_that_ends_at_once_did_not_open() {
        assert!(no_dialog(Duration::from_millis(20)).unwrap().contains("type the path"));
        assert_eq!(no_dialog(Duration::from_secs(2)), None);
    }

    #[test]
    fn the_window_has_an_icon() {
        assert!(icon().is_some());
    }
}
