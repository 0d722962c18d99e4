//! What a check of a run found before it begins: its examples, its steps, and its memory by length.

use crate::grouped::grouped;
use crate::train::{Forecast, TrainJob};

/// One training example: pieces of text, and whether each one counts in the loss.
pub type PreviewExample = Vec<(String, bool)>;

/// What a check of a run found.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedRun {
    /// Records of the training data, and those of them that are cut, cut into windows, or left out
    /// because no token of them is learnt.
    pub n_records: usize,
    pub n_cut: usize,
    pub n_windowed: usize,
    pub n_left_out: usize,
    /// Examples of the validation data.
    pub n_valid: usize,
    pub forecast: Forecast,
    /// Device memory if no sequence is longer than so many tokens.
    pub by_length: Vec<(usize, u64)>,
    /// Why the run does not fit, if it does not.
    pub too_large: Option<String>,
    pub notes: Vec<String>,
    /// The first training examples after tokenizer and chat template.
    pub examples: Vec<PreviewExample>,
}

/// The check on display, and what it was of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunCheck {
    /// The run as the page described it.
    pub asked: Option<TrainJob>,
    pub device: String,
    pub found: Option<Box<CheckedRun>>,
}

impl CheckedRun {
    /// The table: what each row is about, and what it says. `bytes` writes an amount of memory and
    /// `seconds` a duration.
    pub fn rows(&self, bytes: fn(u64) -> String, seconds: fn(f64) -> String) -> Vec<(String, String)> {
        let (forecast, data) = (&self.forecast, &self.forecast.data);
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, text: String| rows.push((name.to_string(), text));
        let pairs = if data.sequences == data.examples { "" } else { " pairs" };
        add("Examples", format!("{}{pairs}, and {} for validation", grouped(data.examples), grouped(self.n_valid)));
        let share = 100.0 * data.labelled as f64 / data.tokens.max(1) as f64;
        add("Tokens", format!("{}, {share:.0} % of them learnt", grouped(data.tokens)));
        let median = grouped(data.median.round() as usize);
        add("Longest", format!("{} tokens (the median has {median})", grouped(data.longest)));
        for (name, n) in [("Cut", self.n_cut), ("Cut into windows", self.n_windowed), ("Left out", self.n_left_out)] {
            if n > 0 || name == "Cut" {
                add(name, format!("{} of {}", grouped(n), grouped(self.n_records)));
            }
        }
        if let Some(most) = data.compressed_above {
            add("Compressed", format!("{} that have more than {most} tokens", grouped(data.compressed)));
        }
        add("Batches", format!("{} of {:.0} tokens on average", grouped(data.batches), data.tokens_per_batch()));
        let length = match (forecast.seconds_per_step, forecast.seconds()) {
            (Some(each), Some(all)) if each < 1.0 => format!(", about {each:.2} s each and {} in all", seconds(all)),
            (Some(each), Some(all)) => format!(", about {} each and {} in all", seconds(each), seconds(all)),
            _ => String::new(),
        };
        add("Steps", format!("{}{length}", grouped(forecast.steps as usize)));
        if let Some(chunk) = forecast.chunk {
            add("Streamed", format!("in chunks of {chunk} tokens"));
        }
        let memory = &forecast.memory;
        let available = forecast.available_bytes.map(|all| format!(" of {}", bytes(all))).unwrap_or_default();
        add("Memory", format!("{}{available}", bytes(memory.peak())));
        for (name, n) in [
            ("  weights", memory.weights),
            ("  optimiser", memory.optimizer),
            ("  streamed pairs", memory.streamed),
            ("  activations", memory.activations),
        ] {
            if n > 0 {
                add(name, bytes(n));
            }
        }
        for (length, n) in &self.by_length {
            add(&format!("Up to {} tokens", grouped(*length)), bytes(*n));
        }
        rows
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::data::token_statistics::TokenStatistics;
    use crate::train::PlannedMemory;

    /// The check of a run of 60 steps.
    pub fn checked() -> CheckedRun {
        CheckedRun {
            n_records: 1210,
            n_cut: 3,
            n_windowed: 0,
            n_left_out: 0,
            n_valid: 50,
            forecast: Forecast {
                memory: PlannedMemory { weights: 94 << 20, optimizer: 28 << 20, streamed: 0, activations: 186 << 20 },
                available_bytes: Some(20 << 30),
                chunk: Some(512),
                data: TokenStatistics {
                    examples: 1160,
                    sequences: 1160,
                    tokens: 1_234_567,
                    labelled: 617_283,
                    median: 310.5,
                    longest: 2048,
                    compressed_above: Some(272),
                    compressed: 700,
                    batches: 1160,
                    steps: 1160,
                },
                steps: 60,
                tokens_per_step: 1064.3,
                seconds_per_step: Some(61.3),
            },
            by_length: vec![(512, 150 << 20), (1024, 200 << 20), (2048, 308 << 20)],
            too_large: None,
            notes: vec!["3 of 1210 training examples are longer than max length 2048 and are truncated".into()],
            examples: vec![vec![("user: What is the pass key?".into(), false), ("1234567".into(), true)]],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::checked;
    use super::*;

    #[test]
    fn the_table_says_what_a_run_takes() {
        let rows = |run: &CheckedRun| run.rows(|n| format!("{} MiB", n >> 20), |s| format!("{s:.0} s"));
        let text: Vec<String> = rows(&checked()).iter().map(|(name, text)| format!("{name}: {text}")).collect();
        assert_eq!(
            text,
            [
                "Examples: 1,160, and 50 for validation",
                "Tokens: 1,234,567, 50 % of them learnt",
                "Longest: 2,048 tokens (the median has 311)",
                "Cut: 3 of 1,210",
                "Compressed: 700 that have more than 272 tokens",
                "Batches: 1,160 of 1064 tokens on average",
                "Steps: 60, about 61 s each and 3678 s in all",
                "Streamed: in chunks of 512 tokens",
                "Memory: 308 MiB of 20480 MiB",
                "  weights: 94 MiB",
                "  optimiser: 28 MiB",
                "  activations: 186 MiB",
                "Up to 512 tokens: 150 MiB",
                "Up to 1,024 tokens: 200 MiB",
                "Up to 2,048 tokens: 308 MiB",
            ]
        );
        let mut other = checked();
        (other.n_left_out, other.forecast.seconds_per_step, other.forecast.chunk) = (7, None, None);
        other.forecast.data.compressed_above = None;
        let text: Vec<String> = rows(&other).iter().map(|(name, text)| format!("{name}: {text}")).collect();
        assert!(text.contains(&"Left out: 7 of 1,210".into()) && text.contains(&"Steps: 60".into()));
        assert!(!text.iter().any(|row| row.starts_with("Compressed") || row.starts_with("Streamed")));
    }
}
