//! The app as a state machine: user actions and worker events in, the next state and effects out.
//!
//! It touches no window, no file and no device. `events.rs` handles the events of the worker, and
//! `asking.rs` what is asked of it about the conversation.

use std::path::PathBuf;

use super::chat::{Chat, Dropped, attention, dropped};
use super::conversations::{Conversations, Order};
use super::devices::Devices;
use super::documents::Document;
use super::message::{Command, ModelChoice, TokenCount};
use super::models::{ModelAction, Models, Request};
use super::settings::{Settings, Theme};
use super::tune::{Tune, TuneAction};
use crate::attention::Attention;

/// The page that the window shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    #[default]
    Chat,
    Models,
    Tune,
    Devices,
}

/// The current job of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    Opening,
    Answering,
    Keeping,
    Forecasting,
    Training,
    Exporting,
    Checking,
}

impl Busy {
    /// Text for the status bar.
    pub fn text(self) -> &'static str {
        match self {
            Self::Opening => "Opening the model",
            Self::Answering => "Answering",
            Self::Keeping => "Finding the kept tokens",
            Self::Forecasting => "Checking the run",
            Self::Training => "Training",
            Self::Exporting => "Exporting",
            Self::Checking => "Checking the device",
        }
    }
}

/// The subject of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Opening a model, until one is open.
    Opening,
    /// Reading a document, until one is read.
    Reading,
    /// A training run, until another one begins or its result is saved.
    Run,
    /// A job that has to end first, until another one starts.
    Busy,
    Other,
}

/// A message that stays until the user dismisses it, or until what it is about has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub about: About,
    pub is_error: bool,
    pub text: String,
}

impl Notice {
    pub fn error(text: impl Into<String>) -> Self {
        Self { about: About::Other, is_error: true, text: text.into() }
    }

    pub fn info(text: impl Into<String>) -> Self {
        Self { is_error: false, ..Self::error(text) }
    }
}

/// The path that a file dialog asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    ModelFolder,
    ModelFile,
    Adapter,
    Document,
    Data,
    Out,
    Export,
}

/// An action of the user.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Show(Page),
    OpenModel,
    Pick(Pick),
    Picked(Pick, PathBuf),
    /// Read the document at the path in the document field.
    Read,
    /// Add a document that was read.
    Document(Document),
    RemoveDocument(usize),
    /// Ask what is typed, or put it into the queue while an answer is being written.
    Ask,
    /// Remove a question from the queue.
    Unqueue(usize),
    Regenerate,
    /// Continue the last answer, which was cut.
    Continue,
    /// Ask the edited question in place of the old one.
    Resend,
    /// Show another version of a turn.
    ShowVersion(usize, usize),
    NewChat,
    OpenChat(String),
    RenameChat(String, String),
    DeleteChat(String),
    ExportChat(String, PathBuf),
    Stop,
    ShowKept(bool),
    /// Mark the places of the documents that share words with the last answer.
    Evidence,
    Copy(String),
    /// Say what the run will take, and train nothing.
    CheckRun,
    Train,
    /// Train, and replace the result of an earlier run in the same folder.
    Replace,
    /// Continue the run in the output folder.
    ContinueRun,
    Pause(bool),
    /// After a failed final save: whether to try again.
    SaveAgain(bool),
    ChatWithAdapter,
    /// Something else on the page for fine-tuning.
    Tune(TuneAction),
    Check(String),
    SaveReport(PathBuf),
    Models(ModelAction),
    SettingsChanged,
    Dismiss(usize),
    /// Close the window.
    Close,
}

/// A side effect that the window carries out.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Send(Command),
    /// Count tokens without waiting for the worker.
    Count(TokenCount),
    Stop,
    Pause(bool),
    Answer(bool),
    Pick(Pick),
    Read(PathBuf),
    Store(Order),
    Save(PathBuf, String),
    Copy(String),
    /// Count the examples of training data.
    CountData(PathBuf),
    /// Read the runs below some folders.
    ReadRuns(Vec<PathBuf>),
    Models(Request),
    SaveSettings,
    Close,
}

/// The state of the app.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct App {
    pub page: Page,
    pub settings: Settings,
    pub chat: Chat,
    pub conversations: Conversations,
    pub models: Models,
    pub tune: Tune,
    pub devices: Devices,
    pub busy: Option<Busy>,
    pub notices: Vec<Notice>,
    /// Whether files can be dropped into the window.
    pub can_drop: bool,
    /// Whether the window closes when the worker has saved what it does.
    pub closing: bool,
}

