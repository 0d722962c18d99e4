//! Test helper for update rules: takes five steps on the CPU executor beside a formula in f64.

use super::{Optimizer, UpdateRule};
use crate::gpu::{Buffer, CpuExecutor, Executor, Kind, Recording, Span};
use crate::kernels::case::random;
use crate::kernels::clip_grad::norm_and_factor;
use crate::tensor::{Arena, Group, Parameters, Spec, Trainable};

/// Learning rate of every step.
pub const LR: f64 = 0.01;

/// Elements of each of the parameters of [`check_five_steps`].
const N: usize = 6;

/// Steps of a rule over some parameters with random values and gradients.
pub struct Steps<D> {
    device: D,
    arena: Arena,
    trainables: Vec<Trainable>,
    optimizer: Optimizer,
    clipping: Span,
    clip: f64,
    /// The values of each parameter that a formula expects; at first those of the device.
    pub expected: Vec<Vec<f64>>,
    /// The value to which each parameter decays, if it does.
    pub decays: Vec<Option<f32>>,
}

impl<D: Executor> Steps<D> {
    /// Parameters of these shapes, which decay to 0, not at all, to 1, and so on.
    pub fn new(mut device: D, rule: Box<dyn UpdateRule>, shapes: &[[usize; 2]], clip: f64) -> Self {
        let decays: Vec<Option<f32>> = (0..shapes.len()).map(|i| [Some(0.0), None, Some(1.0)][i % 3]).collect();
        let spec = |(i, &[rows, cols]): (usize, &[usize; 2])| Spec {
            name: format!("parameter {i}"),
            rows,
            cols,
            decay: decays[i],
            group: Group::Main,
        };
        let specs: Vec<Spec> = shapes.iter().enumerate().map(spec).collect();
        let (arena, trainables) = Arena::new(&specs, &device.limits()).unwrap();
        arena.zero(&mut device).unwrap();
        let parameters = Parameters { arena: &arena, trainables: &trainables };
        let optimizer = Optimizer::new(&mut device, parameters, rule).unwrap();
        let clipping = Buffer::persistent("clipping", Kind::Real, 2).span();
        let mut expected = Vec::new();
        for (i, t) in trainables.iter().enumerate() {
            let start = random(1 + i as u64, t.value.len(), 1.0);
            t.value.write(&mut device, &start).unwrap();
            expected.push(start.into_iter().map(f64::from).collect());
        }
        Self { device, arena, trainables, optimizer, clipping, clip, expected, decays }
    }

    /// Takes one step, numbered from 1, and returns its clipped gradients.
    pub fn step(&mut self, step: u64) -> Vec<Vec<f64>> {
        let mut grads: Vec<Vec<f64>> = Vec::new();
        for (i, t) in self.trainables.iter().enumerate() {
            let g = random(10 * step + i as u64, t.grad.len(), 1.0);
            t.grad.write(&mut self.device, &g).unwrap();
            grads.push(g.into_iter().map(f64::from).collect());
        }
        let norm = grads.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let factor = if self.clip > 0.0 { (self.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let mut rec = Recording::new();
        norm_and_factor(&mut rec, &self.arena, self.clip as f32, &self.clipping);
        let parameters = Parameters { arena: &self.arena, trainables: &self.trainables };
        self.optimizer.record(&mut rec, parameters, &self.clipping, LR);
        self.device.run(&rec).unwrap();
        let found = self.device.read_real(&self.clipping).unwrap();
        assert!((f64::from(found[0]) - norm).abs() < 1e-6 * norm);
        assert_eq!(found[1] < 1.0, self.clip > 0.0);
        assert_eq!(self.optimizer.n_steps(), step);
        grads.iter_mut().flatten().for_each(|g| *g *= factor);
        grads
    }

    /// The largest difference between a value on the device and the expected one.
    pub fn largest_difference(&mut self) -> f64 {
        let mut largest = 0.0f64;
        for (t, expected) in self.trainables.iter().zip(&self.expected) {
            let pieces = t.value.pieces().iter();
            let ours: Vec<f64> = pieces.flat_map(|p| self.device.read_f64(&p.span).unwrap()).collect();
            assert_eq!(ours.len(), expected.len());
            largest = ours.iter().zip(expected).fold(largest, |m, (a, b)| m.max((a - b).abs()));
        }
        largest
    }
}

/// Arguments: step number from 1, the value to which the parameter decays, if it does, one of its
/// elements, that element's slots, its clipped gradient.
type Formula<'a> = &'a dyn Fn(i32, Option<f64>, &mut f64, &mut [f64], f64);

/// Runs the rule in f64 and f32, with and without clipping, and compares values and slots with the
/// formula.
pub fn check_five_steps<R: UpdateRule + Copy + 'static>(
    rule: R,
    slot_names: &[&str],
    formula: impl Fn(i32, Option<f64>, &mut f64, &mut [f64], f64),
) {
    for clip in [0.0, 0.25] {
        let wide = largest_difference(CpuExecutor::<f64>::new(), Box::new(rule), slot_names, clip, &formula);
        assert!(wide < 1e-8, "{rule:?} in f64: {wide}");
        let narrow = largest_difference(CpuExecutor::<f32>::new(), Box::new(rule), slot_names, clip, &formula);
        assert!(narrow < 1e-6, "{rule:?} in f32: {narrow}");
    }
}

/// Takes five steps on a device and with the formula; returns the largest difference of a value.
fn largest_difference<D: Executor>(
    device: D,
    rule: Box<dyn UpdateRule>,
    slot_names: &[&str],
    clip: f64,
    formula: Formula<'_>,
) -> f64 {
    let rule_name = rule.name();
    let mut steps = Steps::new(device, rule, &[[2, N / 2]; 3], clip);
    let mut slots = vec![vec![vec![0.0; slot_names.len()]; N]; 3];
    for step in 1..=5 {
        let grads = steps.step(step);
        for i in 0..3 {
            for j in 0..N {
                let decay = steps.decays[i].map(f64::from);
                formula(step as i32, decay, &mut steps.expected[i][j], &mut slots[i][j], grads[i][j]);
            }
        }
    }
    let largest = steps.largest_difference();
    let state = steps.optimizer.state(&mut steps.device).unwrap();
    assert_eq!((state.optimizer.as_str(), state.step), (rule_name, 5));
    let trainables = &steps.trainables;
    assert_eq!(state.slots.len(), slot_names.len() * trainables.len());
    for (k, (name, tensor)) in state.slots.iter().enumerate() {
        let (slot, i) = (k / trainables.len(), k % trainables.len());
        assert_eq!(*name, format!("{}.{}", trainables[i].name, slot_names[slot]));
        for (j, value) in tensor.to_f32().unwrap().into_iter().enumerate() {
            assert!((f64::from(value) - slots[i][j][slot]).abs() < 1e-6, "{name}");
        }
    }
    largest
}
