//! `longreach bench`: measures how fast a device runs the kernels, trains and generates.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::args::ActivationArgs;
use super::output::{note, print, print_line, spinner};
use crate::attention::{Attention, Lrsa};
use crate::bench::{
    Activity, HEADS, KernelRow, ModelRow, RandomModel, Report, Roofline, Subject, attention_row, compare,
    comparison_table, decode_together_row, filled_decode_row, generation_rows, kernel_rows, memory_row, plots, table,
    training_profile, training_row,
};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::gpu::open_device;
use crate::model::rope_config::RopeConfig;
use crate::train::{Method, StepSettings};

/// The parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Kernels and a model
    All,
    /// Only the kernels
    Kernels,
    /// Only attention, forward and backward: 4 heads of 32 channels, dense and LRSA
    Attention,
    /// Only the model
    Model,
    /// Only decode with a filled cache; see --cache-tokens
    Cache,
    /// Only the memory of training, planned without running it
    Memory,
}

/// Sizes of models with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConfigName {
    /// 4 layers of 64 channels
    Tiny,
    /// 8 million parameters
    #[value(name = "8m")]
    Small,
    /// The layer sizes of SmolLM2-135M
    #[value(name = "smollm2")]
    SmolLm2,
}

/// Flags of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// auto, cpu, an index of `longreach info`, or part of an adapter's name
    #[arg(long, default_value = "auto", value_name = "auto|cpu|INDEX|NAME")]
    device: String,
    #[command(flatten)]
    activations: ActivationArgs,
    /// What to measure
    #[arg(long, value_enum, default_value = "all")]
    part: Part,
    /// Only kernels whose name or case contains TEXT, for example matmul
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    only: String,
    /// Model to benchmark: a folder, GGUF file or hub id [default: stories260k, the bundled model]
    #[arg(long, value_name = "DIR|FILE.gguf|HUB-ID", conflicts_with = "config")]
    model: Option<String>,
    /// Benchmark a model of this size with random weights instead
    #[arg(long, value_enum, value_name = "SIZE")]
    config: Option<ConfigName>,
    /// Sequence lengths in tokens; they may exceed the model's maximum
    #[arg(long, value_delimiter = ',', default_value = "512,1024,2048", value_name = "N,N,…")]
    lengths: Vec<usize>,
    /// Also time decode with a cache of N tokens, filled with made-up keys and values: dense, and
    /// LRSA with keep 1/2 and 1/4
    #[arg(long, value_delimiter = ',', value_name = "N,N,…")]
    cache_tokens: Vec<usize>,
    /// Approximate time to measure each model row after its first run; kernels take a tenth of it
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// Recompute activations in the backward pass, like train --recompute
    #[arg(long)]
    recompute: bool,
    /// Also train in chunks of this many tokens, like train --chunk; with --part memory, rows at once
    /// are then those of dense attention
    #[arg(long, value_name = "TOKENS")]
    chunk: Option<NonZeroUsize>,
    /// Keep ratios of the rows with LRSA
    #[arg(long, value_delimiter = ',', default_value = "0.25", value_name = "R,R,…")]
    keep: Vec<f64>,
    /// Train only with LoRA, or only all weights
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// Also show the time of a training step by kernel, at the longest length
    #[arg(long)]
    profile: bool,
    /// Compare two reports written by --json, and measure nothing
    #[arg(long, num_args = 2, value_names = ["OLD.json", "NEW.json"], conflicts_with_all = ["json", "plot"])]
    compare: Vec<PathBuf>,
    /// Also plot time and memory against length, as SVG and PNG, in this folder
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Print the report as a JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> Result<()> {
    if let [old, new] = &args.compare[..] {
        let read = |path: &PathBuf| -> Result<Report> {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            Report::from_json(&text).with_context(|| path.display().to_string())
        };
        return print(&comparison_table(&compare(&read(old)?, &read(new)?)));
    }
    check(args)?;
    let bar = spinner(args.json, "measured");
    let mut report = Report::new(args.activations.open_any(&args.device)?.name());
    if matches!(args.part, Part::All | Part::Kernels) {
        measure_kernels(args, &mut report, &bar)?;
    }
    if args.part == Part::Attention {
        measure_attention(args, &mut report, &bar)?;
    }
    if matches!(args.part, Part::All | Part::Model | Part::Cache | Part::Memory) {
        measure_model(args, &mut report, &bar)?;
    }
    bar.finish_and_clear();
    if args.json {
        print_line(&report.to_json()?)?;
    } else {
        print(&table(&report))?;
    }
    if let Some(dir) = &args.plot {
        for path in plots(&report, dir)? {
            note(&format!("wrote {}", path.display()));
        }
    }
    Ok(())
}