impl App {
    /// The app with its saved settings, and the first effects to carry out.
    pub fn new(settings: Settings) -> (Self, Vec<Effect>) {
        let mut app = Self { settings, can_drop: true, ..Self::default() };
        app.chat.text_size = 14.0;
        app.tune.take(app.settings.tune.clone());
        app.tune.data.clone_from(&app.settings.data);
        app.tune.out.clone_from(&app.settings.out);
        let open = app.open_model();
        let mut effects = vec![Effect::Send(Command::ListAdapters), Effect::Store(Order::List)];
        if !app.settings.conversation.is_empty() {
            effects.push(Effect::Store(Order::Load(app.settings.conversation.clone())));
        }
        let count = app.count_data();
        (app, [effects, open, count].concat())
    }

    /// The attention for the selected compression.
    pub fn attention(&self) -> crate::error::Result<Attention> {
        attention(self.settings.sink, self.settings.lag, self.settings.factor)
    }

    /// The model that the input fields name.
    pub fn choice(&self) -> ModelChoice {
        let adapter = self.settings.adapter.trim();
        ModelChoice {
            model: self.settings.model.trim().to_string(),
            adapter: (!adapter.is_empty()).then(|| PathBuf::from(adapter)),
            device: self.settings.device.clone(),
        }
    }

    /// Shows a notice in place of an earlier one about the same.
    pub fn notify(&mut self, notice: Notice) {
        if notice.about != About::Other {
            self.forget(notice.about);
        }
        self.notices.retain(|other| other.text != notice.text);
        self.notices.push(notice);
    }

    /// Removes the notices about something that has changed.
    pub(super) fn forget(&mut self, about: About) {
        self.notices.retain(|notice| notice.about != about);
    }

    pub(super) fn say(&mut self, about: About, text: impl Into<String>) {
        self.notify(Notice { about, ..Notice::info(text) });
    }

    /// Whether the worker is idle. If it is busy, adds a notice.
    pub(super) fn is_free(&mut self) -> bool {
        if let Some(now) = self.busy {
            let text = format!("{} is still in progress. Wait until it is done, or stop it first.", now.text());
            self.say(About::Busy, text);
        }
        self.busy.is_none()
    }

    /// Sends a command that keeps the worker busy, if it is free.
    pub(super) fn start(&mut self, busy: Busy, command: Command) -> Vec<Effect> {
        if !self.is_free() {
            return vec![];
        }
        self.busy = Some(busy);
        self.forget(About::Busy);
        vec![Effect::Send(command)]
    }

    pub(super) fn open_model(&mut self) -> Vec<Effect> {
        self.open(self.choice())
    }

    pub(super) fn open(&mut self, choice: ModelChoice) -> Vec<Effect> {
        let effects = self.start(Busy::Opening, Command::Open(choice.clone()));
        if !effects.is_empty() {
            self.chat.opening = Some(choice);
            self.conversations.keeps_settings = false;
            (self.chat.closed, self.chat.reopening) = (None, None);
        }
        effects
    }

