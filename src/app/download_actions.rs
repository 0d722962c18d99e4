//! Updates of the app's state for downloads: the offer, the progress, and opening what has come.

use std::path::PathBuf;

use super::downloads::{Download, DownloadEvent, DownloadState, Offer, Progress};
use super::message::ModelChoice;
use super::models::{ModelAction, Request};
use super::state::{About, App, Effect, Notice, Page};
use crate::checkpoint::hub_survey::Survey;

impl App {
    /// Updates the state for an action about a download.
    pub(super) fn on_download_action(&mut self, action: ModelAction) -> Vec<Effect> {
        match action {
            ModelAction::Look(model) => {
                let adapter = self.models.offer.take().and_then(|offer| offer.adapter);
                self.look(model, adapter)
            }
            ModelAction::DropOffer => {
                self.models.offer = None;
                vec![]
            }
            ModelAction::Download => self.accept_offer(),
            ModelAction::PauseDownload(true) => match &mut self.models.download {
                Some(download) if download.state == DownloadState::Running => {
                    download.end(DownloadState::Paused);
                    vec![Effect::Models(Request::EndDownload)]
                }
                _ => vec![],
            },
            ModelAction::PauseDownload(false) => match self.models.download.take() {
                Some(Download { survey, adapter, state, progress, .. }) if state != DownloadState::Running => {
                    self.start_download(survey, adapter, progress)
                }
                running => {
                    self.models.download = running;
                    vec![]
                }
            },
            ModelAction::StopDownload => match self.models.download.take() {
                Some(download) => {
                    let name = &download.survey.name;
                    let text = format!(
                        "Stopped downloading {name}. What has arrived stays, and a later download continues there."
                    );
                    self.notify(Notice::info(text));
                    [vec![Effect::Models(Request::EndDownload)], self.scan_models()].concat()
                }
                None => vec![],
            },
            _ => vec![],
        }
    }

    /// Asks whether a model is on this machine, and if it is not, what its download would bring.
    pub(super) fn look(&mut self, model: String, adapter: Option<PathBuf>) -> Vec<Effect> {
        self.page = Page::Models;
        self.models.offer = Some(Offer { model: model.clone(), adapter, answer: None });
        vec![Effect::Models(Request::Look(model))]
    }

    /// The worker was to open a model that is not on this machine. Offers its download.
    pub(super) fn not_downloaded(&mut self, choice: ModelChoice) -> Vec<Effect> {
        self.forget(About::Opening);
        self.look(choice.model, choice.adapter)
    }

    /// The model of the offer is on this machine: opens it.
    pub(super) fn is_here(&mut self, model: &str) -> Vec<Effect> {
        match self.models.offer.take_if(|offer| offer.model == model) {
            Some(offer) => self.open_listed(model, offer.adapter),
            None => vec![],
        }
    }

    /// Takes what the hub says about the model of the offer.
    pub(super) fn surveyed(&mut self, model: &str, answer: Result<Survey, String>) {
        if let Some(offer) = self.models.offer.as_mut().filter(|offer| offer.model == model) {
            offer.answer = Some(answer);
        }
    }

    /// Starts the download that the offer describes, if the disk has room for it and none is running.
    fn accept_offer(&mut self) -> Vec<Effect> {
        if let Some(running) = self.models.download.as_ref().filter(|d| d.state == DownloadState::Running) {
            let text = format!("{} is being downloaded. Wait until it is done, or stop it first.", running.survey.name);
            self.notify(Notice::info(text));
            return vec![];
        }
        let can_start = |survey: &Survey| !survey.files.is_empty() && survey.lacking_bytes() == 0;
        match self.models.offer.take() {
            Some(Offer { adapter, answer: Some(Ok(survey)), .. }) if can_start(&survey) => {
                let (total, missing) = (survey.total_bytes(), survey.missing_bytes());
                let bytes = (total - missing, total);
                let n_here = survey.files.iter().filter(|file| file.have == file.size).count();
                let progress = Progress { files: (n_here, survey.files.len()), bytes, ..Progress::default() };
                self.start_download(survey, adapter, progress)
            }
            offer => {
                self.models.offer = offer;
                vec![]
            }
        }
    }

    fn start_download(&mut self, survey: Survey, adapter: Option<PathBuf>, progress: Progress) -> Vec<Effect> {
        self.models.n_downloads += 1;
        let id = self.models.n_downloads;
        let request = Request::Download { id, survey: Box::new(survey.clone()) };
        self.models.download = Some(Download { id, survey, adapter, state: DownloadState::Running, progress });
        vec![Effect::Models(request)]
    }

    /// Takes a report of the thread of a download.
    pub(super) fn on_download_event(&mut self, id: u64, event: DownloadEvent) -> Vec<Effect> {
        let Some(download) = self.models.download.as_mut().filter(|download| download.id == id) else {
            return vec![]; // of a thread that was to end
        };
        match event {
            DownloadEvent::Progress(progress) if download.state == DownloadState::Running => {
                download.progress = progress
            }
            DownloadEvent::Progress(_) | DownloadEvent::Ended => {}
            DownloadEvent::Failed(why) => download.end(DownloadState::Failed(why)),
            DownloadEvent::Done { n_checked } => return self.downloaded(n_checked),
        }
        vec![]
    }

    /// A download is done: opens its model, unless the worker is busy or another model has read
    /// something.
    fn downloaded(&mut self, n_checked: usize) -> Vec<Effect> {
        let Some(Download { survey, adapter, .. }) = self.models.download.take() else { return vec![] };
        let checked = match n_checked {
            0 => String::new(),
            1 => " The SHA-256 of one file was compared with the hub's and is right.".to_string(),
            n => format!(" The SHA-256 of {n} files was compared with the hub's and is right."),
        };
        let scan = self.scan_models();
        let is_used = self.chat.model.is_some() && !self.conversation().is_empty();
        let later = match self.busy {
            None if is_used => " The Models page opens it.".to_string(),
            None => String::new(),
            Some(busy) => format!(" Open it when this is done: {}.", busy.text()),
        };
        self.notify(Notice::info(format!("{} is downloaded.{checked}{later}", survey.name)));
        if self.busy.is_some() || is_used {
            return scan;
        }
        [self.open_listed(&survey.name, adapter), scan].concat()
    }
}
