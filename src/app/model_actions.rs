//! Updates of the app's state for the models page: actions, reports of its threads, opened models.

use std::path::{Path, PathBuf};

use super::message::{AdapterLine, ModelChoice};
use super::models::{Entry, Fit, Listed, ModelAction, ModelEvent, Origin, Request, ScanJob};
use super::settings::move_to_front;
use super::state::{App, Effect, Page};
use crate::attention::Attention;
use crate::checkpoint::hub::is_id;
use crate::checkpoint::model_facts::ModelFacts;

/// Most models, and most adapters, that the settings remember.
const MOST_REMEMBERED: usize = 100;

/// Longest text that the fit of a model is judged with.
const FIT_TOKENS: usize = 8192;

impl App {
    /// Updates the state for an action of the models page.
    pub(super) fn on_model_action(&mut self, action: ModelAction) -> Vec<Effect> {
        match action {
            ModelAction::Scan => self.scan_models(),
            ModelAction::Open(model, adapter) if self.models.is_absent(&model) => self.look(model, adapter),
            ModelAction::Open(model, adapter) => self.open_listed(&model, adapter),
            // The text stays until the model is open: it may need a correction.
            ModelAction::OpenTyped => match self.models.field.trim().to_string() {
                path if path.is_empty() => vec![],
                id if is_id(&id) => self.look(id, None),
                path => self.open_listed(&path, None),
            },
            ModelAction::Train(model) => {
                self.tune.model = Some(model);
                self.settings.tune = self.tune.choices();
                self.page = Page::Tune;
                self.tune.history.is_shown = false;
                vec![Effect::SaveSettings]
            }
            ModelAction::Forget(model) => {
                self.settings.models.retain(|other| *other != model);
                if !self.settings.hidden_models.contains(&model) {
                    self.settings.hidden_models.insert(0, model);
                    self.settings.hidden_models.truncate(MOST_REMEMBERED);
                }
                vec![Effect::SaveSettings]
            }
            of_download => self.on_download_action(of_download),
        }
    }

    /// Updates the state for a report of the threads behind the page.
    pub(super) fn on_model_event(&mut self, event: ModelEvent) -> Vec<Effect> {
        match event {
            ModelEvent::Listed(listed) => self.models.list(listed),
            ModelEvent::Read(model, state) => {
                if let Some(entry) = self.models.entries.iter_mut().find(|entry| entry.listed.model == model) {
                    entry.state = state;
                }
            }
            ModelEvent::Adapters(adapters) => self.models.adapters = adapters,
            ModelEvent::Here(model) => return self.is_here(&model),
            ModelEvent::Surveyed(model, answer) => self.surveyed(&model, answer),
            ModelEvent::Downloading(id, event) => return self.on_download_event(id, event),
            ModelEvent::Scanned { host_bytes } => {
                self.models.is_scanning = false;
                self.models.host_bytes = host_bytes;
            }
        }
        vec![]
    }

    /// Lists the models again.
    pub(super) fn scan_models(&mut self) -> Vec<Effect> {
        self.models.is_scanning = true;
        let s = &self.settings;
        let job = ScanJob { models: s.models.clone(), adapters: s.adapters.clone(), out: s.out.clone() };
        vec![Effect::Models(Request::Scan(job))]
    }

    /// Opens a model of the list and shows the chat page, unless the worker is busy.
    pub(super) fn open_listed(&mut self, model: &str, adapter: Option<PathBuf>) -> Vec<Effect> {
        let device = self.settings.device.clone();
        let choice = ModelChoice { model: model.to_string(), adapter: adapter.clone(), device: device.clone() };
        let effects = self.open(choice);
        if effects.is_empty() {
            return effects;
        }
        self.settings.name(model, adapter.as_deref(), &device);
        self.page = Page::Chat;
        [effects, vec![Effect::SaveSettings]].concat()
    }

    /// Remembers the model and the adapter that were opened.
    pub(super) fn remember_opened(&mut self) -> Vec<Effect> {
        let ModelChoice { model, adapter, .. } = self.chat.choice.clone();
        let adapter = adapter.map(|path| path.display().to_string());
        let s = &mut self.settings;
        let was_hidden = s.hidden_models.contains(&model);
        s.hidden_models.retain(|other| *other != model);
        let is_known = self.models.entries.iter().any(|entry| entry.listed.model == model);
        // The bundled model has an empty name and stays out of the list.
        let is_new = !model.is_empty() && move_to_front(&mut s.models, &model, MOST_REMEMBERED);
        let has_new_adapter =
            adapter.is_some_and(|path| !path.is_empty() && move_to_front(&mut s.adapters, &path, MOST_REMEMBERED));
        if !is_new && !has_new_adapter && !was_hidden {
            return vec![];
        }
        let mut effects = vec![Effect::SaveSettings];
        if !is_known || has_new_adapter {
            effects.extend(self.scan_models());
        }
        effects
    }

    /// The models that the search finds and the user has not removed: the last opened first, then those
    /// of the cache by their date, and the bundled one last.
    pub fn shown_models(&self) -> Vec<&Entry> {
        let s = &self.settings;
        let is_shown =
            |entry: &&Entry| !s.hidden_models.contains(&entry.listed.model) && entry.is_found_by(&self.models.search);
        let mut shown: Vec<&Entry> = self.models.entries.iter().filter(is_shown).collect();
        shown.sort_by_key(|entry| {
            let Listed { model, origin, changed, .. } = &entry.listed;
            let rank = s.models.iter().position(|opened| opened == model).unwrap_or(usize::MAX);
            (rank, *origin == Origin::Bundled, std::cmp::Reverse(*changed))
        });
        shown
    }

    /// Whether a model is open, with this adapter or none.
    pub fn is_open(&self, model: &str, adapter: Option<&Path>) -> bool {
        let choice = &self.chat.choice;
        self.chat.model.is_some() && choice.model == model && choice.adapter.as_deref() == adapter
    }

    /// The memory that a model takes on the chosen device, with the chosen compression.
    pub fn fit(&self, facts: &ModelFacts) -> Fit {
        let n_tokens = facts.config.max_positions.min(FIT_TOKENS);
        let attention = self.attention().unwrap_or(Attention::Dense);
        let (device, device_bytes) = self.device_memory();
        let cache_bytes = facts.config.cache_bytes(attention, n_tokens);
        Fit { weight_bytes: facts.weight_bytes, cache_bytes, n_tokens, device, device_bytes }
    }

    /// The name of the chosen device and its memory, if it is known.
    fn device_memory(&self) -> (String, Option<u64>) {
        let adapters = self.devices.adapters.as_deref().unwrap_or_default();
        let is_hardware = |a: &&AdapterLine| {
            ["discrete", "integrated", "virtual"].contains(&a.device_type.as_str()) && a.backend != "gl"
        };
        let chosen = match self.settings.device.as_str() {
            "cpu" => None,
            "auto" => adapters.iter().find(is_hardware),
            name => match name.parse::<usize>() {
                Ok(index) => adapters.iter().find(|a| a.index == index),
                Err(_) => adapters.iter().find(|a| a.name.to_lowercase().contains(&name.to_lowercase())),
            },
        };
        match chosen {
            None => ("the CPU".to_string(), self.models.host_bytes),
            Some(a) if a.device_type == "software" => (a.name.clone(), self.models.host_bytes),
            Some(a) => (a.name.clone(), a.memory_bytes),
        }
    }
}
