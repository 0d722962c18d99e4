//! The AdamW update of whole arena slices with state in 8 bits, and a factor for each block.
//!
//! The levels of the codes are those of bitsandbytes' dynamic map.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::adamw::UpdateParams;
use super::case::{Case, Input, Tolerance, random};
use super::parts::REDUCE;
use crate::gpu::{Binding, Buffer, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, groups_for};
use crate::tensor::{ArenaSlice, Format, Group, TENSOR_ALIGNMENT as BLOCK, Tensor, copy_tensor};
use crate::wgsl;

/// Workgroup size, and words of a block's codes.
const GROUP: usize = BLOCK / 4;

/// The code of a mean of 0.
const ZERO: u32 = 127;

/// Divisors of the quotients are at least this large.
const LEAST_DIVISOR: f32 = 1e-37;

static UPDATE: KernelDef = KernelDef {
    label: "adamw8bit/update",
    suffix: "",
    parts: &[REDUCE, wgsl!("adamw8bit/update")],
    bindings: &[
        Binding::read("clipping", Kind::Real, "[norm, factor]"),
        Binding::read("grads", Kind::Real, "[n]"),
        Binding::read_write("values", Kind::Real, "[n]"),
        Binding::read_write("exp_avg", Kind::U32, "[blocks * 64]"),
        Binding::read_write("exp_avg_absmax", Kind::Real, "[blocks]"),
        Binding::read_write("exp_avg_sq", Kind::U32, "[blocks * 64]"),
        Binding::read_write("exp_avg_sq_absmax", Kind::Real, "[blocks]"),
    ],
    params: UpdateParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(60 * d.param("n"))),
    reference_f32: update_reference,
    reference_f64: update_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    vec![(&UPDATE, vec![])]
}

/// The levels of a dynamic map from 0 up: 0, the middles of `first`, 2 · `first`, 4 · `first` …
/// even steps within each of the decades from 10⁻⁷ to 1, and 1.
fn levels(first: usize) -> Vec<f64> {
    let mut levels = vec![0.0];
    for (e, power) in [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0].into_iter().enumerate() {
        let steps = first << e;
        levels.extend((0..steps).map(|i| power * (0.1 + 0.9 * (i as f64 + 0.5) / steps as f64)));
    }
    levels.push(1.0);
    levels
}

/// A dynamic map: its levels, the middles between neighbours, and for each run of numbers with the
/// same first bits, how many middles lie below it.
struct Map {
    levels: Vec<f64>,
    middles: Vec<f64>,
    starts: Vec<u8>,
}

/// The bits of 2⁻²³, which is below all middles, but for the last 45.
const FIRST_RUN: u64 = (1.0 / 8_388_608.0f64).to_bits() >> 45;

/// The run of a number: its bits but for the last 45, counted from the first run.
fn run_of(a: f64) -> usize {
    (a.to_bits() >> 45).saturating_sub(FIRST_RUN) as usize
}

impl Map {
    fn new(first: usize) -> Self {
        let levels = levels(first);
        let middles: Vec<f64> = levels.windows(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect();
        let below = |run: usize| {
            let first = f64::from_bits((run as u64 + FIRST_RUN) << 45);
            middles.partition_point(|&middle| middle < first) as u8
        };
        let starts = (0..=run_of(1.0)).map(below).collect();
        Self { levels, middles, starts }
    }

    /// The level nearest to a in [0, 1]; the lower one of two that are equally near.
    fn nearest(&self, a: f64) -> u32 {
        let mut code = usize::from(self.starts[run_of(a).min(self.starts.len() - 1)]);
        while self.middles.get(code).is_some_and(|&middle| middle < a) {
            code += 1;
        }
        code as u32
    }
}

/// The map of squares; and of means, which have half as many levels and a sign.
static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(2));
static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(1));

fn signed_level(code: u32) -> f64 {
    let level = SIGNED.levels[code.abs_diff(ZERO) as usize];
    if code < ZERO { -level } else { level }
}

/// -1 is not a level.
fn signed_nearest(a: f64) -> u32 {
    let j = SIGNED.nearest(a.abs());
    if a < 0.0 { ZERO - j.min(ZERO) } else { ZERO + j }
}

/// The k-th code of a word.
fn code(word: u32, k: usize) -> u32 {
    word >> (8 * k) & 255
}

