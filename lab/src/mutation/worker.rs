//! The worker process, which runs mutants and may hang or crash; `parent.rs` detects both.
//!
//! It reads mutant indices from stdin, one per line. Before each step it writes `limit MS`, the
//! time limit of the step, and finally one verdict: `refused`, `killed WHY`, `survived`, or `failed
//! WHY` if the tool itself cannot continue. It exits when stdin ends and after a device error.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Duration;

use longreach::conformance::shaders::Shader;
use longreach::error::{Error, Result};
use longreach::gpu::{
    AdapterReport, Alternatives, Features, OpenOptions, WgpuExecutor, adapters, find_adapter, shader, software_adapter,
};

use super::given::mutants_of;
use super::mutant::Mutant;
use super::suite::{Mode, Suite};
use crate::lints;

/// Time limit for recording the cases and for the first run of an unchanged kernel.
const PATIENCE: Duration = Duration::from_secs(180);
/// A mutant may take this many times as long as the unchanged kernel, plus `timeout`.
const SLOWER: u32 = 5;

/// The named adapter, or a software adapter by default.
pub(super) fn adapter(device: Option<&str>) -> Result<AdapterReport> {
    match device {
        Some(name) => Ok(find_adapter(&adapters(), name)?.clone()),
        None => software_adapter().ok_or_else(|| {
            Error::new(
                "no software Vulkan adapter: install one (Debian: mesa-vulkan-drivers) or name a device with --device",
            )
        }),
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", line.replace('\n', " "))?;
    Ok(out.flush()?)
}

fn allow(time: Duration) -> Result<()> {
    say(&format!("limit {}", time.as_millis()))
}

/// Serves a parent process until stdin ends.
pub fn serve(device: Option<&str>, given: Option<&Path>, cases: &str, timeout: Duration) -> Result<()> {
    allow(PATIENCE)?;
    let mutants = mutants_of(given)?;
    let mut suite = Suite::record(cases)?;
    let adapter = adapter(device)?;
    // Bounds checks in the shaders keep a mutant's wild index from crashing the process.
    let open = |features| {
        WgpuExecutor::open(
            &adapter,
            &OpenOptions { checked: true, alternatives: Alternatives::Never, features, ..OpenOptions::default() },
        )
    };
    let (mut portable, mut other) = (open(Features::NONE)?, open(Features::ALL)?);
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let index: usize =
            line.trim().parse().map_err(|_| Error::new(format!("{line} is not the index of a mutant")))?;
        let mutant = mutants.get(index).ok_or_else(|| Error::new(format!("there is no mutant {index}")))?;
        let device = if mutant.needs() == Features::NONE { &mut portable } else { &mut other };
        match judge(device, &mut suite, mutant, timeout) {
            Ok(Found::Verdict(verdict)) => say(&verdict)?,
            Ok(Found::DeviceError(e)) => return say(&format!("killed the device reports: {e}")),
            Err(e) => return say(&format!("failed {e}")),
        }
    }
    Ok(())
}

enum Found {
    Verdict(String),
    DeviceError(Error),
}

fn judge(device: &mut WgpuExecutor, suite: &mut Suite, mutant: &Mutant, timeout: Duration) -> Result<Found> {
    let features = device.features();
    let mut linking = mutant.linking();
    linking.retain(|(kernel, _)| kernel.runs_with(features));
    longreach::ensure!(!linking.is_empty(), "no kernel that links shaders/{}.wgsl runs with {features}", mutant.path);
    let mut planted: Vec<_> =
        linking.iter().map(|(kernel, constants)| (mutant.planted(kernel), *kernel, constants)).collect();
    if planted.iter().any(|(kernel, _, constants)| shader::parse(kernel, constants, features).is_err()) {
        return Ok(Found::Verdict("refused".into()));
    }
    planted.sort_by_key(|(_, original, _)| suite.of(original).len());
    for mode in [Mode::Plain, Mode::Strict] {
        for (kernel, original, _) in &planted {
            let kernel = mode.of(kernel, features);
            for check in suite.of(original) {
                allow(PATIENCE)?;
                let usual = check.baseline(device, mode)?;
                allow(timeout + SLOWER * usual)?;
                match check.fails(device, kernel, mode) {
                    Ok(None) => {}
                    Ok(Some(why)) => return Ok(Found::Verdict(format!("killed {mode:?}: {why}"))),
                    Err(e) => return Ok(Found::DeviceError(e.context(check.case()))),
                }
            }
        }
    }
    let broken = planted.into_iter().find_map(|(kernel, original, constants)| {
        let broken = |kernel| lints::of_shader(&Shader { kernel, constants: constants.clone(), features });
        broken(kernel).into_iter().find(|_| broken(original).is_empty())
    });
    Ok(Found::Verdict(match broken {
        Some(finding) => format!("killed by the rule \"{}\": {}", finding.rule.name(), finding.what),
        None => "survived".into(),
    }))
}
