//! The app as a state machine: user actions and worker events in, the next state and effects out.
//!
//! It touches no window, no file and no device. `events.rs` handles the events of the worker.

use std::path::PathBuf;

use super::chat::{Chat, Document, attention};
use super::devices::Devices;
use super::message::{Command, ModelChoice};
use super::models::{ModelAction, Models, Request};
use super::settings::{Settings, Theme};
use super::tune::{Estimate, Preview, RunState, Tune};
use crate::attention::Attention;
use crate::train::TrainJob;

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
    Previewing,
    Estimating,
    Training,
    Checking,
}

impl Busy {
    /// Text for the status bar.
    pub fn text(self) -> &'static str {
        match self {
            Self::Opening => "Opening the model",
            Self::Answering => "Answering",
            Self::Keeping => "Finding the kept tokens",
            Self::Previewing => "Reading the data",
            Self::Estimating => "Estimating memory",
            Self::Training => "Training",
            Self::Checking => "Checking the device",
        }
    }
}

/// The subject of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Opening a model, until one is open.
    Opening,
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
    Document(Document),
    ForgetDocument,
    /// Ask what is typed, or put it into the queue while an answer is being written.
    Ask,
    /// Remove a question from the queue.
    Unqueue(usize),
    Regenerate,
    /// Continue the last answer, which was cut.
    Continue,
    Restart,
    Stop,
    ShowKept(bool),
    SaveConversation(PathBuf),
    Copy(String),
    Preview,
    Estimate,
    Train,
    /// Train, and replace the result of an earlier run in the same folder.
    Replace,
    Pause(bool),
    /// After a failed final save: whether to try again.
    SaveAgain(bool),
    ChatWithAdapter,
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
    Stop,
    Pause(bool),
    Answer(bool),
    Pick(Pick),
    Read(PathBuf),
    Save(PathBuf, String),
    Copy(String),
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
    pub models: Models,
    pub tune: Tune,
    pub devices: Devices,
    pub busy: Option<Busy>,
    pub notices: Vec<Notice>,
}

