//! Exports on the worker: writes a model for other programs and reports how the comparison went.

use std::path::Path;

use super::labels::in_words;
use super::message::Event;
use super::worker_site::Site;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::export::{ExportJob, ExportObserver, export};

/// The name under which a file is written that replaces another one.
const REPLACEMENT: &str = ".longreach-replacement.gguf";

/// Whether an export has to ask before it begins: there is a file of its name. Fails for what cannot
/// be exported. A folder is never replaced.
pub fn asks(job: &ExportJob) -> Result<bool> {
    let asks = job.to.is_file() && job.out.is_file();
    if !asks {
        job.validate()?;
    }
    Ok(asks)
}

/// Forwards the progress of an export as events.
struct Watch<'a>(&'a Site);

impl ExportObserver for Watch<'_> {
    fn note(&mut self, text: &str) {
        (self.0.tell)(Event::ExportNote(in_words(text)));
    }

    fn written(&mut self, done: usize, total: usize) -> Result<()> {
        if self.0.control.is_ending() {
            return Err(Error::of_kind(ErrorKind::Interrupted, "stopped: nothing is written"));
        }
        (self.0.tell)(Event::Exporting { done, total });
        Ok(())
    }
}

/// Exports a model, in place of a file of that name if there is one.
pub fn run(job: &ExportJob, device: &str, site: &Site) -> Result<()> {
    let mut device = (site.open)(device)?;
    let replaces = asks(job)?;
    let place = if replaces { job.out.with_file_name(REPLACEMENT) } else { job.out.clone() };
    if replaces {
        remove_stale(&place)?;
    }
    match export(&ExportJob { out: place.clone(), ..job.clone() }, &mut *device, &mut Watch(site)) {
        Err(e) if e.kind() == ErrorKind::Interrupted => (site.tell)(Event::ExportStopped),
        done => {
            let exported = done?;
            if replaces {
                std::fs::rename(&place, &job.out).with_context(|| format!("replacing {}", job.out.display()))?;
            }
            (site.tell)(Event::Exported { out: job.out.clone(), exported });
        }
    }
    Ok(())
}

/// Removes what an export left that was killed.
fn remove_stale(place: &Path) -> Result<()> {
    if place.is_file() {
        std::fs::remove_file(place).with_context(|| format!("removing {}", place.display()))?;
    }
    Ok(())
}
