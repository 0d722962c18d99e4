//! Sampling beyond its cases: the filters, by Hugging Face's definitions, and the frequencies of
//! draws.

mod common;

use longreach::gpu::{Buffer, CpuExecutor, Executor, Kind, Recording};
use longreach::kernels::sample::{Changes, Sampling, sample};
use longreach::tensor::Tensor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The tokens drawn with the given uniform numbers from the logarithms of `weights`.
fn draws(device: &mut dyn Executor, weights: &[f32], previous: &[u32], sampling: &Sampling, us: &[f32]) -> Vec<u32> {
    sampling.validate().unwrap();
    let buffer = |label, kind, len| Buffer::persistent(label, kind, len).span();
    let logits = Tensor::from_span(buffer("logits", Kind::Real, weights.len()), 1, weights.len());
    logits.write(device, &weights.iter().map(|w| w.ln()).collect::<Vec<_>>()).unwrap();
    let ids = buffer("previous", Kind::U32, previous.len().max(1));
    device.write_words(&ids, previous).unwrap();
    let out = buffer("token", Kind::U32, 1);
    us.iter()
        .map(|&u| {
            let mut rec = Recording::new();
            let changes = Changes { previous: Some((&ids, previous.len())), added: None };
            sample(&mut rec, &logits, 0, changes, sampling, u, &out);
            device.run(&rec).unwrap();
            device.read_words(&out).unwrap()[0]
        })
        .collect()
}

/// The probability of every token, by drawing with evenly spaced uniform numbers.
fn probabilities(device: &mut dyn Executor, weights: &[f32], previous: &[u32], sampling: &Sampling) -> Vec<f64> {
    const N: usize = 997;
    let us: Vec<f32> = (0..N).map(|i| (i as f32 + 0.5) / N as f32).collect();
    let mut found = vec![0.0; weights.len()];
    for token in draws(device, weights, previous, sampling, &us) {
        found[token as usize] += 1.0 / N as f64;
    }
    found
}

fn check(weights: &[f32], previous: &[u32], sampling: Sampling, expected: &[f64]) {
    let cpu = probabilities(&mut CpuExecutor::<f32>::new(), weights, previous, &sampling);
    let near = |found: &[f64]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.003);
    assert!(near(&cpu), "{sampling:?}: {cpu:?}, expected {expected:?}");
}

const PLAIN: Sampling = Sampling {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
};

