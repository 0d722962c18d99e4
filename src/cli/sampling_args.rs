//! Flags of the sampling, shared by `generate` and `chat`.

use clap::Args;

use crate::checkpoint::generation_config::Wished;
use crate::kernels::sample::Sampling;

/// Sampling flags. Without one, the value of the model's generation_config.json counts.
#[derive(Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Temperature; 0 is greedy and turns off what generation_config.json sets [default: that of
    /// generation_config.json, else 0 for generate and 0.8 for chat]
    #[arg(long, alias = "temperature", value_name = "T", allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Top-k: sample from the K most likely tokens; 0 disables it
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Top-p: sample from the most likely tokens with total probability P; 1 disables it [default: that of
    /// generation_config.json, else 1 for generate and 0.95 for chat]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Min-p: sample from tokens with at least P times the highest probability; 0 disables it
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Repetition penalty: make earlier tokens less likely; 1 disables it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Frequency penalty: subtract X from the logit of a token each time that the answer has it; 0 disables it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Presence penalty: subtract X once from the logit of each token that the answer has; 0 disables it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
}

impl SamplingArgs {
    /// The values of the flags.
    pub fn wished(&self) -> Wished {
        let Self { temp: temperature, top_k, top_p, min_p, .. } = *self;
        let Self { repetition_penalty, frequency_penalty, presence_penalty, .. } = *self;
        Wished { temperature, top_k, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty }
    }
    /// What to know about flags that do nothing because `sampling` is greedy. `has_seed` is whether
    /// there is a seed among them.
    pub fn note_if_greedy(&self, sampling: &Sampling, has_seed: bool) -> Option<String> {
        let given = [
            ("--top-k", self.top_k.is_some_and(|k| k != 0)),
            ("--top-p", self.top_p.is_some_and(|p| p != 1.0)),
            ("--min-p", self.min_p.is_some_and(|p| p != 0.0)),
            ("--seed", has_seed),
        ];
        let names: Vec<&str> = given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect();
        let list = match names.split_last() {
            _ if sampling.temperature > 0.0 => return None,
            None => return None,
            Some((only, [])) => format!("{only} has"),
            Some((last, others)) => format!("{} and {last} have", others.join(", ")),
        };
        Some(format!(
            "note: {list} no effect at temperature 0, which always takes the most likely token: give a temperature such \
             as --temp 0.8 to sample"
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    #[test]
    fn flags_without_effect_at_temperature_0_are_named() {
        let note = |flags: &str, temperature: f32, has_seed: bool| {
            let line = Line::parse_from(["x"].into_iter().chain(flags.split_whitespace()));
            line.sampling.note_if_greedy(&Sampling { temperature, ..Sampling::default() }, has_seed)
        };
        let said = note("--top-p 0.9", 0.0, false).unwrap();
        assert!(said.starts_with("note: --top-p has no effect at temperature 0") && said.contains("--temp"), "{said}");
        let said = note("--top-k 40 --min-p 0.1", 0.0, true).unwrap();
        assert!(said.starts_with("note: --top-k, --min-p and --seed have no effect"), "{said}");
        // With a temperature they have one; penalties always do, and neutral values never.
        assert_eq!(note("--top-p 0.9", 0.7, true), None);
        assert_eq!(note("--repetition-penalty 1.2 --presence-penalty 1", 0.0, false), None);
        assert_eq!(note("--top-p 1 --top-k 0 --min-p 0", 0.0, false), None);
    }
}
