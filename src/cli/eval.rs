//! `longreach eval`: which task. The tasks are in `eval_tasks.rs`, what they share in `eval_common.rs`.

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
    /// Perplexity of a long text, by windows that slide over it.
    Perplexity(PerplexityArgs),
    /// A pass key hidden in a text, over a grid of lengths and depths.
    Needle(NeedleArgs),
    /// Several things hidden in a text: one code, among others, many of one name, names that stand for each other.
    Ruler(RulerArgs),
    /// Questions about long documents, from files in the shape of SQuAD or HotpotQA.
    Qa(QaArgs),
    /// How far greedy continuations agree with those of the dense model.
    Agreement(AgreementArgs),
    /// Which tokens of a text the cache keeps, by layer and head.
    Kept(KeptArgs),
}

/// Runs the verb.
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
