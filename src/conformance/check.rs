//! The check of one adapter: every case in every setup, then whole runs.
//!
//! A setup is a way to open the device: which shader variants, with or without naga's runtime
//! checks. A lost device is reopened, so that one faulty kernel does not hide the others.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::cases::{self, all_cases, check_case, quick_cases, slow_cases};
use super::deviations;
use super::report::{DeviceReport, Report};
use super::row::{Direction, Place, Row, Run, Variant};
use super::shaders::{kernels, translations};
use super::static_checks::translation_rows;
use super::steps::{Models, WALK, check_steps};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{AdapterReport, Alternatives, CpuExecutor, Features, KernelDef, LimitSet, OpenOptions, WgpuExecutor};
use crate::kernels::case::Case;

/// Number of device losses after which the check stops.
const MAX_LOSSES: usize = 3;

/// Time after which a dispatch counts as hanging. A case's dispatch takes milliseconds, or seconds
/// on a software adapter.
const PATIENCE: Duration = Duration::from_secs(30);

/// Number of setups checked in parallel, each on its own device: most time goes into compiling
/// shaders, which drivers do on the calling thread. GL devices of one adapter share a context, and
/// wgpu panics after waiting seconds for it.
fn count_workers(adapter: &AdapterReport) -> usize {
    if adapter.backend == "gl" { 1 } else { 2 }
}

/// What to check.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Limits to open devices with.
    pub limits: LimitSet,
    /// Check only the first case of every op, in one setup. Of alternatives that differ in layout
    /// and format only, check the first.
    pub quick: bool,
    /// Check only cases whose name contains this; whole runs only if it is empty.
    pub only: String,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { limits: LimitSet::Adapter, quick: false, only: String::new() }
    }
}

impl CheckOptions {
    /// Whether a full check includes the slow cases. Software adapters run them only if `only`
    /// names cases.
    fn takes_slow(&self, on_software: bool) -> bool {
        !on_software || !self.only.is_empty()
    }

    /// The cases for an adapter.
    fn cases(&self, on_software: bool) -> Vec<Case> {
        let mut cases = if self.quick { quick_cases() } else { all_cases() };
        if !self.quick && self.takes_slow(on_software) {
            cases.extend(slow_cases());
        }
        cases.retain(|c| c.name.contains(&self.only));
        cases
    }
}

/// The ways to open a device: first as in normal use, then with the portable variants, and both
/// with naga's runtime checks.
fn setups(adapter: &AdapterReport, options: &CheckOptions) -> Vec<OpenOptions> {
    let used = match options.limits {
        LimitSet::Adapter => adapter.kernel_features(),
        LimitSet::WebGpu => Features::NONE,
    };
    let setup = |features, checked| OpenOptions {
        alternatives: Alternatives::Never,
        limits: options.limits,
        checked,
        features,
        patience: Some(PATIENCE),
        ..OpenOptions::default()
    };
    let mut all = vec![setup(used, false)];
    if !options.quick {
        all.push(setup(used, true));
        if used != Features::NONE {
            all.extend([setup(Features::NONE, false), setup(Features::NONE, true)]);
        }
    }
    all
}

/// Receives each row as it is made, and may stop the check.
pub type Watch<'a> = dyn FnMut(&Row) -> ControlFlow<()> + 'a;

/// Note in an incomplete report.
const BROKEN_OFF: &str = "the check was stopped: the report is incomplete";

