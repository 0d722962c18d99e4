//! Texts about a run: what it is in one line, and durations.

use crate::checkpoint::record::AttentionRecord;
use crate::train::{Method, TrainJob};

/// A run in one line: what it trains, with which cache, and for how long.
pub fn in_short(job: &TrainJob) -> String {
    let method = if job.method == Method::Lora { "Adapter" } else { "All weights" };
    let cache = match job.attention {
        Some(AttentionRecord::Lrsa { keep, .. }) => {
            let factor = format!("cache compressed {:.3}x", 1.0 / keep).replace(".000x", "x");
            match job.keeps.as_deref() {
                Some([]) => factor,
                _ => factor + " and by other ratios",
            }
        }
        _ => "dense cache".into(),
    };
    let length = match (job.steps, job.epochs.unwrap_or(1)) {
        (Some(1), _) => "1 step".to_string(),
        (Some(steps), _) => format!("{steps} steps"),
        (None, 1) => "1 epoch".into(),
        (None, epochs) => format!("{epochs} epochs"),
    };
    let model = job.model.rsplit(['/', '\\']).next().unwrap_or_default();
    format!("{method} of {model}, {cache}, {length}")
}

/// `1 h 05 min`, `3 min 20 s`, `9 s`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, in_short};
    use crate::checkpoint::record::AttentionRecord;
    use crate::train::{Method, TrainJob};

    #[test]
    fn a_run_is_named_by_what_it_trains() {
        let attention = |keep| Some(AttentionRecord::Lrsa { sink: 16, lag: 128, keep });
        let job = TrainJob { model: "models/m.gguf".into(), ..TrainJob::default() };
        let short = |job: TrainJob| in_short(&job);
        let four = TrainJob { attention: attention(0.25), keeps: Some(vec![]), steps: Some(20), ..job.clone() };
        assert_eq!(short(four), "Adapter of m.gguf, cache compressed 4x, 20 steps");
        let full = TrainJob { method: Method::Full, epochs: Some(3), attention: attention(0.4), ..job };
        assert_eq!(short(full.clone()), "All weights of m.gguf, cache compressed 2.500x and by other ratios, 3 epochs");
        let full = TrainJob { keeps: Some(vec![]), ..full };
        assert_eq!(short(full), "All weights of m.gguf, cache compressed 2.500x, 3 epochs");
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!([9.4, 200.0, 3900.0].map(duration), ["9 s", "3 min 20 s", "1 h 05 min"]);
    }
}
