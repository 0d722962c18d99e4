//! Learning-rate schedules with linear warm-up, numerically equal to those of transformers.
//!
//! They are `get_constant_schedule_with_warmup`, `get_cosine_schedule_with_warmup`,
//! `get_linear_schedule_with_warmup` and `get_wsd_schedule`, all down to 0.

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
    /// Warmup-stable-decay: constant, then linear decay to 0 over the last steps
    Wsd,
}

/// The lengths of a schedule's phases, in optimiser steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// Warm-up.
    pub warmup: u64,
    /// Decay at the end of a warmup-stable-decay schedule; the others ignore it.
    pub decay: u64,
    /// The whole run.
    pub total: u64,
}

impl Schedule {
    /// The learning rate of update number `step`, counted from 1, of `phases.total`.
    ///
    /// With s = step − 1 (a PyTorch scheduler starts at 0 and advances after each update): base · s
    /// / warmup while s < warmup, so that with a warm-up the first update has rate 0 and update
    /// warmup + 1 is the first at the full rate. After that, with q = (s − warmup) / (total −
    /// warmup), it is base · (1 − q) or base · ½(1 + cos πq). The rate reaches 0 at update total +
    /// 1 and stays there. Warmup-stable-decay stays at base until `phases.decay` updates are left,
    /// or until the warm-up ends if that is later, and decays linearly over the rest.
    pub fn lr(&self, base: f64, step: u64, phases: Phases) -> f64 {
        let Phases { warmup, decay, total } = phases;
        let done = step.saturating_sub(1);
        if done < warmup {
            return base * done as f64 / warmup as f64;
        }
        let since =
            |start: u64| (done.saturating_sub(start) as f64 / total.saturating_sub(start).max(1) as f64).min(1.0);
        match self {
            Schedule::Constant => base,
            Schedule::Cosine => base * 0.5 * (1.0 + (PI * since(warmup)).cos()),
            Schedule::Linear => base * (1.0 - since(warmup)),
            Schedule::Wsd => base * (1.0 - since(warmup.max(total.saturating_sub(decay)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates_of(schedule: Schedule, phases: Phases) -> Vec<f64> {
        (1..=phases.total + 1).map(|step| schedule.lr(2.0, step, phases)).collect()
    }

    fn rates(schedule: Schedule, warmup: u64, total: u64) -> Vec<f64> {
        rates_of(schedule, Phases { warmup, decay: 0, total })
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
        let at = |schedule: Schedule, step, warmup, total| schedule.lr(1.0, step, Phases { warmup, decay: 2, total });
        assert_eq!(at(Schedule::Linear, 100, 2, 10), 0.0);
        assert_eq!(at(Schedule::Wsd, 100, 2, 10), 0.0);
        assert!(at(Schedule::Cosine, 100, 2, 10).abs() < 1e-15);
        for schedule in [Schedule::Linear, Schedule::Wsd] {
            assert_eq!(at(schedule, 9, 8, 3), 1.0, "a warm-up longer than the run does not divide by zero");
        }
    }

    /// The values of transformers' get_wsd_schedule(num_warmup_steps=2, num_stable_steps=3,
    /// num_decay_steps=4, decay_type="linear").
    #[test]
    fn wsd_is_constant_and_decays_at_the_end() {
        let phases = Phases { warmup: 2, decay: 4, total: 9 };
        assert_close(&rates_of(Schedule::Wsd, phases), &[0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0]);
        // A warm-up that reaches into the decay shortens it.
        let phases = Phases { warmup: 4, decay: 5, total: 6 };
        assert_close(&rates_of(Schedule::Wsd, phases), &[0.0, 0.5, 1.0, 1.5, 2.0, 1.0, 0.0]);
    }
}