fn check(args: &BenchArgs) -> Result<()> {
    if !(args.seconds.is_finite() && args.seconds >= 0.0) {
        return Err(Error::usage(format!("--seconds {}: expected a number of at least 0", args.seconds)));
    }
    const MOST: usize = 1 << 20;
    if let Some(n) = args.lengths.iter().find(|n| !(2..=MOST).contains(*n)) {
        return Err(Error::usage(format!("--lengths {n}: expected 2 to {MOST} tokens")));
    }
    if let Some(n) = args.cache_tokens.iter().find(|n| !(1..=MOST).contains(*n)) {
        return Err(Error::usage(format!("--cache-tokens {n}: expected 1 to {MOST} tokens")));
    }
    if matches!(args.part, Part::Kernels | Part::Cache) && args.plot.is_some() {
        return Err(Error::usage("--plot shows cost against length of a model or its attention: leave out --part"));
    }
    if !matches!(args.part, Part::All | Part::Model) && args.profile {
        return Err(Error::usage("--profile times a model's training step: leave out --part"));
    }
    if args.profile && args.chunk.is_some() {
        return Err(Error::usage("--profile times a step at once: leave out --chunk"));
    }
    let trains = matches!(args.part, Part::Memory | Part::Attention)
        || args.profile
        || args.method.is_some()
        || args.chunk.is_some();
    let is_rounded = args.activations.is_rounded();
    if is_rounded && trains {
        return Err(Error::usage(
            "attention and training compute with f32 activations: leave out --activations, or what needs them",
        ));
    }
    let takes_model = !matches!(args.part, Part::Kernels);
    if is_rounded && takes_model && args.model.is_none() {
        return Err(Error::usage(
            "--activations q8 is for quantised weights: give a GGUF file that has some as --model",
        ));
    }
    if args.part == Part::Cache && args.cache_tokens.is_empty() {
        return Err(Error::usage("--part cache: give --cache-tokens N, the number of tokens in the cache"));
    }
    if matches!(args.part, Part::Kernels | Part::Attention | Part::Memory) && !args.cache_tokens.is_empty() {
        let part = args.part.to_possible_value().map_or(String::new(), |v| v.get_name().to_string());
        return Err(Error::usage(format!("--cache-tokens runs a model: leave out --part {part}")));
    }
    Ok(())
}

fn measure_kernels(args: &BenchArgs, report: &mut Report, bar: &ProgressBar) -> Result<()> {
    let budget = args.seconds / 10.0;
    let mut device = args.activations.open_any(&args.device)?;
    bar.set_message("peak rates of the device");
    let roofline = Roofline::measure(device.as_mut(), budget)?;
    report.roofline = Some(roofline);
    let mut watch = |row: &KernelRow| {
        bar.inc(1);
        bar.set_message(row.kernel.clone());
    };
    report.kernels = kernel_rows(device.as_mut(), &roofline, &args.only, budget, &mut watch)?;
    if report.kernels.is_empty() {
        return Err(Error::usage(format!("--only {}: no kernel and no case has this in its name", args.only)));
    }
    Ok(())
}

fn measure_attention(args: &BenchArgs, report: &mut Report, bar: &ProgressBar) -> Result<()> {
    report.model = format!("attention of {} heads of {} channels", HEADS.queries, HEADS.dim);
    report.lrsa = lrsa_in_words(args);
    for attention in attentions(args)? {
        for &length in &args.lengths {
            bar.set_message(format!("attention over {length} tokens"));
            report.runs.push(attention_row(open_device(&args.device)?, attention, length, args.seconds)?);
        }
    }
    Ok(())
}

fn measure_model(args: &BenchArgs, report: &mut Report, bar: &ProgressBar) -> Result<()> {
    let subject = match (&args.model, args.config) {
        (Some(model), _) => Subject::open(model)?,
        (None, Some(ConfigName::Tiny)) => Subject::random(RandomModel::Tiny)?,
        (None, Some(ConfigName::Small)) => Subject::random(RandomModel::Small)?,
        (None, Some(ConfigName::SmolLm2)) => Subject::random(RandomModel::SmolLm2)?,
        (None, None) => Subject::bundled()?,
    };
    if args.activations.is_rounded() {
        crate::ensure!(
            subject.source.has_quantised(),
            "--activations q8 rounds nothing, because no weight of {} is quantised: give a GGUF file that has some",
            subject.name
        );
        note("training is left out: it computes with f32 activations");
    }
    report.model = subject.name.clone();
    report.lrsa = lrsa_in_words(args);
    let mut add = |row: ModelRow| {
        bar.inc(1);
        bar.set_message(format!("{} of {} tokens, {}", row.activity.name(), row.length, row.attention));
        report.runs.push(row);
    };
    let attentions = attentions(args)?;
    for &length in &args.lengths {
        match args.part {
            Part::Cache => {}
            Part::Memory => plan_length(args, &subject, &attentions, length, &mut add)?,
            _ => attentions
                .iter()
                .try_for_each(|&attention| measure_length(args, &subject, attention, length, &mut add))?,
        }
    }
    for &n in &args.cache_tokens {
        for attention in [Attention::Dense, keeping(0.5)?, keeping(0.25)?] {
            bar.set_message(format!("decoding after {n} tokens, {attention}"));
            report.runs.push(filled_decode_row(
                args.activations.open_any(&args.device)?,
                &subject,
                attention,
                n,
                args.seconds,
            )?);
            bar.inc(1);
        }
    }
    if args.profile {
        profile(args, &subject, &attentions, report, bar)?;
    }
    report.runs.sort_by_key(|row| (row.activity, row.attention.clone(), row.length));
    Ok(())
}

