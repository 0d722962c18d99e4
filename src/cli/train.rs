//! `longreach train`: turns flags into a [`TrainJob`] and shows the progress.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde_json::json;

use super::amounts::{duration, size, token_speed};
use super::args::{AttentionArgs, AttentionName, DeviceArgs};
use super::forecast_table;
use super::interrupt;
use super::output::{note, print_line, shell_word};
use super::train_progress::Progress;
use crate::attention::Attention;
use crate::checkpoint::model_files::ModelFiles;
use crate::checkpoint::record::AttentionRecord;
use crate::checkpoint::rope_override::RopeOverride;
use crate::error::{Error, ErrorKind, Result};
use crate::train::{Held, Keep, KeepGroup, Logs, Method, Summary, TrainJob, dry_run, held, run_opened};

/// How often a run that loses its device opens it again.
const MOST_LOST: usize = 3;

/// Flags of `train`: those of the job, and others for the device and the output.
#[derive(Args, Debug)]
pub struct TrainArgs {
    #[command(flatten)]
    job: TrainJob,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    attention: AttentionArgs,
    /// Check everything, say what the run will take and how long, and train nothing
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object at the end
    #[arg(long)]
    json: bool,
}

impl TrainArgs {
    /// The job from the flags, for a model that records no attention.
    #[cfg(all(test, feature = "app"))]
    pub(crate) fn described(&self) -> TrainJob {
        self.job_for(None, None).expect("the flags name an attention").1
    }

    /// The attention and the job from the flags, for a model with its recorded attention, opened with a
    /// RoPE scaling: that of the flags, or the one recorded with the adapter.
    fn job_for(
        &self,
        recorded: Option<Attention>,
        rope_scaling: Option<RopeOverride>,
    ) -> Result<(Attention, TrainJob)> {
        let (attention, keeps) = self.attention.resolve_list(recorded, AttentionName::Lrsa)?;
        let attention_record = Some(AttentionRecord::of(attention));
        let job = self.job();
        let rope_scaling = job.rope_scaling.or(rope_scaling);
        Ok((attention, TrainJob { attention: attention_record, keeps: Keep::drawn(keeps), rope_scaling, ..job }))
    }

    /// The job from the flags, without the attention, which may depend on the model's files.
    fn job(&self) -> TrainJob {
        let targets = self.job.targets.clone().filter(|set| !set.is_all_linear());
        TrainJob { targets, ..self.job.clone() }
    }
}

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<()> {
    let job = args.job();
    job.validate()?;
    let files = ModelFiles::open_scaled(&job.model, job.adapter.as_deref(), job.rope_scaling)?;
    files.notes().iter().for_each(|text| note(&format!("note: {text}")));
    let (attention, mut job) = args.job_for(files.recorded, files.rope_scaling())?;
    let mut device = args.device.open()?;
    let drawn = match job.keeps.as_deref() {
        None | Some([]) => String::new(),
        Some([keep]) => format!(", r over the steps {keep}"),
        Some(keeps) => format!(", r drawn from {} each step", Keep::list(keeps)),
    };
    let taught = match job.distillation() {
        None => String::new(),
        Some(d) => format!(", distilled with weight {} from the {}", d.weight, d.teacher.described()),
    };
    let preferred = match job.preference() {
        None => String::new(),
        Some(p) if p.with_reference => format!(", DPO with beta {} against the model as it was", p.beta),
        Some(p) => format!(", ORPO with beta {}", p.beta),
    };
    let rotated = job.rope_scaling.map_or(String::new(), |scaling| format!(", RoPE scaling {scaling}"));
    note(&format!("training with {attention}{drawn}{taught}{preferred}{rotated} on {}", device.name()));
    if args.dry_run {
        let forecast = dry_run(&job, &files, device.as_mut(), &mut Progress::default())?;
        forecast_table::tell(&forecast);
        return if args.json { print_line(&serde_json::to_string(&forecast)?) } else { Ok(()) };
    }
    interrupt::catch("stopping, and saving the steps that are done")?;
    let mut n_lost = 0;
    let summary = loop {
        let mut progress = Progress::default();
        match run_opened(&job, &files, device.as_mut(), &mut progress) {
            Err(e) if e.kind() == ErrorKind::DeviceLost && n_lost < MOST_LOST => {
                n_lost += 1;
                let name = device.name();
                drop(device);
                device = args.device.open()?;
                if device.name() != name {
                    return Err(e.context(format!("and {} is what is left", device.name())));
                }
                note(&format!("{e}. The device is open again, and the run goes on from its last checkpoint"));
                // What `overwrite` was to replace is gone once the run has begun.
                job.overwrite &= !progress.has_begun() || held(&job)? != Held::Unfinished;
            }
            done => break done?,
        }
    };
    report(args, &summary, &device.name())?;
    if summary.cancelled {
        let command = if args.job.overwrite { "the same command without --overwrite" } else { "the same command" };
        let text = format!("stopped after step {}; {command} goes on from there", summary.steps);
        return Err(Error::of_kind(ErrorKind::Interrupted, text));
    }
    Ok(())
}

