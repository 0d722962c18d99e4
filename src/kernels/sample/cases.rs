//! The cases of `choose.rs`: rows of logits with filters and draws at their limits.

use crate::kernels::case::{Case, Input, Tolerance, random, real};
use super::choose::{Changes, EXCLUDED, Sampling, sample};
use crate::gpu::Kind;
use crate::tensor::Format;

/// The quantiles of the draws in most cases.
const QUANTILES: &[f32] = &[0.0, 0.1237, 0.5113, 0.77, 0.999];

/// A case that draws from the last row at several quantiles.
fn case(name: &str, logits: Input, previous: &[u32], sampling: Sampling) -> Case {
    draws(name, logits, previous, sampling, QUANTILES)
}

fn draws(name: &str, logits: Input, previous: &[u32], sampling: Sampling, quantiles: &'static [f32]) -> Case {
    changed(name, logits, previous, None, sampling, quantiles)
}

/// [`draws`] with what is added to the logits.
fn changed(
    name: &str,
    logits: Input,
    previous: &[u32],
    added: Option<Vec<f32>>,
    sampling: Sampling,
    quantiles: &'static [f32],
) -> Case {
    let mut words = previous.to_vec();
    let count = words.len();
    let Input::Real { cols, .. } = &logits else { unreachable!("logits are real") };
    words.push(2.min(*cols as u32 - 1)); // beyond the valid count
    let added = added.map(row);
    let inputs = [Some(logits.frozen()), added, Some(Input::Words(words))].into_iter().flatten().collect();
    Case::new(format!("sample: {name}"), inputs, Tolerance::ROUNDING, move |rec, b| {
        for &uniform in quantiles {
            let out = rec.transient("token", Kind::U32, 1);
            let changes = Changes { previous: Some((&b.words[0], count)), added: b.tensors.get(1).map(|t| t.span()) };
            sample(rec, &b.tensors[0], b.tensors[0].rows - 1, changes, &sampling, uniform, &out);
        }
        Ok((vec![], None))
    })
}

/// One row of these logits.
fn row(values: Vec<f32>) -> Input {
    Input::Real { rows: 1, cols: values.len(), format: Format::F32, values, differentiable: false }
}

/// Two rows with few distinct values, for ties.
fn tied(cols: usize) -> Input {
    let values = random(5, 2 * cols, 2.0).iter().map(|x| x.round()).collect();
    Input::Real { rows: 2, cols, format: Format::F32, values, differentiable: false }
}

/// One row with one logit far above the others at `at`; a kernel that misses it overflows or
/// chooses another token.
fn peaked(cols: usize, at: usize) -> Input {
    let mut values = random(6, cols, 1.0);
    values[at] += 150.0;
    row(values)
}

/// Two equal peaks in elements of one lane.
fn references_of_a_lane() -> Input {
    let mut values = random(11, 777, 1.0);
    [5, 261].into_iter().for_each(|at| values[at] = 9.0);
    row(values)
}

/// Logits near the lower end of f32.
fn far_below_zero(cols: usize) -> Input {
    let values = random(7, cols, 1.0).iter().map(|x| -2.4e38 + x * 1.5e37).collect();
    row(values)
}

/// Logits that differ by one unit in the last place, in random order.
fn close(cols: usize, from: f32) -> Input {
    let values = (0..cols as u32).map(|i| f32::from_bits(from.to_bits() + i * 7919 % cols as u32)).collect();
    row(values)
}

/// A peak at either end, at each place of a group of four, and in the last lane.
fn peaked_cases(plain: Sampling) -> Vec<Case> {
    let case = |(cols, at)| {
        let greedy = case(&format!("greedy, peak {at} of {cols}"), peaked(cols, at), &[], Sampling::default());
        [greedy, case(&format!("plain, peak {at} of {cols}"), peaked(cols, at), &[], plain)]
    };
    [
        (70_001, 69_999),
        (512, 511),
        (777, 255),
        (777, 776),
        (777, 256),
        (1237, 1025),
        (300, 0),
        (300, 128),
        (300, 129),
        (300, 258),
    ]
    .into_iter()
    .flat_map(case)
    .collect()
}

