//! Sampling of the next token on the device, in the order of Hugging Face's generate.
//!
//! The order is repetition penalty, additions (biases, and tokens that are excluded), temperature, top-k,
//! top-p, min-p and a random draw. The shader
//! finds the thresholds of top-k and top-p by a search over the bits of f32; the reference sorts.
//! The host generates random numbers: a draw is the quantile of one uniform number, so a seed gives
//! the same text on every device, up to rounding at the boundaries.

use crate::kernels::parts::TREE;
use crate::error::{Error, Result};
use crate::gpu::{Binding, KernelArgs, KernelDef, Kind, Params as _, Real, Recording, Span, Work, groups_for};
use crate::tensor::Tensor;
use crate::{params, wgsl};

/// Workgroup size.
const GROUP: usize = 256;

/// Below this exponent, exp adds nothing in f32.
const LOWEST_EXPONENT: f32 = -80.0;

/// Temperatures between 0 and this value would overflow f32 logits.
const SMALLEST_TEMPERATURE: f32 = 1e-6;

/// Largest frequency and presence penalty.
const MOST_SUBTRACTED: f32 = 100.0;

/// Sampling settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits; 0 selects the most likely token, and the lowest id among ties.
    pub temperature: f32,
    /// Keeps the k most likely tokens and ties with the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens with at least this total probability; 1 keeps
    /// all.
    pub top_p: f32,
    /// Keeps tokens with at least this fraction of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of earlier tokens; 1 disables it.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time that the answer has it, as in OpenAI's API; 0 disables
    /// it.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of a token that the answer has, as in OpenAI's API; 0 disables it.
    pub presence_penalty: f32,
}

/// The logit of a token that must not be drawn, in the additions of [`sample`].
pub const EXCLUDED: f32 = -3.0e38;

/// What changes the logits before the temperature.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// Ids of earlier tokens for the repetition penalty, and the number of valid ones in the span. Ids
    /// outside the vocabulary are ignored.
    pub previous: Option<(&'a Span, usize)>,
    /// What is added to each logit `[vocabulary]`, or [`EXCLUDED`]. At least one token remains.
    pub added: Option<&'a Span>,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, frequency_penalty: 0.0, presence_penalty: 0.0 }
    }
}

impl Sampling {
    /// Rejects values out of range; the error names the field.
    pub fn validate(&self) -> Result<()> {
        let Self { temperature, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty, .. } = *self;
        let is_moderate = |penalty: f32| (-MOST_SUBTRACTED..=MOST_SUBTRACTED).contains(&penalty);
        let out_of_range =
            |name, x: f32| format!("`{name}` {x} does not lie in [-{MOST_SUBTRACTED}, {MOST_SUBTRACTED}]; 0 changes nothing");
        let usable = temperature == 0.0 || (temperature.is_finite() && temperature >= SMALLEST_TEMPERATURE);
        let checks = [
            (usable, format!("`temperature` {temperature} is neither 0 (greedy) nor a number from {SMALLEST_TEMPERATURE}")),
            (top_p > 0.0 && top_p <= 1.0, format!("`top_p` {top_p} does not lie in (0, 1]; 1 keeps all tokens")),
            ((0.0..=1.0).contains(&min_p), format!("`min_p` {min_p} does not lie in [0, 1]; 0 keeps all tokens")),
            (
                repetition_penalty.is_finite() && repetition_penalty >= SMALLEST_TEMPERATURE,
                format!("`repetition_penalty` {repetition_penalty} is not a positive number; 1 changes nothing"),
            ),
            (is_moderate(frequency_penalty), out_of_range("frequency_penalty", frequency_penalty)),
            (is_moderate(presence_penalty), out_of_range("presence_penalty", presence_penalty)),
        ];
        checks.into_iter().try_for_each(|(ok, message)| if ok { Ok(()) } else { Err(Error::usage(message)) })
    }
}

params! {
    /// One row of logits.
    pub struct ScaleParams {
        /// Vocabulary.
        n: u32,
        /// First element of the row.
        offset: u32,
        /// Divisor.
        temperature: f32,
    }
}

params! {
    /// The penalty on earlier tokens.
    pub struct PenaliseParams {
        /// Vocabulary.
        n: u32,
        /// First element of the row.
        offset: u32,
        /// Number of earlier tokens.
        n_previous: u32,
        /// Divides positive and multiplies negative logits.
        penalty: f32,
        /// Divisor.
        temperature: f32,
    }
}

params! {
    /// What is added to the logits.
    pub struct AddParams {
        /// Vocabulary.
        n: u32,
        /// Divisor.
        temperature: f32,
    }
}