    /// Updates the state for an action of the user and returns the effects to carry out.
    pub fn on_action(&mut self, action: Action) -> Vec<Effect> {
        self.chat.wants_focus |= leads_to_typing(&action);
        match action {
            Action::Show(page) => {
                self.page = page;
                if page == Page::Models { self.scan_models() } else { vec![] }
            }
            Action::OpenModel => [self.open_model(), vec![Effect::SaveSettings]].concat(),
            Action::Pick(pick) => vec![Effect::Pick(pick)],
            Action::Picked(pick, path) => self.picked(pick, path),
            Action::Read if self.chat.path.trim().is_empty() => vec![],
            Action::Read => match dropped(PathBuf::from(self.chat.path.trim())) {
                Dropped::Document(path) => vec![Effect::Read(path)],
                Dropped::Model(path) => self.typed(Pick::ModelFile, path),
                Dropped::Adapter(path) => self.typed(Pick::Adapter, path),
            },
            Action::Document(_) | Action::RemoveDocument(_) => self.act_on_documents(action),
            Action::Ask if self.busy == Some(Busy::Answering) => {
                let question = std::mem::take(&mut self.chat.draft).trim().to_string();
                self.chat.queued.extend(Some(question).filter(|question| !question.is_empty()));
                vec![]
            }
            Action::Ask => self.ask(),
            Action::Unqueue(i) => {
                if i < self.chat.queued.len() {
                    self.chat.queued.remove(i);
                }
                vec![]
            }
            Action::Continue => self.ask_with(|chat, attention, max| chat.go_on(attention, max)),
            Action::Regenerate => self.ask_with(|chat, attention, max| chat.regenerate(attention, max)),
            Action::Resend => self.ask_with(|chat, attention, max| chat.resend(attention, max)),
            Action::ShowVersion(i, to) => {
                if self.is_free() {
                    self.chat.show_version(i, to);
                }
                vec![]
            }
            Action::NewChat
            | Action::OpenChat(_)
            | Action::RenameChat(..)
            | Action::DeleteChat(_)
            | Action::ExportChat(..) => self.act_on_conversations(action),
            // A run whose final save failed waits for an answer; a stop would have no effect.
            Action::Stop if self.tune.save_failed.is_some() => self.on_action(Action::Show(Page::Tune)),
            Action::Stop => {
                self.tune.stops = self.tune.is_running();
                vec![Effect::Stop]
            }
            Action::ShowKept(shown) => self.show_kept(shown),
            Action::Evidence => self.find_evidence(),
            Action::Copy(text) => {
                self.notify(Notice::info("Copied."));
                vec![Effect::Copy(text)]
            }
            Action::CheckRun
            | Action::Train
            | Action::Replace
            | Action::ContinueRun
            | Action::Pause(_)
            | Action::SaveAgain(_)
            | Action::ChatWithAdapter => self.act_on_tune(action),
            Action::Tune(action) => self.on_tune(action),
            Action::Check(device) => {
                let effects = self.start(Busy::Checking, Command::Check { device: device.clone() });
                if !effects.is_empty() {
                    self.devices.begin_check(&device);
                }
                effects
            }
            Action::SaveReport(path) => match &self.devices.result {
                Some(result) => vec![Effect::Save(path, result.report.clone())],
                None => vec![],
            },
            Action::Models(action) => self.on_model_action(action),
            Action::SettingsChanged => vec![Effect::SaveSettings],
            Action::Dismiss(i) => {
                if i < self.notices.len() {
                    self.notices.remove(i);
                }
                vec![]
            }
            Action::Close if self.tune.save_failed.is_some() && !self.tune.gives_up => {
                self.tune.gives_up = true;
                let text = "The trained weights are not saved. Close the window again to discard them.";
                self.notify(Notice { about: About::Run, ..Notice::error(text) });
                self.on_action(Action::Show(Page::Tune))
            }
            Action::Close if self.must_finish() && self.tune.save_failed.is_none() && !self.closing => {
                self.closing = true;
                self.tune.stops = self.tune.is_running();
                let text = "The window closes as soon as the work is saved. Close it again to close it at once.";
                self.notify(Notice { about: About::Run, ..Notice::info(text) });
                vec![Effect::Stop]
            }
            Action::Close => {
                self.chat.unqueue_all();
                vec![Effect::Close]
            }
        }
    }

    /// Whether the worker does something that ends with files to write.
    pub fn must_finish(&self) -> bool {
        matches!(self.busy, Some(Busy::Training | Busy::Exporting))
    }

    /// Opens what the field for a document names, if that is none.
    fn typed(&mut self, pick: Pick, path: PathBuf) -> Vec<Effect> {
        self.chat.path.clear();
        self.picked(pick, path)
    }

    fn picked(&mut self, pick: Pick, path: PathBuf) -> Vec<Effect> {
        let text = path.display().to_string();
        match pick {
            Pick::ModelFolder | Pick::ModelFile => {
                self.settings.model = text;
                self.settings.adapter.clear();
                self.on_action(Action::OpenModel)
            }
            Pick::Adapter => {
                self.settings.adapter = text;
                self.on_action(Action::OpenModel)
            }
            Pick::Data => {
                self.tune.data = text;
                self.count_data()
            }
            Pick::Out => {
                self.tune.out = text;
                vec![]
            }
            Pick::Export => {
                self.tune.export.out = text;
                vec![]
            }
            Pick::Document => vec![], // the window reads the file and sends `Action::Document`
        }
    }

    /// Switches to the next theme: system, light, dark.
    pub fn next_theme(&mut self) {
        self.settings.theme = match self.settings.theme {
            Theme::System => Theme::Light,
            Theme::Light => Theme::Dark,
            Theme::Dark => Theme::System,
        };
    }
}

/// Whether the user goes on typing a question after this action.
fn leads_to_typing(action: &Action) -> bool {
    matches!(
        action,
        Action::Show(Page::Chat)
            | Action::Document(_)
            | Action::RemoveDocument(_)
            | Action::Ask
            | Action::Unqueue(_)
            | Action::Regenerate
            | Action::Continue
            | Action::Stop
            | Action::ShowKept(_)
            | Action::Resend
            | Action::ShowVersion(..)
            | Action::NewChat
            | Action::OpenChat(_)
            | Action::Copy(_)
    )
}