/// Checks an adapter, two setups at a time if the backend allows it. A stopped check says so in the
/// report's notes.
pub fn check_adapter(adapter: &AdapterReport, options: &CheckOptions, watch: &mut Watch<'_>) -> Result<DeviceReport> {
    let start = Instant::now();
    let name = format!("{}:{}", adapter.backend, adapter.name);
    let known = deviations::on_adapter(adapter);
    let mut report = DeviceReport::of_adapter(adapter, name.clone(), options.limits);
    let setups = setups(adapter, options);
    let stopped = AtomicBool::new(false);
    let check = SetupCheck { adapter, options, used: setups[0].features, name: &name, stopped: &stopped };
    let next = AtomicUsize::new(0);
    let (sender, made) = mpsc::channel();
    let mut rows: Vec<Vec<Row>> = setups.iter().map(|_| Vec::new()).collect();
    let work = |sender: mpsc::Sender<(usize, Row)>| -> Result<Vec<(usize, String)>> {
        let mut notes = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(setup) = setups.get(i) else { return Ok(notes) };
            let ran = check.run(setup, &mut |row| {
                let _ = sender.send((i, row)); // the receiver is gone after `watch` has failed
            });
            // An error that a worker cannot recover from ends the check of the adapter.
            let note = ran.inspect_err(|_| next.store(setups.len(), Ordering::Relaxed))?;
            notes.extend(note.map(|note| (i, note)));
        }
    };
    let notes = thread::scope(|scope| {
        let spawn = |sender: mpsc::Sender<_>| scope.spawn(|| work(sender));
        let workers: Vec<_> = (0..count_workers(adapter)).map(|_| spawn(sender.clone())).collect();
        drop(sender);
        for (setup, mut row) in made {
            deviations::apply(&known, &mut row);
            if watch(&row).is_break() {
                stopped.store(true, Ordering::Relaxed);
            }
            rows[setup].push(row);
        }
        let results = workers.into_iter().map(|w| w.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.collect::<Result<Vec<_>>>()
    })?;
    report.rows.extend(rows.into_iter().flatten());
    let mut notes: Vec<(usize, String)> = notes.into_iter().flatten().collect();
    notes.sort();
    report.notes.extend(notes.into_iter().map(|(_, note)| note));
    if !options.quick && !options.takes_slow(adapter.is_software()) {
        let names: Vec<_> = slow_cases().into_iter().map(|c| format!("{:?}", c.name)).collect();
        report.notes.push(format!(
            "left out, since a software driver compiles them for minutes, unless they are named: {}",
            names.join(", ")
        ));
    }
    if stopped.into_inner() {
        report.notes.push(BROKEN_OFF.into());
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// State shared by the checks of an adapter's setups.
struct SetupCheck<'a> {
    adapter: &'a AdapterReport,
    options: &'a CheckOptions,
    /// The features in use, over all setups.
    used: Features,
    name: &'a str,
    stopped: &'a AtomicBool,
}

impl SetupCheck<'_> {
    /// Passes the rows of a setup to `take` and returns a note for the report, if any.
    fn run(&self, setup: &OpenOptions, take: &mut dyn FnMut(Row)) -> Result<Option<String>> {
        let &Self { adapter, options, used, name, stopped } = self;
        let skipped = if options.quick { sibling_alternatives() } else { BTreeSet::new() };
        // Kernels without a variant for the features in use were checked by the first setup; the
        // portable setup skips them.
        let is_new = |k: &KernelDef| {
            let has_form = setup.features == used || k.features().and(used) != Features::NONE;
            has_form && !skipped.contains(&k.name())
        };
        let mut opened = Opened { adapter, setup, device: None, losses: 0 };
        for case in &options.cases(adapter.is_software()) {
            if stopped.load(Ordering::Relaxed) {
                return Ok(opened.note());
            }
            let (device, variant) = opened.device()?;
            let place = Place { device: name, variant, case: &case.name };
            let strict = Variant::Shader { features: device.features(), run: Run::Strict };
            let strict = (!setup.checked && setup.features == used && !options.quick).then_some(strict);
            let (rows, error) = check_case(device, place, case, strict, &is_new);
            rows.into_iter().for_each(&mut *take);
            opened.survive(error)?;
        }
        if options.only.is_empty() && !options.quick && setup.checked != (setup.features == used) {
            let (device, variant) = opened.device()?;
            let place = Place { device: name, variant, case: "whole runs" };
            let rows = check_steps(device, &Models::open()?, place);
            rows.unwrap_or_else(|e| vec![failed_run(place, &e)]).into_iter().for_each(take);
        }
        Ok(opened.note())
    }
}

