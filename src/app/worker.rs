//! The thread that owns the engine.
//!
//! It runs one command at a time and reports progress as events. It survives panics and lost
//! devices: it reports the failure, and the window stays open.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::documents::Counter;
use super::labels::in_words;
use super::message::{AdapterLine, Command, Control, Event, TokenCount};
use super::worker_chat::{Engine, Found};
use super::worker_export;
use super::worker_jobs;
use super::worker_site::{Open, Site, Tell};
use crate::checkpoint::hub::needs_download;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{OpenOptions, adapters, open_device_with};
use crate::train::{Held, held};

/// Target time of one submit, so that the window can paint in between. A single command may take
/// longer.
const SLICE: Duration = Duration::from_millis(20);

/// Longest time that closing the window waits for the current step and its save.
const PATIENCE: Duration = Duration::from_secs(60);

/// The window's handle to the worker thread.
pub struct Worker {
    commands: Sender<Command>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
    pub control: Arc<Control>,
    site: Site,
}

impl Worker {
    /// Starts the thread.
    pub fn start(tell: Tell) -> Self {
        let options = OpenOptions { slice: SLICE, ..OpenOptions::default() };
        Self::start_with(tell, Arc::new(move |wanted| open_device_with(wanted, &options)))
    }

    /// Starts the thread with a function that opens devices.
    pub fn start_with(tell: Tell, open: Open) -> Self {
        let control = Arc::new(Control::default());
        let site = Site { control: control.clone(), tell, open, counter: Counter::default() };
        let (commands, ended) = spawn(site.clone());
        Self { commands, ended, control, site }
    }

    /// Sends a command. If the thread has ended, starts a new one instead. A later stop applies to
    /// this command.
    pub fn send(&mut self, command: Command) {
        self.control.begin();
        if let Err(SendError(_)) = self.commands.send(command) {
            (self.commands, self.ended) = spawn(self.site.clone());
            (self.site.tell)(Event::Restarted("The engine had ended and was restarted. Try again.".into()));
        }
    }
}

impl Worker {
    /// Counts the tokens of a document with the tokenizer of the open model, beside the current job.
    pub fn count(&self, count: TokenCount) {
        let tell = self.site.tell.clone();
        self.site.counter.count(count, move |event| tell(event));
    }

    /// Stops the current job and waits until it has saved its result. An error if the save failed
    /// or took too long.
    pub fn finish(&mut self) -> Result<()> {
        self.control.close();
        self.commands = channel().0; // the last sender is gone, which ends the thread
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(PATIENCE) {
            return Err(Error::new("the engine did not end within 60 s: unsaved results are lost"));
        }
        self.control.fault().map_or(Ok(()), |why| Err(Error::new(format!("after the window was closed: {why}"))))
    }
}

/// Spawns the thread. Returns the sender for its commands and a channel that disconnects when the
/// thread ends.
fn spawn(site: Site) -> (Sender<Command>, Receiver<()>) {
    let (sender, receiver) = channel();
    let (alive, ended) = channel();
    let tell = site.tell.clone();
    let spawned = thread::Builder::new().name("engine".into()).spawn(move || {
        let _alive = alive;
        work(&receiver, &site);
    });
    if let Err(e) = spawned {
        tell(Event::Failed(format!("the engine's thread could not be started: {e}")));
    }
    (sender, ended)
}

fn work(commands: &Receiver<Command>, site: &Site) {
    let tell = &site.tell;
    let mut engine: Option<Engine> = None;
    while let Ok(command) = commands.recv() {
        let done = catch_unwind(AssertUnwindSafe(|| carry_out(&mut engine, command, site)));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                let text = in_words(&e.to_string());
                site.control.note_fault(&text);
                if e.kind() == ErrorKind::DeviceLost {
                    engine = None;
                    tell(Event::Restarted(format!("{text}. The model is opened again.")));
                } else if e.kind() == ErrorKind::Interrupted {
                    tell(Event::Stopped);
                } else {
                    tell(Event::Failed(text));
                }
            }
            Err(panic) => {
                site.control.note_fault(said(&*panic));
                // The panic may have left the engine in an inconsistent state.
                engine = None;
                tell(Event::Restarted(format!(
                    "The engine failed: {}. The model will be opened again.",
                    said(&*panic)
                )));
            }
        }
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for an unknown reason")
}

fn carry_out(engine: &mut Option<Engine>, command: Command, site: &Site) -> Result<()> {
    let tell = &site.tell;
    match command {
        Command::ListAdapters => {
            tell(Event::Adapters(adapter_lines()));
            Ok(())
        }
        Command::Open(choice) if needs_download(&choice.model)? => {
            tell(Event::NotDownloaded(choice));
            Ok(())
        }
        Command::Open(choice) => {
            let found = Found::open(&choice, &site.open)?; // if this fails, the open model stays
            if engine.take().is_some() {
                tell(Event::Closed); // the weights of the next one take its memory
            }
            let opened = engine.insert(Engine::load(found, &site.control)?);
            site.counter.set(opened.shared_tokenizer());
            tell(Event::Opened(opened.card()));
            Ok(())
        }
        Command::Ask(question) => opened(engine)?.answer(&question, &site.control, tell),
        Command::Kept(question) => opened(engine)?.kept(&question, &site.control, tell),
        Command::Forecast { mut job, device } => {
            worker_jobs::with_own_validation(&mut job);
            let begin = || {
                if engine.take().is_some() {
                    tell(Event::Closed); // as for the run, which needs its memory
                }
            };
            worker_jobs::forecast(&job, &device, site, begin)
        }
        Command::Train { mut job, device, replace } => {
            worker_jobs::with_own_validation(&mut job);
            // A run that resumes says itself what keeps it from that.
            let found = if replace || job.resume { Held::Nothing } else { held(&job)? };
            let question = match found {
                Held::Other(_) => Some(Event::WouldReplace(job.out.clone())),
                Held::Unfinished => Some(Event::WouldContinue(job.out.clone())),
                Held::Nothing => None,
            };
            if let Some(question) = question {
                tell(question);
                return Ok(());
            }
            job.overwrite = replace;
            job.out = std::path::absolute(&job.out).unwrap_or(job.out); // as the history names it
            let begin = || {
                *engine = None; // the run needs its memory
                tell(Event::TrainBegan(job.clone()));
            };
            worker_jobs::train(&job, &device, site, begin)
        }
        Command::Export { job, replace, .. } if worker_export::asks(&job)? && !replace => {
            tell(Event::ExportExists(job.out));
            Ok(())
        }
        Command::Export { job, device, .. } => {
            if engine.take().is_some() {
                tell(Event::Closed); // the export loads the model itself
            }
            worker_export::run(&job, &device, site)
        }
        Command::Check { device } => worker_jobs::check(&device, site),
    }
}

fn opened(engine: &mut Option<Engine>) -> Result<&mut Engine> {
    engine.as_mut().ok_or_else(|| Error::new("no model is open"))
}

fn adapter_lines() -> Vec<AdapterLine> {
    let line = |a: &crate::gpu::AdapterReport| AdapterLine {
        index: a.index,
        name: a.name.clone(),
        backend: a.backend.to_string(),
        device_type: a.device_type.to_string(),
        driver: a.driver.clone(),
        features: a.features.iter().map(|f| f.to_string()).collect(),
        max_binding_mib: a.limits.max_storage_buffer_binding_size >> 20,
        memory_bytes: a.memory_bytes,
    };
    adapters().iter().map(line).collect()
}
