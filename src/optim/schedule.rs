//! Learning-rate schedules with linear warm-up, numerically equal to those of transformers.
//!
//! They are `get_constant_schedule_with_warmup`, `get_cosine_schedule_with_warmup` and
//! `get_linear_schedule_with_warmup`.

use std::f64::consts::PI;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The learning-rate schedule after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Constant
    #[default]
    Constant,
    /// Half a cosine down to 0
    Cosine,
    /// Linear decay to 0
    Linear,
}

impl Schedule {
    /// The learning rate of update number `step`, counted from 1, of `total`.
    ///
    /// With s = step − 1 (a PyTorch scheduler starts at 0 and advances after each update): base · s
    /// / warmup while s < warmup, so that with a warm-up the first update has rate 0 and update
    /// warmup + 1 is the first at the full rate. After that, with q = (s − warmup) / (total −
    /// warmup), it is base · (1 − q) or base · ½(1 + cos πq). The rate reaches 0 at update total +
    /// 1 and stays there.
    pub fn lr(&self, base: f64, step: u64, warmup: u64, total: u64) -> f64 {
        let done = step.saturating_sub(1);
        if done < warmup {
            return base * done as f64 / warmup as f64;
        }
        let progress = ((done - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64).min(1.0);
        match self {
            Schedule::Constant => base,
            Schedule::Cosine => base * 0.5 * (1.0 + (PI * progress).cos()),
            Schedule::Linear => base * (1.0 - progress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, warmup: u64, total: u64) -> Vec<f64> {
        (1..=total + 1).map(|step| schedule.lr(2.0, step, warmup, total)).collect()
    }

    fn assert_close(ours: &[f64], theirs: &[f64]) {
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(theirs) {
            assert!((a - b).abs() < 1e-12, "{ours:?} and {theirs:?}");
        }
    }

    #[test]
    fn warm_up_starts_at_zero_and_reaches_the_base_after_its_steps() {
        assert_close(&rates(Schedule::Constant, 4, 6), &[0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]);
        assert_close(&rates(Schedule::Linear, 2, 6), &[0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn without_warm_up_the_first_update_has_the_full_rate() {
        let h = 0.5f64.sqrt();
        assert_close(&rates(Schedule::Cosine, 0, 4), &[2.0, 1.0 + h, 1.0, 1.0 - h, 0.0]);
        assert_close(&rates(Schedule::Linear, 0, 4), &[2.0, 1.5, 1.0, 0.5, 0.0]);
    }

    #[test]
    fn steps_beyond_the_total_stay_at_zero() {
        assert_eq!(Schedule::Linear.lr(1.0, 100, 2, 10), 0.0);
        assert!(Schedule::Cosine.lr(1.0, 100, 2, 10).abs() < 1e-15);
        assert_eq!(Schedule::Linear.lr(1.0, 9, 8, 3), 1.0, "a warm-up longer than the run does not divide by zero");
    }
}
