//! The effects of the state that the window carries out: commands, files, dialogs, and work on other
//! threads.

use std::path::PathBuf;
use std::time::Instant;

use super::event_loop::{Handler, KEEP_EVERY, Message};
use crate::app::data_counts::DataCounts;
use crate::app::desktop::{fresh_id, no_dialog};
use crate::app::documents::read_document;
use crate::app::free_name::save;
use crate::app::history::MOST_RUNS;
use crate::app::message::Event;
use crate::app::state::{Effect, Notice, Pick};
use crate::train::PastRun;

impl Handler {
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(command) => self.worker.send(command),
                Effect::Store(order) => {
                    if let Some(store) = &self.store {
                        store.send(order);
                    }
                }
                Effect::Count(count) => self.worker.count(count),
                Effect::Stop => self.worker.control.stop(),
                Effect::Answer(again) => self.worker.control.answer(again),
                Effect::Pause(paused) => self.worker.control.pause(paused),
                Effect::Pick(pick) => self.pick(pick),
                Effect::Read(path) => self.read(vec![path]),
                Effect::Save(path, text) => {
                    let saved = save(&path, &text);
                    let notice = match saved {
                        Ok(path) => Notice::info(format!("Saved {}", path.display())),
                        Err(e) => Notice::error(e.to_string()),
                    };
                    self.app.notify(notice);
                }
                Effect::CountData(path) => self.aside(move || Event::DataCounted(DataCounts::of(&path))),
                Effect::ReadRuns(folders) => self.aside(move || Event::Runs(PastRun::find(&folders, MOST_RUNS))),
                Effect::Models(request) => self.library.carry_out(request),
                Effect::Copy(text) => self.context.copy_text(text),
                Effect::SaveSettings => {
                    if let Some(path) = &self.settings_path
                        && let Err(e) = self.app.settings.save(path)
                    {
                        self.app.notify(Notice::error(e.to_string()));
                    }
                }
                Effect::Close => {
                    self.worker.control.stop();
                    self.closes = true;
                }
            }
        }
    }

    /// Saves the conversation if it has changed: at once what was asked or answered, other changes at
    /// most once in [`KEEP_EVERY`].
    pub(super) fn keep(&mut self) {
        if !std::mem::take(&mut self.may_have_changed) {
            return;
        }
        let due = self.kept_at + KEEP_EVERY;
        if Instant::now() < due && !self.app.must_keep() {
            self.may_have_changed = true;
            return;
        }
        self.kept_at = Instant::now();
        let effects = self.app.keep();
        self.carry_out(effects);
        if self.app.conversations.fresh_id.is_empty() {
            self.app.conversations.fresh_id = fresh_id();
        }
    }

    /// Opens the platform's file dialog on another thread, which sends the picked path later.
    fn pick(&self, pick: Pick) {
        let dialog = rfd::AsyncFileDialog::new();
        let (proxy, asked_at) = (self.proxy.clone(), Instant::now());
        let send = move |found: Option<rfd::FileHandle>| {
            let message = match found {
                Some(file) => Message::Picked(pick, file.path().to_path_buf()),
                None => match no_dialog(asked_at.elapsed()) {
                    Some(text) => Message::Notice(Notice::error(text)),
                    None => return,
                },
            };
            let _ = proxy.send_event(message);
        };
        let thread = std::thread::Builder::new().name("dialog".into());
        let spawned = match pick {
            Pick::ModelFile => {
                let asked = dialog.add_filter("GGUF", &["gguf"]).pick_file();
                thread.spawn(move || send(pollster::block_on(asked)))
            }
            Pick::Document => {
                let asked = dialog.pick_file();
                thread.spawn(move || send(pollster::block_on(asked)))
            }
            Pick::Export => {
                let asked = dialog.save_file();
                thread.spawn(move || send(pollster::block_on(asked)))
            }
            Pick::ModelFolder | Pick::Adapter | Pick::Data | Pick::Out => {
                let asked = dialog.pick_folder();
                thread.spawn(move || send(pollster::block_on(asked)))
            }
        };
        if let Err(e) = spawned {
            let text = format!("the file dialog could not be opened ({e}): type the path instead");
            let _ = self.proxy.send_event(Message::Notice(Notice::error(text)));
        }
    }

    /// Does something on another thread, so that it goes on beside the worker's job.
    fn aside(&self, work: impl FnOnce() -> Event + Send + 'static) {
        let proxy = self.proxy.clone();
        std::thread::spawn(move || {
            let _ = proxy.send_event(Message::Worker(work()));
        });
    }

    /// Reads documents on another thread, one after another.
    pub(super) fn read(&self, paths: Vec<PathBuf>) {
        let (proxy, serial) = (self.proxy.clone(), self.app.conversations.serial);
        std::thread::spawn(move || {
            for path in paths {
                let _ = proxy.send_event(Message::Read(serial, read_document(&path)));
            }
        });
    }
}