fn report(args: &TrainArgs, summary: &Summary, device: &str) -> Result<()> {
    let out = args.job.out.display().to_string();
    notes_on(summary, &out).iter().for_each(|text| note(text));
    if args.json {
        let value = json!({
            "steps": summary.steps,
            "loss": summary.loss,
            "loss_by_cache": losses_by_cache(&args.job).into_iter().collect::<BTreeMap<_, _>>(),
            "eval_loss": summary.eval_loss,
            "best": summary.best,
            "tokens": summary.tokens,
            "seconds": summary.seconds,
            "tokens_per_s": summary.tokens_per_s,
            "peak_bytes": summary.peak_bytes,
            "cancelled": summary.cancelled,
            "stopped_early": summary.stopped_early,
            "out": out,
            "device": device,
        });
        return print_line(&value.to_string());
    }
    if summary.steps == 0 {
        return print_line("stopped before the first step: nothing is saved");
    }
    let by_cache = losses_by_cache(&args.job);
    let loss = |name: &str, loss: Option<f64>| loss.map(|l| format!(", {name} {l:.4}")).unwrap_or_default();
    let speed = token_speed(summary.tokens_per_s, 1.0).map_or(String::new(), |speed| format!(" ({speed})"));
    print_line(&format!(
        "{} steps{}{}, {} tokens in {}{speed}, {} of device memory",
        summary.steps,
        loss("loss", summary.loss.filter(|_| by_cache.is_empty())),
        loss("validation loss", summary.eval_loss),
        summary.tokens,
        duration(summary.seconds),
        size(summary.peak_bytes)
    ))?;
    if !by_cache.is_empty() {
        let each: Vec<String> = by_cache.iter().map(|(name, loss)| format!("{name} {loss:.4}")).collect();
        print_line(&format!("loss by cache, over the last quarter of its steps: {}", each.join(", ")))?;
    }
    let (model, out) = (shell_word(&args.job.model), shell_word(&out));
    files_of(&args.job).iter().try_for_each(|line| print_line(line))?;
    let model = match args.job.method {
        Method::Lora => format!("{model} --adapter {out}"),
        Method::Full => out.clone(),
    };
    print_line("next:")?;
    print_line(&format!("  longreach generate --model {model} --prompt \"Once upon a time\" --echo"))?;
    print_line(&format!("  longreach plot {out}"))
}

/// The caches that the steps of a run had and the loss with each at the end, if they differ.
fn losses_by_cache(job: &TrainJob) -> Vec<(String, f64)> {
    let steps = Logs::read(&job.out).unwrap_or_default().steps;
    KeepGroup::of(&steps).iter().map(|group| (group.name(), group.last_loss())).collect()
}

