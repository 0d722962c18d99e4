//! Floor 10: the command line.
//!
//! `args.rs`, `chat_args.rs` and `sampling_args.rs` hold shared flags, `flags.rs` maps settings to
//! flags, `paths.rs` expands `~`, and `id_lists.rs` and `output.rs` handle input and output.
//! `stage.rs` announces what takes long, `prompt_progress.rs` shows how much of a prompt is read, and
//! `amounts.rs` formats speeds and sizes. Each subcommand has a file; `chat` has a folder.

mod amounts;
#[cfg(feature = "app")]
mod app;
mod args;
mod bench;
#[cfg(feature = "chat")]
mod chat;
mod chat_args;
mod check;
mod data;
mod demo;
mod eval;
mod eval_common;
mod eval_tasks;
mod export;
mod flags;
mod forecast_table;
mod generate;
mod id_lists;
mod info;
mod info_model;
mod interrupt;
pub mod output;
mod paths;
mod plot;
mod probe;
mod prompt_progress;
mod sampling_args;
#[cfg(feature = "serve")]
mod serve;
mod stage;
mod study;
mod train;
mod train_progress;

#[cfg(all(test, feature = "app"))]
pub(crate) use train::TrainArgs;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// Fine-tune and run language models with Lag-Relative Sparse Attention on any GPU.
#[derive(Debug, Parser)]
#[command(name = "longreach", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what LRSA does, in a minute or two, with the bundled model and text.
    Demo(demo::DemoArgs),
    /// Generate text from a prompt, with the dense or the compressed cache.
    Generate(generate::GenerateArgs),
    /// Hold a conversation in the terminal, with the dense or the compressed cache.
    #[cfg(feature = "chat")]
    Chat(Box<chat::ChatCommand>),
    /// Write the tensors of one forward and backward pass, or print the perplexity of a text.
    Probe(probe::ProbeArgs),
    /// Evaluate a compressed cache: perplexity, passkey retrieval, RULER, question answering,
    /// agreement with dense.
    Eval(Box<eval::EvalArgs>),
    /// Open the desktop app: chat with long documents, fine-tune, check devices.
    #[cfg(feature = "app")]
    App(app::AppArgs),
    /// Serve a model and its adapters over HTTP with OpenAI's interface.
    #[cfg(feature = "serve")]
    Serve(Box<serve::ServeArgs>),
    /// Train models by several recipes and seeds, evaluate them dense and compressed, and compare;
    /// resumes where it stopped.
    Study(Box<study::StudyArgs>),
    /// Check every kernel and gradient on this machine's devices.
    Check(check::CheckArgs),
    /// Measure how fast a device runs the kernels, trains and generates.
    Bench(Box<bench::BenchArgs>),
    /// List adapters with their features and limits, and the device that `auto` selects.
    Info(info::InfoArgs),
    /// Fine-tune a model: an adapter (LoRA) or every weight.
    Train(Box<train::TrainArgs>),
    /// Write a model with its adapter for other programs: Hugging Face, llama.cpp, MLX; compares
    /// what it wrote with the model in memory.
    Export(export::ExportArgs),
    /// Draw the loss and other curves of training runs as SVG and PNG.
    Plot(plot::PlotArgs),
    /// Show training data as a model learns it: examples with the learnt parts marked, lengths, and
    /// what is cut or refused.
    Data(data::DataArgs),
}

/// Runs the command line and returns the exit status: 0 success, 1 failure, 2 usage error, 130 ended
/// by the user, 141 standard output closed.
pub fn main() -> i32 {
    run_program(run)
}

/// Parses a command line and runs it; returns the exit status as [`main`] does. For programs with
/// commands of their own.
pub fn run_program<C: Parser>(run: impl FnOnce(C) -> Result<()>) -> i32 {
    let mut command = paths::expanding(C::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let cli = match matches.and_then(|m| C::from_arg_matches(&m).map_err(|e| e.format(&mut command))) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print(); // a closed terminal is no error
            return if e.use_stderr() { 2 } else { 0 };
        }
    };
    match run(cli) {
        Ok(()) => 0,
        Err(e) => output::status(&e),
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Demo(args) => demo::run(&args),
        Verb::Generate(args) => generate::run(&args),
        #[cfg(feature = "chat")]
        Verb::Chat(args) => chat::run(&args),
        Verb::Probe(args) => probe::run(&args),
        #[cfg(feature = "app")]
        Verb::App(args) => app::run(&args),
        Verb::Eval(args) => eval::run(&args),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => serve::run(&args),
        Verb::Study(args) => study::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Info(args) => info::run(&args),
        Verb::Train(args) => train::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Plot(args) => plot::run(&args),
        Verb::Data(args) => data::run(&args),
    }
}
