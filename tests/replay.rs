//! A recording reuses what was prepared for one with the same key, with its own buffers and
//! parameters.

mod common;

use std::path::PathBuf;

use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::generate::Session;
use longreach::gpu::{CpuExecutor, Executor, Recording};
use longreach::kernels::dropout::dropout;
use longreach::kernels::elementwise::add;
use longreach::kernels::matmul::matmul_nt;
use longreach::kernels::sample::Sampling;
use longreach::tensor::{Format, Tensor};

fn tensor(device: &mut dyn Executor, label: &str, rows: usize, cols: usize, values: impl Fn(usize) -> f32) -> Tensor {
    let made = Tensor::persistent(label, Format::F32, rows, cols, &device.limits()).unwrap();
    made.write(device, &(0..rows * cols).map(values).collect::<Vec<_>>()).unwrap();
    made
}

/// factor (a + a) bᵀ through a transient, and a copy of it with its first 64 elements cleared.
fn product(device: &mut dyn Executor, n: usize, start: f32, factor: f32) -> (Vec<f32>, Vec<f32>) {
    let a = tensor(device, "a", n, 8, |i| start + i as f32);
    let b = tensor(device, "b", 16, 8, |i| (i % 3) as f32);
    let [out, copy] = ["out", "copy"].map(|label| tensor(device, label, n, 16, |_| 0.0));
    let mut rec = Recording::new();
    let sum = add(&mut rec, &a, &a).unwrap();
    matmul_nt(&mut rec, &sum.0[0], &b, &out, factor, 0.0);
    rec.copy(out.span(), copy.span());
    rec.clear(&copy.span().buffer.slice(0, 64));
    device.run(&rec).unwrap();
    (out.read(device).unwrap(), copy.read(device).unwrap())
}

fn expected(n: usize, start: f32, factor: f32) -> Vec<f32> {
    let one = |row: usize, col: usize| -> f32 {
        (0..8).map(|k| 2.0 * (start + (row * 8 + k) as f32) * ((col * 8 + k) % 3) as f32).sum()
    };
    (0..n * 16).map(|i| factor * one(i / 16, i % 16)).collect()
}

#[test]
fn one_shape_is_prepared_once_and_each_run_has_its_own_buffers_and_parameters() {
    let Some(mut device) = common::software_device() else { return };
    // The factor is a parameter of a kernel with alternatives, so it is part of the key; buffer
    // contents are not.
    let runs =
        [(8, 1.0, 1.0, 0), (8, 5.0, 1.0, 1), (8, 5.0, 3.0, 1), (24, 2.0, 1.0, 1), (8, 7.0, 3.0, 2), (24, 9.0, 1.0, 3)];
    let mut held = Vec::new();
    for (n, start, factor, n_replayed) in runs {
        let (out, mut copy) = product(&mut device, n, start, factor);
        let right = expected(n, start, factor);
        assert_eq!(out, right, "{n} {start} {factor}");
        assert_eq!(copy[..64], [0.0; 64], "what was cleared of the copy");
        copy.splice(..64, right[..64].iter().copied());
        assert_eq!(copy, right, "the rest of the copy");
        assert_eq!(device.n_replayed(), n_replayed, "{n} {start} {factor}");
        held.push(device.memory().persistent_bytes);
    }
    assert_eq!(held, [0; 6], "what is kept for a shape holds no handle");
}

#[test]
fn a_replayed_kernel_has_the_parameters_of_its_own_recording() {
    let Some(mut device) = common::software_device() else { return };
    let dropped = |device: &mut dyn Executor, step: u32| -> Vec<f32> {
        let x = tensor(device, "x", 9, 40, |i| 1.0 + i as f32);
        let out = tensor(device, "out", 9, 40, |_| 0.0);
        let mut rec = Recording::new();
        let masked = dropout(&mut rec, &x, 0.5, [7, step, 1], 0).unwrap();
        rec.copy(masked.0[0].span(), out.span());
        device.run(&rec).unwrap();
        out.read(device).unwrap()
    };
    let right: Vec<_> = (0..3).map(|step| dropped(&mut CpuExecutor::<f32>::new(), step)).collect();
    assert!(right[0] != right[1] && right[1] != right[2], "each step has a mask of its own");
    let found: Vec<_> = (0..3).map(|step| dropped(&mut device, step)).collect();
    assert_eq!(found, right);
    assert_eq!(device.n_replayed(), 2);
}

#[test]
fn the_steps_of_a_generation_are_replayed() {
    let Some(mut device) = common::software_device() else { return };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/stories260k");
    let mut loaded = load(&mut device, &WeightSource::open(&folder).unwrap(), None, Train::Nothing).unwrap();
    let lrsa = Attention::Lrsa(Lrsa::new(4, 8, 0.25).unwrap());
    let mut session = Session::new(&mut device, &mut loaded.model, lrsa, 100, 8, Sampling::default(), 0).unwrap();
    session.feed(&mut device, &loaded.model, &[1]).unwrap();
    const N: u64 = 40;
    for _ in 0..N {
        let id = session.draw(&mut device).unwrap();
        session.feed(&mut device, &loaded.model, &[id]).unwrap();
    }
    // Two recordings per token. Only steps that change the kept part of the cache have a new key.
    assert!(device.n_replayed() > 2 * N * 3 / 4, "{} of {}", device.n_replayed(), 2 * N);
}
