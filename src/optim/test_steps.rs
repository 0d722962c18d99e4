//! Test helper for update rules: compares five steps on the CPU executor with a formula in f64.

use super::{Optimizer, UpdateRule};
use crate::gpu::{Buffer, CpuExecutor, Executor, Kind, Recording};
use crate::kernels::case::random;
use crate::kernels::clip_grad::norm_and_factor;
use crate::tensor::{Arena, Spec};

/// Learning rate of every step.
pub const LR: f64 = 0.01;

/// Elements of each of the two parameters.
const N: usize = 6;

/// Arguments: step number from 1, the value to which the parameter decays, if it does, one of its elements, that element's
/// slots, its clipped gradient.
type Formula<'a> = &'a dyn Fn(i32, Option<f64>, &mut f64, &mut [f64], f64);

/// Runs the rule in f64 and f32, with and without clipping, and compares values and slots with the
/// formula.
pub fn check_five_steps<R: UpdateRule + Copy + 'static>(
    rule: R,
    n_slots: usize,
    formula: impl Fn(i32, Option<f64>, &mut f64, &mut [f64], f64),
) {
    assert_eq!(rule.slots().len(), n_slots);
    for clip in [0.0, 0.25] {
        let wide = largest_difference(&mut CpuExecutor::<f64>::new(), Box::new(rule), clip, &formula);
        assert!(wide < 1e-8, "{rule:?} in f64: {wide}");
        let narrow = largest_difference(&mut CpuExecutor::<f32>::new(), Box::new(rule), clip, &formula);
        assert!(narrow < 1e-6, "{rule:?} in f32: {narrow}");
    }
}

/// Takes five steps on a device and with the formula; returns the largest difference of a value.
fn largest_difference(device: &mut dyn Executor, rule: Box<dyn UpdateRule>, clip: f64, formula: Formula<'_>) -> f64 {
    let (rule_name, slot_names) = (rule.name(), rule.slots());
    let spec = |name: &str, decay| Spec { name: name.into(), rows: 2, cols: N / 2, decay };
    let decays = [Some(0.0), None, Some(1.0)];
    let specs = [spec("w", decays[0]), spec("norm", decays[1]), spec("offset norm", decays[2])];
    let (arena, trainables) = Arena::new(&specs, &device.limits()).unwrap();
    arena.zero(device).unwrap();
    let mut optimizer = Optimizer::new(device, &arena, rule).unwrap();
    let clipping = Buffer::persistent("clipping", Kind::Real, 2).span();
    let mut expected = Vec::new();
    for (i, t) in trainables.iter().enumerate() {
        let start = random(1 + i as u64, N, 1.0);
        t.value.write(device, &start).unwrap();
        expected.push(start.into_iter().map(f64::from).collect::<Vec<_>>());
    }
    let mut slots = vec![vec![vec![0.0; slot_names.len()]; N]; 3];
    for step in 0..5 {
        let mut grads = Vec::new();
        for (i, t) in trainables.iter().enumerate() {
            let g = random(10 + 3 * step + i as u64, N, 1.0);
            t.grad.write(device, &g).unwrap();
            grads.push(g.into_iter().map(f64::from).collect::<Vec<_>>());
        }
        let norm = grads.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let factor = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let mut rec = Recording::new();
        norm_and_factor(&mut rec, &arena, clip as f32, &clipping);
        optimizer.record(&mut rec, &arena, &clipping, LR);
        device.run(&rec).unwrap();
        let found = device.read_real(&clipping).unwrap();
        assert!((f64::from(found[0]) - norm).abs() < 1e-6 * norm);
        assert_eq!(found[1] < 1.0, clip > 0.0);
        for i in 0..3 {
            for j in 0..N {
                let g = factor * grads[i][j];
                formula(step as i32 + 1, decays[i].map(f64::from), &mut expected[i][j], &mut slots[i][j], g);
            }
        }
    }
    assert_eq!(optimizer.n_steps(), 5);
    let mut largest = 0.0f64;
    for (t, expected) in trainables.iter().zip(&expected) {
        let ours = device.read_f64(t.value.span()).unwrap();
        largest = ours.iter().zip(expected).fold(largest, |m, (a, b)| m.max((a - b).abs()));
    }
    let state = optimizer.state(device, &arena, &trainables).unwrap();
    assert_eq!((state.optimizer.as_str(), state.step), (rule_name, 5));
    for (k, (name, tensor)) in state.slots.iter().enumerate() {
        let (slot, i) = (k / trainables.len(), k % trainables.len());
        assert_eq!(*name, format!("{}.{}", trainables[i].name, slot_names[slot]));
        for (j, value) in tensor.to_f32().unwrap().into_iter().enumerate() {
            assert!((f64::from(value) - slots[i][j][slot]).abs() < 1e-6, "{name}");
        }
    }
    largest
}
