//! `longreach-lab mutants`: measures how many planted faults the kernels' cases detect.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use longreach::cli::output::{note, print_line};
use longreach::error::{Error, Result};

use crate::mutation::{self, Options, Report, Verdict};

/// Flags of `mutants`.
#[derive(Args, Debug)]
pub struct MutantsArgs {
    /// An index of `longreach info` or part of an adapter's name [default: a software Vulkan
    /// adapter]
    #[arg(long, value_name = "INDEX|NAME")]
    device: Option<String>,
    /// Only shader files whose path below shaders/ contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    shader: String,
    /// Only cases whose name contains this, to measure what they detect by themselves
    #[arg(long, value_name = "TEXT", default_value = "")]
    cases: String,
    /// Plant the faults in this file instead, one per line: `path: before → after`, as survivors
    /// are printed
    #[arg(long, value_name = "FILE")]
    given: Option<PathBuf>,
    /// Test at most N mutants of each file, evenly spread
    #[arg(long, value_name = "N")]
    sample: Option<NonZeroUsize>,
    /// Worker processes
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Seconds that a mutant may take beyond its original's time before it counts as hung
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    timeout: f64,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    /// Print only the survivors, and the listed equivalents with their reasons
    #[arg(long)]
    survivors: bool,
    /// Print every mutant with its verdict
    #[arg(long)]
    all: bool,
    /// Run as a worker process
    #[arg(long, hide = true)]
    worker: bool,
}

/// Number of mutants between two progress lines.
const PROGRESS: usize = 100;

/// Runs the command.
pub fn run(args: &MutantsArgs) -> Result<()> {
    if !(args.timeout > 0.0 && args.timeout < 1e6) {
        return Err(Error::usage("--timeout: a number of seconds above 0"));
    }
    let timeout = Duration::from_secs_f64(args.timeout);
    if args.worker {
        return mutation::serve(args.device.as_deref(), args.given.as_deref(), &args.cases, timeout);
    }
    let mut worker: Vec<String> =
        ["mutants", "--worker", "--cases", &args.cases, "--timeout"].map(String::from).to_vec();
    worker.push(args.timeout.to_string());
    worker.extend(args.device.iter().flat_map(|d| ["--device".to_string(), d.clone()]));
    if let Some(given) = &args.given {
        worker.extend(["--given".to_string(), given.display().to_string()]);
    }
    let given = args.given.clone();
    let (device, shader, cases) = (args.device.clone(), args.shader.clone(), args.cases.clone());
    let sample = args.sample.map(NonZeroUsize::get);
    let options = Options { device, shader, cases, given, sample, jobs: args.jobs, timeout, worker };
    let report = mutation::run(&options, |done, all| {
        if done % PROGRESS == 0 || done == all {
            note(&format!("{done} of {all} mutants"));
        }
    })?;
    if args.json {
        print_line(&report.json().to_string())?
    } else {
        print(args, &report)?
    }
    match report.shortfalls().as_slice() {
        [] => Ok(()),
        list => Err(Error::new(list.join("\n"))),
    }
}

fn print(args: &MutantsArgs, report: &Report) -> Result<()> {
    if !args.survivors {
        print_line(&format!("on {}\n{}", report.device, report.table()))?;
    }
    for outcome in &report.outcomes {
        let line = outcome.describe();
        match &outcome.verdict {
            Verdict::Survived => print_line(&format!("survives    {line}"))?,
            Verdict::Equivalent(reason) if args.survivors || args.all => {
                print_line(&format!("equivalent  {line}\n            {reason}"))?;
            }
            Verdict::Killed(why) if args.all => print_line(&format!("killed      {line}\n            {why}"))?,
            Verdict::Refused if args.all => print_line(&format!("refused     {line}"))?,
            _ => {}
        }
    }
    Ok(())
}