impl App {
    /// The app with its saved settings, and the first effects to carry out.
    pub fn new(settings: Settings) -> (Self, Vec<Effect>) {
        let mut app = Self { settings, ..Self::default() };
        app.chat.text_size = 14.0;
        app.tune.factor = 4;
        app.tune.data.clone_from(&app.settings.data);
        app.tune.out.clone_from(&app.settings.out);
        let open = app.open_model();
        (app, [vec![Effect::Send(Command::ListAdapters)], open].concat())
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

    /// The training run that the page describes.
    pub fn job(&self) -> TrainJob {
        let s = &self.settings;
        self.tune.job(s.model.trim(), s.sink, s.lag)
    }

    /// The command line of the same run.
    pub fn command_line(&self) -> String {
        let s = &self.settings;
        self.tune.command_line(s.model.trim(), s.sink, s.lag, &s.device)
    }

    /// Shows a notice in place of an earlier one about the same.
    pub fn notify(&mut self, notice: Notice) {
        if notice.about != About::Other {
            self.forget(notice.about);
        }
        self.notices.push(notice);
    }

    /// Removes the notices about something that has changed.
    pub(super) fn forget(&mut self, about: About) {
        self.notices.retain(|notice| notice.about != about);
    }

    fn say(&mut self, about: About, text: impl Into<String>) {
        self.notify(Notice { about, ..Notice::info(text) });
    }

    /// Whether the worker is idle. If it is busy, adds a notice.
    fn is_free(&mut self) -> bool {
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
            Action::Read => match self.chat.path.trim() {
                "" => vec![],
                path => vec![Effect::Read(PathBuf::from(path))],
            },
            Action::Document(document) => {
                if let Some(now @ (Busy::Answering | Busy::Keeping)) = self.busy {
                    let text = format!("{} is still in progress. Change the document when it is done.", now.text());
                    self.say(About::Busy, text);
                    return vec![];
                }
                self.page = Page::Chat;
                self.chat.restart();
                self.chat.document = Some(document);
                vec![]
            }
            Action::ForgetDocument => {
                self.chat.restart();
                self.chat.document = None;
                vec![]
            }
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
            Action::Restart => {
                self.chat.restart();
                vec![]
            }
            // A run whose final save failed waits for an answer; a stop would have no effect.
            Action::Stop if self.tune.save_failed.is_some() => self.on_action(Action::Show(Page::Tune)),
            Action::Stop => vec![Effect::Stop],
            Action::ShowKept(shown) => self.show_kept(shown),
            Action::SaveConversation(path) => vec![Effect::Save(path, self.chat.transcript())],
            Action::Copy(text) => vec![Effect::Copy(text)],
            Action::Preview
            | Action::Estimate
            | Action::Train
            | Action::Replace
            | Action::Pause(_)
            | Action::SaveAgain(_)
            | Action::ChatWithAdapter => self.act_on_tune(action),
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
            Action::Close => vec![Effect::Close],
        }
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
                vec![]
            }
            Pick::Out => {
                self.tune.out = text;
                vec![]
            }
            Pick::Document => vec![], // the window reads the file and sends `Action::Document`
        }
    }

    fn ask(&mut self) -> Vec<Effect> {
        self.ask_with(|chat, attention, max| chat.ask(attention, max))
    }

    /// Asks the next question of the queue. The text in the field stays there.
    pub(super) fn ask_queued(&mut self) -> Vec<Effect> {
        if self.chat.queued.is_empty() {
            return vec![];
        }
        let question = self.chat.queued.remove(0);
        let typed = std::mem::replace(&mut self.chat.draft, question);
        let effects = self.ask();
        if effects.is_empty() {
            let question = std::mem::replace(&mut self.chat.draft, typed);
            self.chat.put_back(&question);
        } else {
            self.chat.draft = typed;
        }
        effects
    }

    fn ask_with(
        &mut self,
        question: impl FnOnce(&mut Chat, Attention, usize) -> Option<super::message::Question>,
    ) -> Vec<Effect> {
        if self.chat.model.is_none() {
            self.say(About::Opening, "No model is open. Open one first.");
            return vec![];
        }
        if !self.is_free() {
            return vec![];
        }
        match self.attention() {
            Err(e) => {
                self.notify(Notice::error(e.to_string()));
                vec![]
            }
            Ok(attention) => match question(&mut self.chat, attention, self.settings.max_tokens) {
                Some(question) => self.start(Busy::Answering, Command::Ask(question)),
                None => vec![],
            },
        }
    }

    fn show_kept(&mut self, shown: bool) -> Vec<Effect> {
        if !shown || self.chat.kept.is_some() {
            self.chat.shows_kept = shown;
            return vec![];
        }
        self.start(Busy::Keeping, Command::Kept)
    }

    fn act_on_tune(&mut self, action: Action) -> Vec<Effect> {
        let (model, device, job) = (self.settings.model.trim().to_string(), self.settings.device.clone(), self.job());
        match action {
            Action::Preview => {
                self.tune.preview = Preview { model, data: job.data.clone(), examples: vec![] };
                let command = Command::Preview { choice: self.choice(), data: job.data };
                self.start(Busy::Previewing, command)
            }
            Action::Estimate => {
                self.tune.estimate = Estimate { job: job.clone(), device: device.clone(), bytes: None };
                self.start(Busy::Estimating, Command::Estimate { job: Box::new(job), device })
            }
            Action::Train | Action::Replace => {
                let replace = action == Action::Replace;
                let effects = self.start(Busy::Training, Command::Train { job: Box::new(job), device, replace });
                if effects.is_empty() {
                    return effects;
                }
                self.tune.would_replace = None;
                self.forget(About::Run);
                if matches!(self.tune.run, RunState::Failed(_)) {
                    self.tune.run = RunState::Idle;
                }
                self.settings.data.clone_from(&self.tune.data);
                self.settings.out.clone_from(&self.tune.out);
                [effects, vec![Effect::SaveSettings]].concat()
            }
            Action::Pause(paused) if self.tune.is_running() => {
                self.tune.run = if paused { RunState::Paused } else { RunState::Running };
                vec![Effect::Pause(paused)]
            }
            Action::SaveAgain(again) if self.tune.save_failed.take().is_some() => {
                self.tune.gives_up = false;
                self.forget(About::Run);
                vec![Effect::Answer(again)]
            }
            Action::ChatWithAdapter => {
                self.settings.adapter.clone_from(&self.tune.run_out);
                self.settings.factor = self.tune.factor.max(1);
                self.page = Page::Chat;
                self.on_action(Action::OpenModel)
            }
            _ => vec![],
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
        Action::Document(_)
            | Action::ForgetDocument
            | Action::Ask
            | Action::Unqueue(_)
            | Action::Regenerate
            | Action::Continue
            | Action::Restart
            | Action::Stop
            | Action::ShowKept(_)
            | Action::SaveConversation(_)
            | Action::Copy(_)
    )
}
