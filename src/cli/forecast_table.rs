//! The table of what a training run will take.

use super::amounts::{duration, size};
use super::output::note;
use crate::data::token_statistics::TokenStatistics;
use crate::train::Forecast;

/// Prints the table on stderr.
pub fn tell(forecast: &Forecast) {
    lines(forecast).iter().for_each(|line| note(line));
}

/// What a run sees of its training data.
pub fn data_lines(data: &TokenStatistics) -> Vec<String> {
    let share = 100.0 * data.labelled as f64 / data.tokens.max(1) as f64;
    let (examples, one) = match data.sequences == data.examples {
        true => (format!("{} examples", data.examples), "example"),
        false => (format!("{} preference pairs of {} sequences", data.examples, data.sequences), "sequence"),
    };
    let mut out = vec![
        "training data:".to_string(),
        format!("  {examples} with {} tokens, {share:.0} % of them labelled", data.tokens),
        format!("  the median {one} has {} tokens, the longest {}", data.median, data.longest),
    ];
    if let Some(most) = data.compressed_above {
        out.push(format!("  LRSA compresses {} of them: those with more than S + 2L = {most} tokens", data.compressed));
    }
    out.push(format!(
        "  batches are packed flat, without padding: {:.0} tokens on average, {} batches and {} steps an epoch",
        data.tokens_per_batch(),
        data.batches,
        data.steps
    ));
    out
}

fn lines(forecast: &Forecast) -> Vec<String> {
    let memory = &forecast.memory;
    let row = |name: &str, bytes: u64| format!("  {name:<30} {:>11}", size(bytes));
    let mut out = data_lines(&forecast.data);
    out.extend([
        "device memory of the largest step:".to_string(),
        row("weights", memory.weights),
        row("gradients and optimiser", memory.optimizer),
        row("streamed pairs, batch tables", memory.streamed),
        row("activations, at their peak", memory.activations),
    ]);
    let available = match forecast.available_bytes {
        Some(bytes) => format!(" of {}", size(bytes)),
        None => " (the system does not tell how much the device has)".into(),
    };
    out.push(row("in all", memory.peak()) + &available);
    if let Some(chunk) = forecast.chunk {
        out.push(format!("  long sequences stream in chunks of {chunk} tokens"));
    }
    if let Some((each, all)) = forecast.seconds_per_step.zip(forecast.seconds()) {
        out.push(format!(
            "{} steps of {:.0} tokens on average, about {} each and {} in all (from measured steps, without the update)",
            forecast.steps,
            forecast.tokens_per_step,
            duration(each),
            duration(all)
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::PlannedMemory;

    #[test]
    fn the_table_adds_up_and_says_how_long() {
        let memory = PlannedMemory { weights: 94 << 20, optimizer: 28 << 20, streamed: 0, activations: 186 << 20 };
        let forecast = Forecast {
            memory,
            available_bytes: Some(20 << 30),
            chunk: Some(512),
            data: TokenStatistics {
                examples: 8,
                sequences: 8,
                tokens: 4942,
                labelled: 2471,
                median: 310.5,
                longest: 900,
                compressed_above: Some(272),
                compressed: 5,
                batches: 8,
                steps: 5,
            },
            steps: 60,
            tokens_per_step: 988.4,
            seconds_per_step: Some(61.3),
        };
        let text = lines(&forecast).join("\n");
        for part in [
            "8 examples with 4942 tokens, 50 % of them",
            "median example has 310.5 tokens, the longest 900",
            "compresses 5 of them: those with more than S + 2L = 272",
            "without padding: 618 tokens on average, 8 batches and 5 steps an epoch",
            "308.0 MiB of 20.0 GiB",
            "chunks of 512",
            "60 steps of 988 tokens",
            "1 min 1 s each",
            "1 h 1 min in all",
        ] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
        let text = data_lines(&TokenStatistics { examples: 4, ..forecast.data }).join("\n");
        for part in ["4 preference pairs of 8 sequences with 4942 tokens", "median sequence has 310.5"] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
    }
}