/// Filters and draws whose sums are whole numbers, so that a limit is reached exactly: equal logits
/// have a mass of 1 each.
fn limit_cases() -> Vec<Case> {
    let all = Sampling { temperature: 1.0, ..Sampling::default() };
    let top_p = |top_p| Sampling { top_p, ..all };
    let equal = |n| row(vec![-2.5; n]);
    let ends: &[f32] = &[0.0, 0.5, 0.9999];
    let many: &[f32] = &[0.02, 0.11, 0.19, 0.31, 0.43, 0.57, 0.68, 0.71, 0.83, 0.94, 0.96, 0.97, 0.98, 0.99];
    let mut cases = vec![
        draws("equals, a quantile between two", equal(8), &[], all, &[0.125, 0.5, 0.625]),
        draws("equals, a quantile between two segments", equal(512), &[], all, &[0.5, 0.25]),
        draws("equals, a quantile within a segment", equal(512), &[], all, &[255.0 / 512.0, 257.0 / 512.0]),
        draws("equals, half of them", equal(8), &[], top_p(0.5), ends),
        draws("equals, a quarter of many", equal(512), &[], top_p(0.25), ends),
        draws("equals, up to the middle of a segment", equal(512), &[], top_p(129.0 / 512.0), ends),
        draws("two of three are equal", row([1.5, -1.5, 1.5].repeat(200)), &[], top_p(100.5 / 409.96), ends),
        draws("one of three is equal", row([-1.5, -1.5, 1.5].repeat(200)), &[], top_p(50.5 / 219.92), ends),
        draws("one of many equals", equal(8), &[], top_p(0.1), ends),
        draws("some of the lesser half", row([0.0, 0.7].repeat(300)), &[], top_p(0.72404), many),
        draws("some of the lesser half, below zero", row([-1.7, -1.0].repeat(300)), &[], top_p(0.72404), many),
        draws("equals beside their neighbours", row([8.0, 8.000_001].repeat(4)), &[], top_p(0.75), many),
        draws("all but one", row(vec![0.5, -1.0, 0.25, 1.0, 0.0]), &[], Sampling { top_k: 4, ..all }, many),
        draws(
            "both zeros are one",
            row([-1.0, -0.0, 0.0, -1.0, 0.0].repeat(3)),
            &[],
            Sampling { top_k: 2, ..all },
            ends,
        ),
        draws("half of both zeros", row([-1.0, -0.0, 0.0, -1.0, 0.0].repeat(3)), &[], top_p(0.3), ends),
        draws("zeros at the top", row(vec![-0.0, 0.0, -0.0, 0.0]), &[], top_p(0.5), ends),
    ];
    let mut values = random(8, 1024, 1.0);
    for (i, at) in [1, 0, 2, 3, 1021, 1020, 1022, 1023].into_iter().enumerate() {
        values[at] = 3.0 + 0.1 * i as f32;
    }
    let mut beyond = values.clone();
    beyond.extend([3.05, 2.0, 2.5]);
    for k in [3, 4, 8] {
        let sampling = Sampling { top_k: k, ..all };
        cases.push(case(&format!("top {k}, at both ends"), row(values.clone()), &[], sampling));
        cases.push(case(&format!("top {k}, at both ends of a ragged row"), row(beyond.clone()), &[], sampling));
    }
    cases.push(case("top-p, at both ends", row(values.clone()), &[], top_p(0.2)));
    cases.push(case("top-p, with a last quad", row(beyond), &[], top_p(0.9)));
    cases.push(case("top-p of all", row(values.clone()), &[], top_p(0.9999999)));
    cases.push(case("top-p of the first", row(values), &[], top_p(1e-6)));
    values = random(9, 300, 1.0);
    [77, 130, 299].into_iter().for_each(|at| values[at] = 7.5);
    cases.push(draws("as likely as the first", row(values), &[], Sampling { min_p: 1.0, ..all }, ends));
    for k in [2, 3, 5, 9, 17, 40, 100] {
        let sampling = Sampling { top_k: k, ..all };
        cases.push(draws(&format!("top {k}, a step apart"), close(301, 8.0), &[], sampling, &[0.0, 0.9999]));
        cases.push(draws(
            &format!("top {k}, a step apart below zero"),
            close(301, -8.0),
            &[],
            sampling,
            &[0.0, 0.9999],
        ));
    }
    let below: Vec<f32> = random(10, 500, 2.0).iter().map(|x| x - 20.0).collect();
    cases.push(case("top-k below zero", row(below.clone()), &[], Sampling { top_k: 9, ..all }));
    cases.push(case("top-p below zero", row(below), &[], top_p(0.41)));
    cases
}

