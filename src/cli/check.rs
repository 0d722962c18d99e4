//! `longreach check`: checks every kernel and gradient on the devices of this machine.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::output::{note, print, print_line, shell_word, spinner};
use crate::atomic_file::{check_target, write_file};
use crate::conformance::{
    CheckOptions, Report, Row, Status, check_adapter, check_cpu, check_without_device, page, shaders, table,
};
use crate::error::{Context, Error, Result};
use crate::gpu::{LimitSet, adapters, find_adapter};

/// Names of the limit sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LimitsName {
    /// The adapter's limits and optional features
    Adapter,
    /// WebGPU's default limits and no optional features: the least that any device offers
    Webgpu,
}

/// Flags of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Adapter to check: an index of `longreach info`, part of its name, or cpu; may be repeated
    /// [default: every adapter]
    #[arg(long, value_name = "cpu|INDEX|NAME")]
    device: Vec<String>,
    /// Limits and features to open the adapter with
    #[arg(long, value_enum, default_value = "adapter")]
    limits: LimitsName,
    /// Check one case of every op in one setup: seconds instead of minutes
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains TEXT, for example matmul or lrsa/select
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    only: String,
    /// Also write the report to FILE as a self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write every linked shader to DIR as a standard .wgsl file, for other compilers to check, and
    /// check nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["html", "json", "quick", "device"])]
    dump: Option<PathBuf>,
    /// Print the report as a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command. Fails if a case failed or a known deviation passed.
pub fn run(args: &CheckArgs) -> Result<()> {
    if let Some(dir) = &args.dump {
        let n = shaders::dump(dir).with_context(|| format!("writing shaders to {}", dir.display()))?;
        return print_line(&format!("{n} shaders written to {}", dir.display()));
    }
    if let Some(path) = &args.html {
        check_target(path)?;
    }
    let limits = match args.limits {
        LimitsName::Adapter => LimitSet::Adapter,
        LimitsName::Webgpu => LimitSet::WebGpu,
    };
    let options = CheckOptions { limits, quick: args.quick, only: args.only.clone() };
    let report = make_report(args, &options)?;
    if report.rows().next().is_none() {
        return Err(Error::usage(format!("--only {}: no case has this in its name", args.only)));
    }
    if let Some(path) = &args.html {
        let html = page(&report, &command_line())?;
        write_file(path, html)?;
    }
    if args.json {
        print_line(&report.to_json()?.to_string())?;
    } else {
        print(&table(&report))?;
    }
    match report.count(Status::Failed) {
        0 => Ok(()),
        n => Err(Error::new(format!(
            "{n} of {} rows failed; the first is {}. Report it with the page that --html FILE writes, and use another \
             device or --device cpu until it is mended",
            report.rows().count(),
            report.rows().find(|r| r.status == Status::Failed).map_or(String::new(), |r| r.kernel.clone())
        ))),
    }
}

fn make_report(args: &CheckArgs, options: &CheckOptions) -> Result<Report> {
    let list = adapters();
    let mut report = Report::default();
    let progress = spinner(args.json, "checked");
    let mut watch = |row: &Row| {
        progress.inc(1);
        progress.set_message(format!("{} [{}] on {}", row.kernel, row.variant, row.device));
        if row.status != Status::Passed {
            progress.suspend(|| note(&format!("{}: {} in case {}", row.status.name(), row.kernel, row.case)));
        }
        ControlFlow::Continue(())
    };
    let wanted: Vec<String> =
        if args.device.is_empty() { list.iter().map(|a| a.index.to_string()).collect() } else { args.device.clone() };
    if wanted.is_empty() {
        return Err(Error::new(
            "no graphics adapter with compute shaders: install or update the driver, or check the CPU executor with --device cpu",
        ));
    }
    for name in wanted.iter().filter(|name| *name != "cpu") {
        find_adapter(&list, name)?; // now, not after the checks without a device
    }
    if !options.quick {
        check_without_device(options, &mut report, &mut watch)?;
    }
    for name in wanted {
        report.devices.push(match name.as_str() {
            "cpu" => check_cpu(options, &mut watch)?,
            name => check_adapter(find_adapter(&list, name)?, options, &mut watch)?,
        });
    }
    progress.finish_and_clear();
    Ok(report)
}

/// The command line as typed, for the report.
fn command_line() -> String {
    let rest = std::env::args().skip(1).map(|word| shell_word(&word));
    std::iter::once("longreach".to_string()).chain(rest).collect::<Vec<_>>().join(" ")
}
