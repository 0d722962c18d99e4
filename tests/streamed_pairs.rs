//! DPO and ORPO on pairs that stream chunk by chunk: the losses, rewards and gradients of pairs at
//! once, and the planned memory.

mod common;

use common::pairs::{OBJECTIVES, gradients, long_pairs, lrsa, norm, open, pair, tokens};
use longreach::attention::Attention;
use longreach::checkpoint::load::Loaded;
use longreach::data::batch::Batch;
use longreach::gpu::{CpuExecutor, Executor};
use longreach::nn::Dropout;
use longreach::optim::AdamW;
use longreach::train::{GradientStep, PairStats, Preference, StepSettings, Stepper};

/// Loss, statistics and gradients of pairs, of which the longer ones stream.
fn of_pairs(
    device: &mut dyn Executor,
    loaded: &mut Loaded,
    (attention, chunk, recompute): (Attention, Option<usize>, bool),
    (preference, dropout): (Preference, Option<Dropout>),
) -> (f64, Vec<Vec<f64>>, (f64, PairStats)) {
    let batches = [Batch::new(&long_pairs()), Batch::new(&[pair(&tokens(9, 7), &tokens(4, 8), &tokens(5, 9))])];
    let step = GradientStep::new(device, recompute, chunk).unwrap();
    step.run_pairs(device, loaded, &batches, attention, dropout, preference).unwrap();
    let loss = device.read_f64(step.loss()).unwrap()[0];
    let evaluated = step.evaluate_pairs(device, loaded, &batches, attention, preference).unwrap();
    (loss, gradients(device, loaded), evaluated)
}

/// Streaming changes nothing but the rounding, with chunks of one partition and of several, ragged
/// ends, chunks that hold a pair together or one sequence of it, and with dropout and noise.
fn check_streamed(device: &mut dyn Executor, with_adapter: bool, (name, with_reference): (&str, bool), bound: f64) {
    let mut loaded = open(device, with_adapter);
    let preference = Preference { with_reference, beta: 0.3 };
    let noisy = Dropout { seed: 5, step: 7, first_token: 0, neftune: 3.0 };
    for (attention, dropout) in [(lrsa(), None), (lrsa(), Some(noisy)), (Attention::Dense, None)] {
        let with = |chunk, recompute| ((attention, chunk, recompute), (preference, dropout));
        let (settings, of) = with(None, false);
        let (loss, grads, (eval_loss, stats)) = of_pairs(device, &mut loaded, settings, of);
        for (chunk, recompute) in [(10, false), (23, true), (60, false), (100, false)] {
            let (settings, of) = with(Some(chunk), recompute);
            let (streamed, found, (eval, found_stats)) = of_pairs(device, &mut loaded, settings, of);
            let title = format!("{name}, {attention}, chunks of {chunk}");
            let near = |got: f64, want: f64| {
                assert!((got - want).abs() <= bound * want.abs().max(1.0), "{title}: {got} for {want}");
            };
            near(streamed, loss);
            near(eval, eval_loss);
            near(found_stats.rewards_chosen, stats.rewards_chosen);
            near(found_stats.rewards_rejected, stats.rewards_rejected);
            assert_eq!(found_stats.accuracy, stats.accuracy, "{title}");
            for (t, (got, want)) in loaded.trainables.iter().zip(found.iter().zip(&grads)) {
                let difference = norm(got.iter().zip(want).map(|(g, w)| g - w));
                let error = difference / norm(want.iter().copied());
                assert!(error < bound, "{title}, gradient of {}: {error:e}", t.name);
            }
            let again = of_pairs(device, &mut loaded, settings, of);
            assert!(again.0 == streamed && again.1 == found, "{title}: two runs are equal bitwise");
        }
    }
}

#[test]
fn pairs_that_stream_have_the_losses_and_gradients_of_those_at_once() {
    let device = &mut CpuExecutor::<f64>::new();
    OBJECTIVES.iter().for_each(|&objective| check_streamed(device, true, objective, 1e-9));
    check_streamed(device, false, OBJECTIVES[1], 1e-9);
}

#[test]
fn pairs_stream_on_a_device() {
    let Some(mut device) = common::software_device() else { return };
    OBJECTIVES.iter().for_each(|&objective| check_streamed(&mut device, true, objective, 1e-4));
}

/// The plan of a step counts what the step then uses.
#[test]
fn the_plan_of_pairs_that_stream_is_what_they_use() {
    for (_, with_reference) in OBJECTIVES {
        let device = &mut CpuExecutor::<f32>::new();
        let mut loaded = open(device, true);
        let preference = Some(Preference { with_reference, beta: 0.3 });
        let settings = StepSettings { preference, chunk: Some(20), ..StepSettings::default() };
        let rule = Box::new(AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 });
        let mut stepper = Stepper::new(device, &loaded, rule, settings).unwrap();
        let batch = Batch::new(&[pair(&tokens(150, 1), &tokens(30, 2), &tokens(14, 3))]);
        let planned = stepper.planned_bytes(device, &mut loaded, &batch, lrsa()).unwrap();
        stepper.step(device, &mut loaded, &[batch], lrsa(), 1e-3).unwrap();
        let used = device.memory().peak_bytes();
        let ratio = planned as f64 / used as f64;
        assert!((0.95..1.05).contains(&ratio), "{planned} bytes are planned, {used} used");
    }
}