/// Biases, and rows of which few tokens remain, at either end.
fn added_cases(plain: Sampling) -> Vec<Case> {
    let only = |cols: usize, left: &[usize]| {
        let mut added = vec![EXCLUDED; cols];
        left.iter().for_each(|&at| added[at] = 0.0);
        Some(added)
    };
    let bias = |cols| Some(random(12, cols, 4.0));
    let warm = Sampling { repetition_penalty: 1.3, top_p: 0.9, ..plain };
    let greedy = Sampling::default();
    let with = |name: &str, cols, added, sampling| {
        changed(name, real(1, 2, cols, 3.0), &[0, 2], added, sampling, QUANTILES)
    };
    vec![
        with("greedy with biases", 1237, bias(1237), greedy),
        with("biases and a penalty", 777, bias(777), warm),
        with("greedy, one token is left", 1237, only(1237, &[1236]), greedy),
        with("the first and the last are left", 777, only(777, &[0, 776]), plain),
        with("some are left", 512, only(512, &[3, 255, 256, 511]), warm),
        with("a cold draw, one token is left", 301, only(301, &[17]), Sampling { temperature: 1e-3, ..plain }),
    ]
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let plain = Sampling { temperature: 0.8, ..Sampling::default() };
    let all = Sampling { temperature: 1.3, top_k: 40, top_p: 0.9, min_p: 0.02, repetition_penalty: 1.2, ..plain };
    let odd = || real(1, 2, 1237, 3.0);
    let mut cases = peaked_cases(plain);
    cases.extend(limit_cases());
    cases.extend(added_cases(plain));
    cases.extend([
        case("greedy", odd(), &[], Sampling::default()),
        case("greedy, two equals of a lane", references_of_a_lane(), &[], Sampling::default()),
        case("greedy, far below zero", far_below_zero(301), &[], Sampling::default()),
        case("plain, far below zero", far_below_zero(301), &[], Sampling { temperature: 1.0, ..plain }),
        case(
            "greedy with a penalty",
            odd(),
            &[3, 99, 1236],
            Sampling { repetition_penalty: 5.0, ..Sampling::default() },
        ),
        case(
            "a penalty of tokens that come twice",
            real(1, 1, 1237, 3.0),
            &(0..600).map(|i| i % 290).collect::<Vec<_>>(),
            Sampling { repetition_penalty: 1.7, ..all },
        ),
        case("greedy among equals", tied(777), &[], Sampling::default()),
        case("plain", odd(), &[], plain),
        case("one token", real(1, 1, 1, 1.0), &[0], all),
        case("three tokens", real(1, 2, 3, 1.0), &[1], plain),
        case("top-k", odd(), &[], Sampling { top_k: 7, ..plain }),
        case("top-k among equals", tied(301), &[], Sampling { top_k: 10, ..plain }),
        case("top-p", odd(), &[], Sampling { top_p: 0.37, ..plain }),
        case("top-p among equals", tied(301), &[], Sampling { top_p: 0.613, ..plain }),
        case("min-p", odd(), &[], Sampling { min_p: 0.11, ..plain }),
        case("everything", odd(), &[5, 17, 5, 5000, 1237, 1238, 800], all),
        case(
            "everything, beyond 16 bits",
            real(1, 2, 70_001, 3.0),
            &(0..512).map(|i| 70_000 - i * 133).collect::<Vec<_>>(),
            all,
        ),
        case("greedy, a step apart", close(2001, 8.0), &[], Sampling::default()),
        case("one of the best", odd(), &[], Sampling { top_k: 1, ..plain }),
        case("large values", real(1, 2, 500, 1e6), &[4], all),
        case("bench", real(1, 1, 151_936, 3.0), &[1, 2, 3], all).bench(),
    ]);
    cases
}
