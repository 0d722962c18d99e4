//! The table of what a training run will take.

use super::amounts::{duration, size};
use super::output::note;
use crate::train::Forecast;

/// Prints the table on stderr.
pub fn tell(forecast: &Forecast) {
    lines(forecast).iter().for_each(|line| note(line));
}

fn lines(forecast: &Forecast) -> Vec<String> {
    let memory = &forecast.memory;
    let row = |name: &str, bytes: u64| format!("  {name:<30} {:>11}", size(bytes));
    let mut out = vec![
        "device memory of the largest step:".to_string(),
        row("weights", memory.weights),
        row("gradients and optimiser", memory.optimizer),
        row("streamed pairs, batch tables", memory.streamed),
        row("activations, at their peak", memory.activations),
    ];
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
            "{} steps of {:.0} tokens on average, about {} each and {} in all (from one measured step, without the update)",
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
            examples: 8,
            steps: 60,
            tokens_per_step: 988.4,
            seconds_per_step: Some(61.3),
        };
        let text = lines(&forecast).join("\n");
        for part in
            ["308.0 MiB of 20.0 GiB", "chunks of 512", "60 steps of 988 tokens", "1 min 1 s each", "1 h 1 min in all"]
        {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
    }
}