/// What the output folder of a run holds, in lines.
fn files_of(job: &TrainJob) -> Vec<String> {
    let (weights, what) = match job.method {
        Method::Lora => ("adapter_model.safetensors", "the adapter, in PEFT's layout"),
        Method::Full => ("model.safetensors", "the model, in Hugging Face's layout"),
    };
    let rows = [
        (weights, what),
        ("checkpoints", "the last checkpoints and the best one, each a folder to generate with"),
        ("metrics.jsonl", "loss, learning rate, gradient norm and speed of each step"),
        ("eval.jsonl", "the validation losses"),
        ("tensorboard", "the same for tensorboard --logdir"),
        ("trainer_state.json", "the same for programs that read transformers' checkpoints"),
    ];
    let is_there = |name: &str| job.out.join(name).exists();
    let lines = rows.into_iter().filter(|(name, _)| is_there(name)).map(|(name, what)| format!("  {name:<26} {what}"));
    std::iter::once(format!("saved in {}:", job.out.display())).chain(lines).collect()
}

/// Says whether the run stopped early, learnt nothing, or had a better state before its end.
fn notes_on(summary: &Summary, out: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if let (true, Some(early)) = (summary.stopped_early, summary.best) {
        notes.push(format!(
            "note: stopped at step {}: no lower validation loss since step {}",
            summary.steps, early.step
        ));
    }
    if let Some((first, last)) = summary.first_loss.zip(summary.last_loss)
        && last > first * 1.05
    {
        notes.push(format!(
            "note: the loss is worse at the end of the run ({last:.4}) than at its start ({first:.4}), means of a tenth of \
             the steps: it diverged or learnt nothing; lower `lr`"
        ));
    }
    if let Some((best, last)) = summary.best.zip(summary.eval_loss)
        && best.step < summary.steps
        && best.loss < last
    {
        let checkpoint = format!("{out}/checkpoints/step-{}", best.step);
        let place = match Path::new(&checkpoint).is_dir() {
            true => format!("that state is in {checkpoint}"),
            false => "that state was not saved".into(),
        };
        notes.push(format!(
            "note: the validation loss was best at step {} ({:.4}, {last:.4} in the last evaluation): {place}",
            best.step, best.loss
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::adapter_targets::ModuleSet;
    use crate::optim::Schedule;
    use crate::train::Method;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        train: TrainArgs,
    }

    fn parse(more: &[&str]) -> std::result::Result<TrainJob, clap::Error> {
        let line = ["train", "--model", "m", "--data", "d", "--out", "o"];
        Line::try_parse_from(line.iter().chain(more)).map(|l| l.train.job())
    }

    #[test]
    fn the_defaults_of_flags_and_of_the_library_are_the_same() {
        let paths = TrainJob { model: "m".into(), data: "d".into(), out: "o".into(), ..TrainJob::default() };
        assert_eq!(parse(&[]).unwrap(), paths);
        assert_eq!(parse(&["--targets", "all"]).unwrap(), paths);
    }

    #[test]
    fn flags_reach_the_job_and_bad_ones_are_refused() {
        let job =
            parse(&["--targets", "q_proj,v_proj", "--betas", "0.8, 0.95", "--schedule", "linear", "--method", "full"])
                .unwrap();
        assert_eq!(job.targets, ModuleSet::parse("q_proj,v_proj").ok());
        assert_eq!((job.betas, job.schedule, job.method), (Some((0.8, 0.95)), Schedule::Linear, Method::Full));
        let job = parse(&["--targets", r".*\.(q|k){1,2}_proj", "--modules-to-save", "lm_head, embed_tokens", "--dora"])
            .unwrap();
        assert_eq!(job.targets, Some(ModuleSet::Pattern(r".*\.(q|k){1,2}_proj".into())));
        assert_eq!((job.modules_to_save, job.dora), (vec!["lm_head".to_string(), "embed_tokens".into()], true));
        for bad in [&["--steps", "1", "--epochs", "1"][..], &["--betas", "0.9"], &["--schedule", "wave"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