/// The new means of one block, before they are rounded.
fn means<T: Real>(
    p: &UpdateParams,
    factor: T,
    grads: &[T],
    (first, first_max): (&[u32], T),
    (second, second_max): (&[u32], T),
) -> [Vec<T>; 2] {
    let mean = |(i, &g): (usize, &T)| {
        let m = first_max * T::from_f64(signed_level(code(first[i / 4], i % 4)));
        m + T::of(p.one_minus_beta1) * (factor * g - m)
    };
    let square = |(i, &g): (usize, &T)| {
        let v = second_max * T::from_f64(UNSIGNED.levels[code(second[i / 4], i % 4) as usize]);
        let g = factor * g;
        v + T::of(p.one_minus_beta2) * (g * g - v)
    };
    [grads.iter().enumerate().map(mean).collect(), grads.iter().enumerate().map(square).collect()]
}

/// The largest magnitude, and each value as a fraction of it.
fn fractions<T: Real>(values: &[T]) -> (T, Vec<f64>) {
    let most = values.iter().fold(T::ZERO, |most, &v| most.max(v).max(-v));
    let divisor = most.max(T::of(LEAST_DIVISOR));
    (most, values.iter().map(|&v| (v / divisor).to_f64()).collect())
}

/// The words of codes; elements that are missing from the last word have the code of 0.
fn packed(fractions: &[f64], words: &mut [u32], code: impl Fn(f64) -> u32) {
    for (word, part) in words.iter_mut().zip(fractions.chunks(4)) {
        *word = (0..4).map(|k| code(part.get(k).copied().unwrap_or(0.0)) << (8 * k)).sum();
    }
}

fn update_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: UpdateParams = args.params();
    let [clipping, grads, values, first, first_max, second, second_max] = args.buffers();
    let (factor, grads, values) = (clipping.real()[1], grads.real(), values.real_mut());
    let (first, first_max) = (first.u32_mut(), first_max.real_mut());
    let (second, second_max) = (second.u32_mut(), second_max.real_mut());
    if factor == T::ZERO {
        return; // the gradient is not finite
    }
    let n = p.n as usize;
    let firsts = first.par_chunks_mut(GROUP).zip(first_max.par_iter_mut());
    let seconds = second.par_chunks_mut(GROUP).zip(second_max.par_iter_mut());
    let blocks = values[..n].par_chunks_mut(BLOCK).zip(grads[..n].par_chunks(BLOCK)).zip(firsts.zip(seconds));
    blocks.with_min_len(16).for_each(|((values, grads), ((first, first_max), (second, second_max)))| {
        let [m, v] = means(&p, factor, grads, (first, *first_max), (second, *second_max));
        for ((x, &m), &v) in values.iter_mut().zip(&m).zip(&v) {
            let denominator = v.sqrt() * T::of(p.inv_sqrt_correction) + T::of(p.eps);
            let kept = *x - T::of(p.decay) * (*x - T::of(p.origin));
            *x = kept - T::of(p.step_size) * (m / denominator);
        }
        let (m_max, m) = fractions(&m);
        let (v_max, v) = fractions(&v);
        packed(&m, first, signed_nearest);
        packed(&v, second, |a| UNSIGNED.nearest(a));
        (*first_max, *second_max) = (m_max, v_max);
    });
}

/// Appends one AdamW step over one slice. The slots are `exp_avg`, `exp_avg_absmax`, `exp_avg_sq`
/// and `exp_avg_sq_absmax`; `clipping[1]` multiplies the gradients on the device. Sets
/// `constants.n`.
pub fn update(rec: &mut Recording, slice: &ArenaSlice, slots: &[Buffer], clipping: &Span, constants: UpdateParams) {
    let n = slice.values.len();
    let buffers: Vec<Span> = [&slice.grads, &slice.values].into_iter().chain(slots).map(Buffer::span).collect();
    let spans: Vec<&Span> = std::iter::once(clipping).chain(&buffers).collect();
    let groups = groups_for(n.div_ceil(BLOCK) * GROUP, GROUP);
    rec.dispatch(&UPDATE, &[], UpdateParams { n: n as u32, ..constants }, &spans, groups);
}

/// State and gradients of some blocks. No new mean lies so near to the middle of two levels that
/// rounding decides its code, so every device finds the same codes.
struct State {
    grads: Vec<f32>,
    codes: [Vec<u32>; 2],
    factors: [Vec<f32>; 2],
}