params! {
    /// The number of elements.
    pub struct ArgmaxParams {
        /// Vocabulary.
        n: u32,
    }
}

params! {
    /// The filters and the random number.
    pub struct DrawParams {
        /// Vocabulary.
        n: u32,
        /// Number of tokens to keep; n or more for all.
        top_k: u32,
        /// Probability mass to keep; 1 for all.
        top_p: f32,
        /// Minimum probability to keep, as a fraction of the largest.
        min_p: f32,
        /// Uniform in [0, 1).
        quantile: f32,
    }
}

static SCALE: KernelDef = KernelDef {
    label: "sample/scale",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("sample/scale")],
    bindings: &[
        Binding::read("logits", Kind::Real, "[rows, n]"),
        Binding::write("adjusted", Kind::Real, "[4 ceil(n / 4)]"),
    ],
    params: ScaleParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: d.param("n"), bytes: 8 * d.param("n") }),
    reference_f32: scale_reference,
    reference_f64: scale_reference,
};

static PENALISE: KernelDef = KernelDef {
    label: "sample/penalise",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("sample/penalise")],
    bindings: &[
        Binding::read("logits", Kind::Real, "[rows, n]"),
        Binding::read("previous", Kind::U32, "[n_previous]"),
        Binding::read_write("adjusted", Kind::Real, "[4 ceil(n / 4)]"),
    ],
    params: PenaliseParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 2 * d.param("n_previous"), bytes: 12 * d.param("n_previous") }),
    reference_f32: penalise_reference,
    reference_f64: penalise_reference,
};

static ADD: KernelDef = KernelDef {
    label: "sample/add",
    suffix: "",
    parts: &[wgsl!("common/grid"), wgsl!("sample/add")],
    bindings: &[
        Binding::read("added", Kind::Real, "[n]"),
        Binding::read_write("adjusted", Kind::Real, "[4 ceil(n / 4)]"),
    ],
    params: AddParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(Work { flops: 2 * d.param("n"), bytes: 12 * d.param("n") }),
    reference_f32: add_reference,
    reference_f64: add_reference,
};

static ARGMAX: KernelDef = KernelDef {
    label: "sample/argmax",
    suffix: "",
    parts: &[TREE, wgsl!("sample/argmax")],
    bindings: &[Binding::read("x", Kind::Real, "[n]"), Binding::write("token", Kind::U32, "[1]")],
    params: ArgmaxParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(0)),
    reference_f32: argmax_reference,
    reference_f64: argmax_reference,
};

static DRAW: KernelDef = KernelDef {
    label: "sample/draw",
    suffix: "",
    parts: &[TREE, wgsl!("sample/filter"), wgsl!("sample/draw")],
    bindings: &[Binding::read("adjusted", Kind::Real, "[4 ceil(n / 4)]"), Binding::write("token", Kind::U32, "[1]")],
    params: DrawParams::FIELDS,
    constants: &[],
    alternatives: &[],
    work: |d| Ok(d.work(2 * d.len("adjusted"))),
    reference_f32: draw_reference,
    reference_f64: draw_reference,
};

/// The kernels of this family.
pub fn kernels() -> Vec<(&'static KernelDef, Vec<u32>)> {
    [&SCALE, &PENALISE, &ADD, &ARGMAX, &DRAW].map(|k| (k, vec![])).to_vec()
}

fn scale_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: ScaleParams = args.params();
    let [logits, adjusted] = args.buffers();
    let row = &logits.real()[p.offset as usize..][..p.n as usize];
    let adjusted = adjusted.real_mut();
    adjusted.fill(T::LOWEST);
    for (a, &x) in adjusted.iter_mut().zip(row) {
        *a = x / T::of(p.temperature);
    }
}

fn penalise_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: PenaliseParams = args.params();
    let [logits, previous, adjusted] = args.buffers();
    let row = &logits.real()[p.offset as usize..][..p.n as usize];
    let (adjusted, penalty) = (adjusted.real_mut(), T::of(p.penalty));
    for &token in &previous.u32()[..p.n_previous as usize] {
        if let Some(&x) = row.get(token as usize) {
            let x = if x > T::ZERO { x / penalty } else { x * penalty };
            adjusted[token as usize] = x / T::of(p.temperature);
        }
    }
}

fn add_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: AddParams = args.params();
    let [added, adjusted] = args.buffers();
    for (a, &by) in adjusted.real_mut().iter_mut().zip(&added.real()[..p.n as usize]) {
        *a = if by > T::of(EXCLUDED / 2.0) { *a + by / T::of(p.temperature) } else { T::LOWEST };
    }
}

