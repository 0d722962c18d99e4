//! `longreach export`: writes a model for other programs and compares it with the one in memory.

use clap::Args;
use serde_json::json;

use super::amounts::size;
use super::args::DeviceArgs;
use super::interrupt;
use super::output::{note, print_line, shell_word};
use crate::error::{Error, ErrorKind, Result};
use crate::export::{ExportFormat, ExportJob, ExportObserver, Exported, export};

/// Flags of `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    job: ExportJob,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print a JSON object at the end
    #[arg(long)]
    json: bool,
}

/// A divergence from which on answers differ often, in nats a token.
const NOTICEABLE: f64 = 0.1;

/// Says how much is written, ten times an export.
#[derive(Default)]
struct Progress {
    tenths: usize,
}

impl ExportObserver for Progress {
    fn note(&mut self, text: &str) {
        note(&format!("note: {text}"));
    }

    fn written(&mut self, done: usize, total: usize) -> Result<()> {
        if interrupt::is_asked() {
            return Err(Error::of_kind(ErrorKind::Interrupted, "stopped: nothing is written"));
        }
        let tenths = 10 * done / total.max(1);
        if tenths > self.tenths {
            self.tenths = tenths;
            note(&format!("{done} of {total} tensors written"));
        }
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: &ExportArgs) -> Result<()> {
    args.job.validate()?;
    let mut device = args.device.open()?;
    interrupt::catch("stopping the export")?;
    let done = export(&args.job, device.as_mut(), &mut Progress::default())?;
    if args.json { report_json(args, &done) } else { report(args, &done) }
}

fn report(args: &ExportArgs, done: &Exported) -> Result<()> {
    let (job, c) = (&args.job, &done.comparison);
    print_line(&format!(
        "wrote {} ({}, {}, {})",
        job.out.display(),
        job.to.name(),
        done.kind.name(),
        size(done.bytes)
    ))?;
    print_line(&format!(
        "read back and compared with the model in memory on {} tokens: KL {:.2e} nats a token (at most {:.0e}), largest \
         difference of logits {:.3e}, same most likely token after {} of {}",
        c.tokens,
        c.divergence,
        done.kind.largest_divergence(),
        c.largest_difference,
        c.same_choice,
        c.tokens
    ))?;
    if c.divergence > NOTICEABLE {
        note(&format!(
            "note: rounding to {} changes what the model says; a `quantise` with more bits, such as q8_0, changes less",
            done.kind.name()
        ));
    }
    let out = shell_word(&job.out.display().to_string());
    print_line(&match job.to {
        ExportFormat::Hf | ExportFormat::Mlx | ExportFormat::Gguf => {
            format!("next: longreach generate --model {out} --prompt \"Once upon a time\"")
        }
        ExportFormat::AdapterGguf => {
            format!(
                "next: longreach generate --model {} --adapter {out} --prompt \"Once upon a time\"",
                shell_word(&job.model)
            )
        }
    })
}

fn report_json(args: &ExportArgs, done: &Exported) -> Result<()> {
    let c = &done.comparison;
    let value = json!({
        "out": args.job.out.display().to_string(),
        "to": args.job.to.name(),
        "type": done.kind.name(),
        "bytes": done.bytes,
        "tokens": c.tokens,
        "kl": c.divergence,
        "kl_bound": done.kind.largest_divergence(),
        "largest_logit_difference": c.largest_difference,
        "same_choice": c.same_choice,
    });
    print_line(&value.to_string())
}