impl State {
    fn new(n: usize, spread: f32, factor: f32, p: &UpdateParams) -> Self {
        let blocks = n.div_ceil(BLOCK);
        let words = |seed| {
            let codes = random(seed, blocks * BLOCK, 40.0);
            codes.chunks(4).map(|c| (0..4).map(|k| ((c[k] + 127.0) as u32).min(255) << (8 * k)).sum()).collect()
        };
        let sizes = |seed, spread: f32| random(seed, blocks, 0.3).iter().map(|x| (1.0 + x.abs()) * spread).collect();
        let state = Self {
            grads: random(2, n, spread),
            codes: [words(3), words(4)],
            factors: [sizes(5, 0.5 * spread), sizes(6, 0.2 * spread * spread)],
        };
        state.settled(factor, p)
    }

    fn settled(mut self, factor: f32, p: &UpdateParams) -> Self {
        (0..self.factors[0].len()).for_each(|b| self.settle(b, factor, p));
        self
    }

    /// Moves gradients of a block until no code depends on rounding.
    fn settle(&mut self, block: usize, factor: f32, p: &UpdateParams) {
        let [first, second] =
            [0, 1].map(|i| (&self.codes[i][block * GROUP..][..GROUP], f64::from(self.factors[i][block])));
        let end = self.grads.len().min((block + 1) * BLOCK);
        let grads = &mut self.grads[block * BLOCK..end];
        let old_m = |i: usize| first.1 * signed_level(code(first.0[i / 4], i % 4)).abs();
        let old_v = |i: usize| second.1 * UNSIGNED.levels[code(second.0[i / 4], i % 4) as usize];
        loop {
            let wide: Vec<f64> = grads.iter().map(|&g| f64::from(g)).collect();
            let [m, v] = means(p, f64::from(factor), &wide, first, second);
            let near = |a: f64, map: &Map, size: f64| {
                let at = map.nearest(a.abs()) as usize;
                let nearby = &map.middles[at.saturating_sub(1)..(at + 1).min(map.middles.len())];
                nearby.iter().any(|middle| (middle - a.abs()).abs() < 1e-5 * size)
            };
            let ((m_max, m), (v_max, v)) = (fractions(&m), fractions(&v));
            let is_unsettled = |&i: &usize| {
                let m_size = m[i].abs() + (f64::from(factor) * wide[i].abs() + old_m(i)) / m_max;
                near(m[i], &SIGNED, m_size) || near(v[i], &UNSIGNED, v[i] + old_v(i) / v_max)
            };
            let unsettled: Vec<usize> = (0..m.len()).filter(is_unsettled).collect();
            if unsettled.is_empty() {
                return;
            }
            for i in unsettled {
                grads[i] += 0.01 * (grads[i].abs() + (old_m(i) + 1e-6 * m_max) as f32 / factor);
            }
        }
    }

    /// The same blocks over and over.
    fn repeated(self, times: usize) -> Self {
        let Self { grads, codes, factors } = self;
        Self { grads: grads.repeat(times), codes: codes.map(|c| c.repeat(times)), factors: factors.map(|f| f.repeat(times)) }
    }
}

/// A case of one step from a state, with the clipping [1.5, factor].
fn case(name: &str, state: State, factor: f32, constants: UpdateParams) -> Case {
    let State { grads, codes, factors } = state;
    let (n, blocks) = (grads.len(), factors[0].len());
    let row = |values: Vec<f32>| {
        let cols = values.len();
        Input::Real { rows: 1, cols, format: Format::F32, values, differentiable: false }
    };
    let [first_max, second_max] = factors;
    let reals = [random(1, n, 1.0), grads, first_max, second_max, vec![1.5, factor]].map(row);
    let inputs = reals.into_iter().chain(codes.map(Input::Words)).collect();
    Case::new(format!("adamw8bit/update: {name}"), inputs, Tolerance::SUMS, move |rec, b| {
        let real = |label: &str, n| Buffer::persistent(label, Kind::Real, n);
        let (values, grads) = (real("values", n), real("gradients", n));
        let (first_max, second_max) = (real("exp_avg_absmax", blocks), real("exp_avg_sq_absmax", blocks));
        let tensor = |b: &Buffer| Tensor::from_span(b.span(), 1, b.len());
        for (from, to) in b.tensors.iter().zip([&values, &grads, &first_max, &second_max]) {
            copy_tensor(rec, from, &tensor(to));
        }
        let codes = |rec: &mut Recording, label: &str, words: &Span| {
            let buffer = Buffer::persistent(label, Kind::U32, words.len);
            rec.copy(words, &buffer.span());
            buffer
        };
        let (first, second) = (codes(rec, "exp_avg", &b.words[0]), codes(rec, "exp_avg_sq", &b.words[1]));
        let outputs = [&values, &first_max, &second_max].map(tensor).to_vec();
        let slice = ArenaSlice { values, grads, decay: Some(0.0), group: Group::Main };
        update(rec, &slice, &[first, first_max, second, second_max], b.tensors[4].span(), constants);
        Ok((outputs, None))
    })
}