fn argmax_reference<T: Real>(args: KernelArgs<'_, T>) {
    let n = args.params::<ArgmaxParams>().n as usize;
    let [x, token] = args.buffers();
    let x = &x.real()[..n];
    let best = (1..n).fold(0, |best, i| if x[i] > x[best] { i } else { best });
    token.u32_mut()[0] = best as u32;
}

fn draw_reference<T: Real>(args: KernelArgs<'_, T>) {
    let p: DrawParams = args.params();
    let [x, token] = args.buffers();
    let x = &x.real()[..p.n as usize];
    let peak = x.iter().fold(T::LOWEST, |m, &v| m.max(v));
    let mass: Vec<f64> = x.iter().map(|&v| (v - peak).max(T::of(LOWEST_EXPONENT)).exp().to_f64()).collect();
    let mut kept = keep_most_likely(x, &mass, p.top_k as usize, f64::from(p.top_p));
    kept.retain(|&i| mass[i] >= f64::from(p.min_p));
    kept.sort_unstable();
    let goal = f64::from(p.quantile) * kept.iter().map(|&i| mass[i]).sum::<f64>();
    let mut sum = 0.0;
    let reaches = |&&i: &&usize| {
        sum += mass[i];
        sum > goal
    };
    let chosen = kept.iter().find(reaches).or(kept.last());
    token.u32_mut()[0] = chosen.map_or(0, |&i| i as u32);
}

/// The tokens that remain after top-k and then top-p, in any order.
fn keep_most_likely<T: Real>(x: &[T], mass: &[f64], top_k: usize, top_p: f64) -> Vec<usize> {
    let value = |i: usize| x[i].to_f64() + 0.0; // turns -0 into 0
    let order = |a: &usize, b: &usize| value(*b).total_cmp(&value(*a)).then(a.cmp(b));
    let mut kept: Vec<usize> = (0..x.len()).collect();
    if top_k < x.len() {
        let (_, &mut last, _) = kept.select_nth_unstable_by(top_k - 1, order);
        kept = (0..x.len()).filter(|&i| value(i) >= value(last)).collect();
    }
    if top_p < 1.0 {
        kept.sort_unstable_by(order);
        let goal = top_p * kept.iter().map(|&i| mass[i]).sum::<f64>();
        let mut sum = 0.0;
        let reaches = |&i: &usize| {
            sum += mass[i];
            sum >= goal
        };
        let n = kept.iter().position(reaches).map_or(kept.len(), |last| last + 1);
        kept.truncate(n);
    }
    kept
}

/// Appends the sampling of one token from row `row` of `logits` [rows, vocabulary] into the first
/// element of `out` (U32).
///
/// `sampling` must be valid; `uniform` is in [0, 1) and is unused when greedy. The frequency and presence
/// penalties come with the additions of `changes`, because the host counts.
pub fn sample(
    rec: &mut Recording,
    logits: &Tensor,
    row: usize,
    changes: Changes<'_>,
    sampling: &Sampling,
    uniform: f32,
    out: &Span,
) {
    assert!(row < logits.rows && (0.0..1.0).contains(&uniform), "a row of the logits and a uniform number in [0, 1)");
    let (n, offset) = (logits.cols as u32, (row * logits.cols) as u32);
    let greedy = sampling.temperature == 0.0;
    let temperature = if greedy { 1.0 } else { sampling.temperature };
    let len = logits.cols.next_multiple_of(4);
    let adjusted = rec.transient("adjusted logits", Kind::Real, len);
    let params = ScaleParams { n, offset, temperature };
    rec.dispatch(&SCALE, &[], params, &[logits.span(), &adjusted], groups_for(len, GROUP));
    if let Some((ids, count)) = changes.previous
        && count > 0
        && sampling.repetition_penalty != 1.0
    {
        let penalty = sampling.repetition_penalty;
        let params = PenaliseParams { n, offset, n_previous: count as u32, penalty, temperature };
        rec.dispatch(&PENALISE, &[], params, &[logits.span(), ids, &adjusted], groups_for(count, GROUP));
    }
    if let Some(added) = changes.added {
        let params = AddParams { n, temperature };
        rec.dispatch(&ADD, &[], params, &[added, &adjusted], groups_for(logits.cols, GROUP));
    }
    let out = &out.prefix(1);
    if greedy {
        rec.dispatch(&ARGMAX, &[], ArgmaxParams { n }, &[&adjusted, out], [1, 1, 1]);
        return;
    }
    let top_k = if sampling.top_k == 0 { n } else { sampling.top_k.min(logits.cols) as u32 };
    let params = DrawParams { n, top_k, top_p: sampling.top_p, min_p: sampling.min_p, quantile: uniform };
    rec.dispatch(&DRAW, &[], params, &[&adjusted, out], [1, 1, 1]);
}
