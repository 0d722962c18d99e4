//! Finds the models and adapters on this machine and reads their headers, on a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::labels::in_words;
use super::model_adapters::{Base, adapters, changed, seconds};
use super::models::{EntryState, Known, Listed, ModelEvent, Origin, ScanJob};
use crate::checkpoint::bundled;
use crate::checkpoint::fingerprint::fingerprint;
use crate::checkpoint::hub::{Hub, Name};
use crate::checkpoint::hub_list::Cached;
use crate::checkpoint::model_facts::{ModelFacts, disk_bytes};
use crate::checkpoint::weights::WeightSource;
use crate::error::Result;
use crate::gpu::available_host_bytes;

/// A model to read.
struct Found {
    listed: Listed,
    /// Whether its weights are there.
    is_complete: bool,
    /// Whether a download was broken off.
    is_partial: bool,
}

/// Lists the models, then reads them one by one, then the adapters. Ends early when stopped. Without a
/// hub there is no cache to look into.
pub fn scan(job: &ScanJob, hub: Option<&Hub>, is_stopped: &dyn Fn() -> bool, tell: &dyn Fn(ModelEvent)) {
    let cached = hub.map(Hub::list).unwrap_or_default();
    let found = find(job, hub, &cached);
    tell(ModelEvent::Listed(found.iter().map(|found| found.listed.clone()).collect()));
    let mut bases = Vec::new();
    for model in &found {
        if is_stopped() {
            return;
        }
        let (state, fingerprint) = read(model);
        bases.push(Base { model: model.listed.model.clone(), place: model.listed.place.clone(), fingerprint });
        tell(ModelEvent::Read(model.listed.model.clone(), state));
    }
    let of_cache = cached.iter().filter(|cached| cached.is_adapter && cached.is_complete);
    let adapters = adapters(job, of_cache.map(|cached| cached.path.clone()).collect(), &bases);
    if !is_stopped() {
        tell(ModelEvent::Adapters(adapters));
        tell(ModelEvent::Scanned { host_bytes: available_host_bytes() });
    }
}

/// The bundled model, those that were opened, and those of the cache, each once.
fn find(job: &ScanJob, hub: Option<&Hub>, cached: &[Cached]) -> Vec<Found> {
    let bundled = Listed { model: String::new(), origin: Origin::Bundled, place: None, changed: None };
    let mut found = vec![Found { listed: bundled, is_complete: true, is_partial: false }];
    for model in cached.iter().filter(|cached| !cached.is_adapter) {
        let listed = Listed {
            model: model.name.clone(),
            origin: Origin::Cache,
            place: Some(model.path.clone()),
            changed: model.changed.and_then(seconds),
        };
        found.push(Found { listed, is_complete: model.is_complete, is_partial: !model.is_complete });
    }
    for model in &job.models {
        if found.iter().any(|other| other.listed.model == *model) || bundled::is_named(model) {
            continue;
        }
        let place = place_of(model, hub);
        let is_complete = place.is_some();
        let listed =
            Listed { model: model.clone(), origin: Origin::Opened, changed: place.as_deref().and_then(changed), place };
        found.push(Found { listed, is_complete, is_partial: false });
    }
    found
}

/// The path of a model that was opened: as it is named, in the home folder, or in the cache.
fn place_of(model: &str, hub: Option<&Hub>) -> Option<PathBuf> {
    let at = match model.strip_prefix("~/").zip(std::env::home_dir()) {
        Some((rest, home)) => home.join(rest),
        None => PathBuf::from(model),
    };
    if at.exists() {
        return std::path::absolute(&at).ok();
    }
    hub.zip(Name::parse(model)).and_then(|(hub, name)| hub.find(&name))
}

/// What the files of a model say, and the fingerprint of its weights.
fn read(found: &Found) -> (EntryState, Option<String>) {
    let Listed { model, origin, place, .. } = &found.listed;
    if !found.is_complete {
        let state = match Name::parse(model) {
            Some(_) => EntryState::Absent { is_partial: found.is_partial },
            None => EntryState::Unreadable("there is no such file or folder any more".into()),
        };
        return (state, None);
    }
    let open = || -> Result<(Known, Option<String>)> {
        let source = match (origin, place) {
            (Origin::Bundled, _) | (_, None) => bundled::stories()?,
            (_, Some(place)) => WeightSource::open(place)?,
        };
        let disk_bytes = match (origin, place) {
            (Origin::Bundled, _) | (_, None) => 0,
            (_, Some(place)) => disk_bytes(place),
        };
        Ok((Known { facts: ModelFacts::of(&source)?, disk_bytes }, fingerprint(&source)?))
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok((known, fingerprint))) => (EntryState::Known(Box::new(known)), fingerprint),
        Ok(Err(e)) => (EntryState::Unreadable(in_words(&e.to_string())), None),
        Err(_) => (EntryState::Unreadable("reading its files failed unexpectedly".into()), None),
    }
}