/// The alternatives that a quick check skips: of those that differ only in layout and storage
/// format, all but the first.
fn sibling_alternatives() -> BTreeSet<String> {
    let alternatives = kernels().flat_map(|(kernel, _)| kernel.alternatives).map(|alternative| alternative.kernel);
    let (mut labels, mut names) = (BTreeSet::new(), BTreeSet::new());
    for alternative in alternatives {
        if !labels.insert(alternative.label) {
            names.insert(alternative.name());
        }
    }
    names
}

/// Checks the CPU executor: every f32 reference against its f64 reference.
pub fn check_cpu(options: &CheckOptions, watch: &mut Watch<'_>) -> Result<DeviceReport> {
    let start = Instant::now();
    let mut report = DeviceReport::of_cpu();
    for case in options.cases(false) {
        let place = Place { device: "cpu", variant: Variant::Reference, case: &case.name };
        let (rows, error) = check_case(&mut CpuExecutor::<f32>::new(), place, &case, None, &|_| true);
        let watched = rows.iter().try_for_each(&mut *watch);
        report.rows.extend(rows);
        error.map_or(Ok(()), Err)?;
        if watched.is_break() {
            report.notes.push(BROKEN_OFF.into());
            break;
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Checks what needs no device: gradients against slopes, in f64, and, where no case is singled
/// out, the translations of every shader.
pub fn check_without_device(options: &CheckOptions, report: &mut Report, watch: &mut Watch<'_>) -> Result<()> {
    report.paper = cases::check_slopes(&options.cases(false))?;
    if options.only.is_empty() {
        report.translations = translations();
        report.paper.extend(translation_rows(&report.translations));
    }
    let _ = report.paper.iter().try_for_each(watch); // all checks are already done
    Ok(())
}

/// The row of a whole run that failed with a device error.
fn failed_run(place: Place<'_>, e: &Error) -> Row {
    let mut row = Row::new(place, "whole recording".to_string(), place.variant.of_all(), Direction::Step, &WALK);
    row.fail(e.to_string());
    row
}

/// A device, opened on first use and reopened after a loss.
struct Opened<'a> {
    adapter: &'a AdapterReport,
    setup: &'a OpenOptions,
    device: Option<WgpuExecutor>,
    losses: usize,
}

impl Opened<'_> {
    fn device(&mut self) -> Result<(&mut WgpuExecutor, Variant)> {
        if self.device.is_none() {
            self.device = Some(WgpuExecutor::open(self.adapter, self.setup)?);
        }
        let device = self.device.as_mut().expect("opened above");
        let variant = Variant::Shader {
            features: device.features(),
            run: if self.setup.checked { Run::Checked } else { Run::Trusted },
        };
        Ok((device, variant))
    }

    /// A note about the device for the report, if any.
    fn note(&self) -> Option<String> {
        let why = self.device.as_ref()?.subgroup_failure()?;
        Some(format!("its subgroups are not used, since they failed their test: {why}"))
    }

    /// Continues after a case's error; reopens the device if it was lost.
    fn survive(&mut self, error: Option<Error>) -> Result<()> {
        let Some(e) = error else { return Ok(()) };
        if e.kind() != ErrorKind::DeviceLost {
            return Ok(());
        }
        // Dropping it would wait for a hanging kernel, so its memory is leaked instead.
        std::mem::forget(self.device.take());
        self.losses += 1;
        if self.losses < MAX_LOSSES {
            return Ok(());
        }
        Err(e.context(format!("{} was lost {MAX_LOSSES} times; the rest is not checked", self.adapter.name)))
    }
}
