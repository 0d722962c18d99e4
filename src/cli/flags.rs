//! The flag of each setting: library messages name fields, and the command line prints flags.

use crate::error::rename_settings;

/// The settings that messages name, and their flags.
const FLAGS: &[(&str, &str)] = &[
    ("accumulate", "--accumulate"),
    ("adapter", "--adapter"),
    ("alpha", "--alpha"),
    ("alpha_pattern", "--alpha-pattern"),
    ("also", "--also"),
    ("attention", "--attention"),
    ("attentions", "--attentions"),
    ("batch_size", "--batch-size"),
    ("batch_tokens", "--batch-tokens"),
    ("beta", "--beta"),
    ("betas", "--betas"),
    ("book", "--book"),
    ("chunk", "--chunk"),
    ("clip", "--clip"),
    ("data", "--data"),
    ("decay_ratio", "--decay-ratio"),
    ("device", "--device"),
    ("distill", "--distill"),
    ("dora", "--dora"),
    ("dropout", "--dropout"),
    ("early_stop", "--early-stop"),
    ("epochs", "--epochs"),
    ("eps", "--eps"),
    ("eval_every", "--eval-every"),
    ("frequency_penalty", "--frequency-penalty"),
    ("grads", "--grads"),
    ("ids", "--ids"),
    ("keep", "--keep"),
    ("keep_checkpoints", "--keep-checkpoints"),
    ("labels", "--labels"),
    ("lag", "--lag"),
    ("layers", "--layers"),
    ("length", "--length"),
    ("long", "--long"),
    ("lora_plus", "--lora-plus"),
    ("lr", "--lr"),
    ("max_length", "--max-length"),
    ("max_positions", "--max-positions"),
    ("max_tokens", "--max-tokens"),
    ("method", "--method"),
    ("min_p", "--min-p"),
    ("model", "--model"),
    ("modules_to_save", "--modules-to-save"),
    ("momentum", "--momentum"),
    ("neftune", "--neftune"),
    ("objective", "--objective"),
    ("optimizer", "--optimizer"),
    ("out", "--out"),
    ("overlap", "--overlap"),
    ("overwrite", "--overwrite"),
    ("presence_penalty", "--presence-penalty"),
    ("quantise", "--quantise"),
    ("questions", "--questions"),
    ("rank", "--rank"),
    ("rank_pattern", "--rank-pattern"),
    ("recipe", "--recipe"),
    ("recompute", "--recompute"),
    ("repetition_penalty", "--repetition-penalty"),
    ("resume", "--resume"),
    ("rope_scaling", "--rope-scaling"),
    ("rslora", "--rslora"),
    ("samples", "--samples"),
    ("save_every", "--save-every"),
    ("save_minutes", "--save-minutes"),
    ("schedule", "--schedule"),
    ("seed", "--seed"),
    ("seeds", "--seeds"),
    ("sink", "--sink"),
    ("steps", "--steps"),
    ("stop", "--stop"),
    ("targets", "--targets"),
    ("task", "--task"),
    ("teacher", "--teacher"),
    ("temperature", "--temp"),
    ("text", "--text"),
    ("to", "--to"),
    ("top_k", "--top-k"),
    ("top_p", "--top-p"),
    ("valid_fraction", "--valid-fraction"),
    ("warmup", "--warmup"),
    ("warmup_ratio", "--warmup-ratio"),
    ("weight_decay", "--weight-decay"),
    ("windows", "--windows"),
];

/// Replaces the settings in a library message with their flags.
pub fn with_flags(text: &str) -> String {
    let flag = |name: &str| FLAGS.iter().find(|(setting, _)| *setting == name).map(|(_, flag)| flag.to_string());
    rename_settings(text, flag)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use clap::CommandFactory;

    use super::*;

    /// The long flags of a command and of its subcommands.
    fn collect(command: &clap::Command, flags: &mut BTreeSet<String>) {
        flags.extend(command.get_arguments().filter_map(|a| a.get_long()).map(|long| format!("--{long}")));
        command.get_subcommands().for_each(|c| collect(c, flags));
    }

    /// String literals in the library's code, each with its file; skips tests and the front ends.
    fn quoted(dir: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string().replace('\\', "/");
            let is_own = ["src/cli", "src/app", "src/serve", "src/conformance/validator.rs", "src/main.rs"];
            if is_own.iter().any(|own| name.ends_with(own)) || name.ends_with("_tests.rs") {
                continue;
            }
            if path.is_dir() {
                quoted(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code: String = text
                .split("#[cfg(test)]\nmod")
                .next()
                .unwrap_or_default()
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .map(|line| format!("{line}\n"))
                .collect();
            found.extend(code.split('"').skip(1).step_by(2).map(|text| (name.clone(), text.to_string())));
        }
    }

    #[test]
    fn every_flag_of_the_table_exists() {
        let mut flags = BTreeSet::new();
        collect(&crate::cli::Cli::command(), &mut flags);
        let unknown: Vec<_> = FLAGS.iter().filter(|(_, flag)| !flags.contains(*flag)).collect();
        assert!(unknown.is_empty(), "no verb has these flags: {unknown:?}");
        assert!(FLAGS.is_sorted(), "the table is sorted by setting");
    }

    #[test]
    fn the_library_names_settings_that_have_flags_and_no_flags() {
        let mut texts = Vec::new();
        quoted(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
        let named = std::cell::RefCell::new(BTreeSet::new());
        for (file, text) in &texts {
            let is_flag = |(at, _): (usize, &str)| {
                let before = text[..at].chars().next_back();
                let after = text[at + 2..].chars().next();
                before.is_none_or(|c| " (`".contains(c)) && after.is_some_and(|c| c.is_ascii_lowercase())
            };
            assert!(!text.match_indices("--").any(is_flag), "{file} names a flag in {text:?}");
            rename_settings(text, |name| {
                named.borrow_mut().insert(name.to_string());
                None
            });
        }
        let named = named.into_inner();
        // Values with the same name in every front end, and a method name in an assertion.
        let plain = ["auto", "cpu", "backward"];
        let unknown: Vec<_> =
            named.iter().filter(|n| !plain.contains(&n.as_str()) && !FLAGS.iter().any(|(s, _)| s == n)).collect();
        assert!(unknown.is_empty(), "messages name settings without a flag in the table: {unknown:?}");
        assert!(named.len() > 20, "{named:?}");
    }

    #[test]
    fn settings_become_flags() {
        assert_eq!(with_flags("lower `max_tokens`: `device` cpu"), "lower --max-tokens: --device cpu");
        assert_eq!(with_flags("`auto` and `temperature` 3"), "`auto` and --temp 3");
    }
}