/// The kinds of training to look at.
fn activities(args: &BenchArgs) -> Vec<Activity> {
    match args.method {
        _ if args.activations.is_rounded() => vec![],
        None => vec![Activity::TrainLora, Activity::TrainFull],
        Some(Method::Lora) => vec![Activity::TrainLora],
        Some(Method::Full) => vec![Activity::TrainFull],
    }
}

/// Dense, and LRSA with each keep ratio.
fn attentions(args: &BenchArgs) -> Result<Vec<Attention>> {
    let mut keeps = args.keep.clone();
    keeps.sort_by(|a, b| b.total_cmp(a));
    keeps.dedup();
    std::iter::once(Ok(Attention::Dense)).chain(keeps.into_iter().map(keeping)).collect()
}

/// LRSA with the settings of the rows, in words.
fn lrsa_in_words(args: &BenchArgs) -> String {
    let keeps: Vec<String> = args.keep.iter().map(f64::to_string).collect();
    format!("LRSA with sink {}, lag {}, keep {}", Lrsa::DEFAULT_SINK, Lrsa::DEFAULT_LAG, keeps.join(", "))
}

/// The settings of a step at once, or in chunks.
fn settings(args: &BenchArgs, chunk: Option<usize>) -> StepSettings {
    StepSettings { recompute: args.recompute, chunk, ..StepSettings::default() }
}

/// Measures a model at one length.
fn measure_length(
    args: &BenchArgs,
    subject: &Subject,
    attention: Attention,
    length: usize,
    add: &mut dyn FnMut(ModelRow),
) -> Result<()> {
    let chunks = std::iter::once(None).chain(args.chunk.map(NonZeroUsize::get).filter(|&n| n < length).map(Some));
    for (activity, chunk) in activities(args).into_iter().flat_map(|a| chunks.clone().map(move |c| (a, c))) {
        // A new device each time, so that the first step includes compilation and the memory peak
        // is its own.
        let (device, settings) = (open_device(&args.device)?, settings(args, chunk));
        add(training_row(device, subject, activity, attention, length, settings, args.seconds)?);
    }
    let device = args.activations.open_any(&args.device)?;
    generation_rows(device, subject, attention, length, args.seconds)?.into_iter().for_each(&mut *add);
    if subject.source.config().ropes.iter().any(RopeConfig::depends_on_length) {
        return Ok(()); // these models feed one sequence after another
    }
    match decode_together_row(args.activations.open_any(&args.device)?, subject, attention, length, args.seconds) {
        Ok(row) => add(row),
        Err(e) if e.kind() == ErrorKind::OutOfMemory => note(&format!("left out several sequences at once: {e}")),
        Err(e) => return Err(e),
    }
    Ok(())
}

/// Plans the memory of training at one length. With chunks, the rows at once are those of dense
/// attention, kept and recomputed, and those in chunks of each attention.
fn plan_length(
    args: &BenchArgs,
    subject: &Subject,
    attentions: &[Attention],
    length: usize,
    add: &mut dyn FnMut(ModelRow),
) -> Result<()> {
    let mut plans: Vec<(Attention, StepSettings)> = Vec::new();
    match args.chunk.map(NonZeroUsize::get).filter(|&n| n < length) {
        None => plans.extend(attentions.iter().map(|&attention| (attention, settings(args, None)))),
        Some(chunk) => {
            let both = |chunk| [false, true].map(|recompute| StepSettings { recompute, ..settings(args, chunk) });
            plans.extend(both(None).map(|settings| (Attention::Dense, settings)));
            let wanted = |settings: &StepSettings| settings.recompute || !args.recompute;
            for &attention in attentions {
                plans.extend(both(Some(chunk)).into_iter().filter(wanted).map(|settings| (attention, settings)));
            }
        }
    }
    for activity in activities(args) {
        for &(attention, settings) in &plans {
            add(memory_row(open_device(&args.device)?, subject, activity, attention, length, settings)?);
        }
    }
    Ok(())
}

/// LRSA with default settings except for the keep ratio.
fn keeping(keep: f64) -> Result<Attention> {
    Lrsa::new(Lrsa::DEFAULT_SINK, Lrsa::DEFAULT_LAG, keep).map(Attention::Lrsa)
}

fn profile(
    args: &BenchArgs,
    subject: &Subject,
    attentions: &[Attention],
    report: &mut Report,
    bar: &ProgressBar,
) -> Result<()> {
    let longest = args.lengths.iter().copied().max().unwrap_or(0);
    for activity in activities(args) {
        for &attention in attentions {
            bar.set_message(format!("profile of {}", activity.name()));
            let device = open_device(&args.device)?;
            report.profiles.push(training_profile(device, subject, activity, attention, longest, args.recompute)?);
        }
    }
    Ok(())
}