#[test]
fn each_filter_keeps_what_its_definition_says() {
    let w = [0.1, 0.4, 0.2, 0.3];
    check(&w, &[], PLAIN, &[0.1, 0.4, 0.2, 0.3]);
    check(&w, &[], Sampling { temperature: 0.5, ..PLAIN }, &[1.0 / 30.0, 16.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0]);
    check(&w, &[], Sampling { top_k: 2, ..PLAIN }, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    // 0.4 + 0.3 is less than 0.75, so 0.2 is the last to stay.
    check(&w, &[], Sampling { top_p: 0.75, ..PLAIN }, &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
    check(&w, &[], Sampling { top_p: 0.01, ..PLAIN }, &[0.0, 1.0, 0.0, 0.0]);
    check(&w, &[], Sampling { min_p: 0.45, ..PLAIN }, &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
    check(&w, &[], Sampling { temperature: 0.0, ..PLAIN }, &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn filters_apply_to_what_the_ones_before_them_kept() {
    let w = [0.1, 0.4, 0.2, 0.3];
    // After top-k, token 1 has 4/7, which reaches 0.55; among all tokens it has only 0.4.
    check(&w, &[], Sampling { top_k: 2, top_p: 0.55, ..PLAIN }, &[0.0, 1.0, 0.0, 0.0]);
    // The temperature comes first: it raises token 1 to 16/30.
    check(&w, &[], Sampling { temperature: 0.5, top_p: 0.5, ..PLAIN }, &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn equals_stay_in_top_k_and_the_lowest_fill_top_p() {
    let w = [0.2, 0.2, 0.4, 0.2];
    check(&w, &[], Sampling { top_k: 2, ..PLAIN }, &[0.2, 0.2, 0.4, 0.2]);
    check(&w, &[], Sampling { top_p: 0.7, ..PLAIN }, &[0.25, 0.25, 0.5, 0.0]);
    check(&[1.0; 4], &[], Sampling { temperature: 0.0, ..PLAIN }, &[1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn the_penalty_divides_positive_and_multiplies_negative_logits_once() {
    // Logits ln 4 and ln 1/4 become ln 2 and ln 1/16 with a penalty of 2, however often a token is
    // listed.
    let sampling = Sampling { repetition_penalty: 2.0, ..PLAIN };
    let total = 2.0 + 1.0 / 16.0 + 1.0;
    check(&[4.0, 0.25, 1.0], &[0, 1, 1, 0], sampling, &[2.0 / total, 1.0 / 16.0 / total, 1.0 / total]);
    check(&[4.0, 3.0, 1.0], &[0], Sampling { temperature: 0.0, ..sampling }, &[0.0, 1.0, 0.0]);
}

#[test]
fn random_draws_have_the_right_frequencies() {
    const N: usize = 20_000;
    let weights: Vec<f32> = (1..=20).map(|i| i as f32).collect();
    let sampling = Sampling { top_k: 12, ..PLAIN };
    let mut rng = StdRng::seed_from_u64(7);
    let us: Vec<f32> = (0..N).map(|_| rng.random::<f32>()).collect();
    let mut counts = [0.0f64; 20];
    for token in draws(&mut CpuExecutor::<f32>::new(), &weights, &[], &sampling, &us) {
        counts[token as usize] += 1.0;
    }
    let total: f32 = weights[8..].iter().sum();
    assert!(counts[..8].iter().all(|&c| c == 0.0));
    let expected = weights[8..].iter().map(|w| f64::from(w / total) * N as f64);
    let chi_square: f64 = counts[8..].iter().zip(expected).map(|(c, e)| (c - e) * (c - e) / e).sum();
    assert!(chi_square < 31.3, "chi-square {chi_square} with 11 degrees of freedom: 99.9 % lie below 31.3");
}

#[test]
fn the_device_filters_as_the_cpu_does() {
    let Some(mut device) = common::software_device() else { return };
    let mut cpu = CpuExecutor::<f32>::new();
    let weights: Vec<f32> = (0..1500u32).map(|i| 1.0 + (i * 7919 % 1009) as f32).collect();
    let us: Vec<f32> = (0..40).map(|i| (i as f32 + 0.37) / 40.0).collect();
    for sampling in [
        PLAIN,
        Sampling { top_k: 100, ..PLAIN },
        Sampling { top_p: 0.6, ..PLAIN },
        Sampling { top_k: 1000, top_p: 0.9, min_p: 0.7, temperature: 0.9, repetition_penalty: 1.3, ..PLAIN },
    ] {
        let [a, b] =
            [&mut cpu as &mut dyn Executor, &mut device].map(|d| draws(d, &weights, &[1, 2, 3], &sampling, &us));
        assert_eq!(a, b, "{sampling:?}");
    }
}

#[test]
fn values_out_of_range_name_their_setting() {
    for (sampling, setting) in [
        (Sampling { temperature: -1.0, ..PLAIN }, "`temperature`"),
        (Sampling { temperature: f32::NAN, ..PLAIN }, "`temperature`"),
        (Sampling { top_p: 0.0, ..PLAIN }, "`top_p`"),
        (Sampling { min_p: 1.5, ..PLAIN }, "`min_p`"),
        (Sampling { repetition_penalty: 0.0, ..PLAIN }, "`repetition_penalty`"),
    ] {
        assert!(sampling.validate().unwrap_err().to_string().contains(setting));
    }
}