/// The family's cases.
pub fn cases() -> Vec<Case> {
    let usual = UpdateParams {
        n: 0,
        decay: 0.001,
        origin: 0.0,
        one_minus_beta1: 0.1,
        one_minus_beta2: 0.001,
        step_size: 0.01,
        inv_sqrt_correction: 18.3,
        eps: 1e-8,
    };
    let other = UpdateParams {
        decay: 0.2,
        origin: 0.7,
        one_minus_beta1: 0.6,
        one_minus_beta2: 0.3,
        step_size: 0.3,
        inv_sqrt_correction: 1.2,
        eps: 1e-3,
        ..usual
    };
    let of = |name: &str, n: usize, spread: f32, factor: f32, p: UpdateParams| {
        case(name, State::new(n, spread, factor, &p), factor, p)
    };
    // Gradients of every size, from a state of zeros.
    let size = |i: usize| 10f32.powf((i % BLOCK) as f32 * -7.5 / BLOCK as f32) * if i.is_multiple_of(3) { -1.0 } else { 1.0 };
    let first_step = State {
        grads: (0..2 * BLOCK + 3).map(size).collect(),
        codes: [vec![0; 3 * GROUP], vec![0; 3 * GROUP]],
        factors: [vec![0.0; 3], vec![0.0; 3]],
    };
    let mut zeros = State::new(3 * BLOCK, 1.0, 0.5, &usual);
    zeros.grads[BLOCK..2 * BLOCK].fill(0.0);
    (zeros.factors[0][1], zeros.factors[1][1]) = (0.0, 0.0);
    let skipped = State::new(300, 1.0, 1.0, &usual);
    let many = State::new(64 * BLOCK, 1e-3, 0.5, &usual);
    vec![
        of("odd size, clipped", 1234, 1.0, 0.25, usual),
        of("one element, not clipped", 1, 1.0, 1.0, usual),
        of("whole blocks, other constants", 4 * BLOCK, 1e-2, 1.0, other),
        of("large values", 777, 1e6, 0.5, other),
        of("small values", 601, 1e-7, 0.5, UpdateParams { eps: 1e-12, ..usual }),
        case("a block of zeros", zeros, 0.5, usual),
        case("skipped", skipped, 0.0, usual),
        case("the first step", first_step.settled(1.0, &usual), 1.0, usual),
        case("bench", many.repeated(256), 0.5, usual).bench(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// bitsandbytes' `create_dynamic_map`, written out: `boundaries` are its `linspace(0.1, 1, …)`.
    #[test]
    fn the_levels_are_those_of_the_dynamic_map() {
        for (first, is_signed) in [(1usize, true), (2, false)] {
            let mut map = vec![0.0, 1.0];
            for i in 0..7 {
                let items = (first << i) + 1;
                let boundaries: Vec<f64> = (0..items).map(|k| 0.1 + 0.9 * k as f64 / (items - 1) as f64).collect();
                let power = 10f64.powi(i - 6);
                for pair in boundaries.windows(2) {
                    let level = power * (pair[0] + pair[1]) / 2.0;
                    map.push(level);
                    if is_signed {
                        map.push(-level);
                    }
                }
            }
            map.sort_by(f64::total_cmp);
            assert_eq!(map.len(), 256);
            let level = |c: u32| if is_signed { signed_level(c) } else { UNSIGNED.levels[c as usize] };
            for (code, want) in map.iter().enumerate() {
                assert!((level(code as u32) - want).abs() <= 1e-15 * want.abs(), "{code}: {want}");
            }
        }
    }

    #[test]
    fn codes_are_those_of_the_nearest_level() {
        for i in -1000i32..=1000 {
            let a = f64::from(i) / 1000.0 * 10f64.powi(-(i.abs() % 8));
            let distance = |c: u32| (signed_level(c) - a).abs();
            let found = signed_nearest(a);
            assert!((0..256).all(|c| distance(found) <= distance(c) + 1e-18), "{a}");
            let distance = |c: u32| (UNSIGNED.levels[c as usize] - a.abs()).abs();
            let found = UNSIGNED.nearest(a.abs());
            assert!((0..256).all(|c| distance(found) <= distance(c) + 1e-18), "{a}");
        }
        assert_eq!([signed_nearest(-1.0), signed_nearest(0.0), signed_nearest(1.0)], [0, ZERO, 255]);
    }
}
