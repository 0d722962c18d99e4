//! `longreach eval`: selects the task. `eval_tasks.rs` runs the tasks with the help of
//! `eval_common.rs`.

use clap::{Args, Subcommand};

use super::eval_tasks::{AgreementArgs, KeptArgs, NeedleArgs, PerplexityArgs, QaArgs, RulerArgs};
use crate::error::Result;

/// Flags of `eval`.
#[derive(Args, Debug)]
pub struct EvalArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Perplexity of a long text, over sliding windows.
    Perplexity(PerplexityArgs),
    /// Passkey retrieval: a key hidden in a text, over a grid of lengths and depths.
    Needle(NeedleArgs),
    /// RULER tasks: one code, one among several names, several codes of one name, or chains of
    /// names.
    Ruler(RulerArgs),
    /// Question answering over long documents, from SQuAD or HotpotQA files.
    Qa(QaArgs),
    /// Agreement of greedy continuations with those of the dense model.
    Agreement(AgreementArgs),
    /// The tokens of a text that the cache keeps, by layer and head.
    Kept(KeptArgs),
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> Result<()> {
    match &args.task {
        Task::Perplexity(task) => task.run(),
        Task::Needle(task) => task.run(),
        Task::Ruler(task) => task.run(),
        Task::Qa(task) => task.run(),
        Task::Agreement(task) => task.run(),
        Task::Kept(task) => task.run(),
    }
}
