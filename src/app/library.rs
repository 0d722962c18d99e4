//! The threads behind the models page: one makes the list, one looks up a model, one downloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::downloads::DownloadEvent;
use super::message::Event;
use super::model_download::{download, why};
use super::model_scan::scan;
use super::models::{ModelEvent, Request};
use super::worker_site::Tell;
use crate::checkpoint::hub::{Hub, Name};
use crate::error::Result;

/// Finds the hub and its cache.
pub type FindHub = Arc<dyn Fn() -> Result<Hub> + Send + Sync>;

/// Carries out the requests of the models page.
pub struct Library {
    tell: Tell,
    hub: FindHub,
    /// Ends the thread that makes the list.
    end_scan: Arc<AtomicBool>,
    /// Ends the thread that downloads.
    end_download: Arc<AtomicBool>,
}

impl Library {
    /// A library with the hub of the environment.
    pub fn new(tell: Tell) -> Self {
        Self::with_hub(tell, Arc::new(|| Ok(Hub { progress: false, ..Hub::from_env()? })))
    }

    /// A library that finds its hub with `hub`.
    pub fn with_hub(tell: Tell, hub: FindHub) -> Self {
        Self { tell, hub, end_scan: Arc::default(), end_download: Arc::default() }
    }

    /// Starts what a request asks for. Does not wait.
    pub fn carry_out(&mut self, request: Request) {
        let hub = self.hub.clone();
        match request {
            Request::Scan(job) => {
                let end = renewed(&mut self.end_scan);
                let failed = ModelEvent::Scanned { host_bytes: None };
                self.spawn("models", failed, move |tell| {
                    scan(&job, hub().ok().as_ref(), &|| end.load(Ordering::Acquire), &|event| tell(event));
                });
            }
            Request::Look(model) => {
                let failed = ModelEvent::Surveyed(model.clone(), Err("no thread could be started".into()));
                self.spawn("look up", failed, move |tell| tell(look(model, &hub)));
            }
            Request::Download { id, survey } => {
                let end = renewed(&mut self.end_download);
                let failed = DownloadEvent::Failed("no thread could be started".into());
                self.spawn("download", ModelEvent::Downloading(id, failed), move |tell| {
                    let tell = |event| tell(ModelEvent::Downloading(id, event));
                    match hub() {
                        Ok(hub) => download(&hub, &survey, &|| end.load(Ordering::Acquire), &tell),
                        Err(e) => tell(DownloadEvent::Failed(why(&e))),
                    }
                });
            }
            Request::EndDownload => self.end_download.store(true, Ordering::Release),
        }
    }

    /// Runs `work` on a new thread. Reports `failed` if there can be none.
    fn spawn(&self, name: &str, failed: ModelEvent, work: impl FnOnce(&dyn Fn(ModelEvent)) + Send + 'static) {
        let tell = self.tell.clone();
        let work = move || work(&|event| tell(Event::Models(event)));
        if std::thread::Builder::new().name(name.into()).spawn(work).is_err() {
            (self.tell)(Event::Models(failed));
        }
    }
}

/// Ends the thread of a flag, and returns the flag of the next one.
fn renewed(end: &mut Arc<AtomicBool>) -> Arc<AtomicBool> {
    end.store(true, Ordering::Release);
    *end = Arc::default();
    end.clone()
}

/// Whether a model is on this machine, else what its download would bring.
fn look(model: String, hub: &FindHub) -> ModelEvent {
    let answer = hub().and_then(|hub| {
        let is_here =
            std::path::Path::new(&model).exists() || Name::parse(&model).is_some_and(|name| hub.find(&name).is_some());
        if is_here { Ok(None) } else { hub.survey(&model).map(Some) }
    });
    match answer {
        Ok(None) => ModelEvent::Here(model),
        Ok(Some(survey)) => ModelEvent::Surveyed(model, Ok(survey)),
        Err(e) => ModelEvent::Surveyed(model, Err(why(&e))),
    }
}
