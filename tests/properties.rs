//! LRSA and sliding windows on random shapes, values and chunkings against their plain definitions
//! (`tests/plain`): what is kept, outputs and gradients, on the CPU executor in f64 and f32 and on
//! the device; and the cache against the training form.
//!
//! Compares selections, outputs and gradients, on the CPU executor in f64 and f32 and on the
//! device, and the cache with the training form. A failure names the seed; `Problem::new(seed, ..)`
//! reproduces the problem.

mod common;
mod plain;

use longreach::attention::{Attention, Cache, Heads, LayerAttention, Lrsa, TrainingLayout, attend_training};
use longreach::gpu::{Buffer, CpuExecutor, Executor, Kind, Recording};
use longreach::kernels::case::{Case, Input, Recorded, Tolerance};
use longreach::tensor::{Format, Tensor, copy_tensor};
use plain::{Plain, Shape};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Allowed deviation of an executor from the plain definition, relative to the largest magnitude.
struct Allowed {
    relative: f64,
    /// Scores that differ by less, relative to the mean score, may rank either way.
    near_tie: f64,
}

/// f64 sums in another order.
const IN_F64: Allowed = Allowed { relative: 1e-9, near_tie: 1e-12 };
/// f32 sums over up to 200 tokens in another order, exp to WGSL's accuracy, and the products of
/// both in the backward.
const IN_F32: Allowed = Allowed { relative: 5e-5, near_tie: 1e-4 };

#[derive(Debug)]
struct Problem {
    seed: u64,
    shape: Shape,
    lrsa: Lrsa,
    q: Vec<f32>,
    kv: Vec<f32>,
}

/// A keep ratio whose product with the lag is small, an integer, or as close to an integer as f64
/// allows.
fn random_keep(rng: &mut StdRng, lag: usize) -> f64 {
    let whole = rng.random_range(1..=lag) as f64 / lag as f64;
    match rng.random_range(0..6) {
        0 => 1.0,
        1 => 1.0 / lag as f64,
        2 => whole.next_down(),
        3 => whole.next_up().min(1.0),
        4 => whole,
        _ => rng.random_range(0.01..1.0),
    }
}

fn random_shape(rng: &mut StdRng, dims: &[usize], n_sequences: usize) -> Shape {
    let n_kv_heads = rng.random_range(1..=3);
    let longest_lag = [5, 12, 40][rng.random_range(0..3)];
    let (sink, lag) = (rng.random_range(0..=9), rng.random_range(1..=longest_lag));
    let length = |rng: &mut StdRng| match rng.random_range(0..3) {
        0 => rng.random_range(1..=200),
        1 => rng.random_range(1..=sink + 3 * lag),
        // At and next to the ends of partitions.
        _ => (sink + lag * rng.random_range(0..6) + rng.random_range(0..3)).clamp(2, 200) - 1,
    };
    Shape {
        n_heads: n_kv_heads * rng.random_range(1..=4),
        n_kv_heads,
        dim: dims[rng.random_range(0..dims.len())],
        sink,
        lag,
        keep: random_keep(rng, lag),
        window: None,
        lengths: (0..n_sequences).map(|_| length(rng)).collect(),
    }
}

/// Rows of values: smooth, on a coarse grid (many equal scores, constant channels), or with
/// repeated tokens.
fn random_rows(rng: &mut StdRng, manner: usize, rows: usize, cols: usize) -> Vec<f32> {
    let mut values: Vec<f32> = (0..rows * cols).map(|_| (0..3).map(|_| rng.random_range(-1.0f32..1.0)).sum()).collect();
    if manner == 1 {
        values.iter_mut().for_each(|v| *v = v.round() / 2.0);
    }
    if manner == 2 {
        for row in 1..rows {
            if rng.random_range(0..2) == 0 {
                let from = row - rng.random_range(1..=row.min(4));
                values.copy_within(from * cols..(from + 1) * cols, row * cols);
            }
        }
    }
    values
}

impl Problem {
    fn new(seed: u64, dims: &[usize], n_sequences: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        loop {
            let shape = random_shape(&mut rng, dims, n_sequences);
            let made = Lrsa::new(shape.sink, shape.lag, shape.keep);
            assert_eq!(made.is_ok(), shape.kept() > 0, "seed {seed}: {shape:?} is refused where K is 0 and only there");
            let Ok(lrsa) = made else { continue };
            assert_eq!(lrsa.kept(), shape.kept(), "seed {seed}: {shape:?}");
            let (n, manner) = (shape.tokens(), seed as usize % 3);
            let q = random_rows(&mut rng, 0, n, shape.n_heads * shape.dim);
            let kv = random_rows(&mut rng, manner, n, 2 * shape.n_kv_heads * shape.dim);
            return Self { seed, shape, lrsa, q, kv };
        }
    }

    /// The same with a sliding window instead: shorter than all sequences, or longer than some.
    fn of_window(seed: u64, dims: &[usize], n_sequences: usize) -> Self {
        let mut problem = Self::new(seed, dims, n_sequences);
        let mut rng = StdRng::seed_from_u64(seed ^ 0x57_1D0E);
        let longest = [2, 9, 70, 150][rng.random_range(0..4)];
        problem.shape.window = Some(rng.random_range(1..=longest));
        problem
    }

    fn attention(&self) -> LayerAttention {
        LayerAttention::new(Attention::Lrsa(self.lrsa), self.shape.window)
    }

    fn heads(&self) -> Heads {
        Heads { queries: self.shape.n_heads, keys: self.shape.n_kv_heads, dim: self.shape.dim }
    }

    /// A name for messages, sufficient to reproduce the problem.
    fn name(&self, device: &dyn Executor) -> String {
        format!("{}, seed {}, {:?}", device.name(), self.seed, self.shape)
    }

    /// Runs forward and backward of the training form; also returns the kept rows.
    fn train(&self, device: &mut dyn Executor) -> (Recorded, Vec<u32>) {
        let (heads, attention) = (self.heads(), self.attention());
        let layout = TrainingLayout::upload(device, attention, heads, &self.shape.sequences()).unwrap();
        let n_kept = layout.n_pairs() * heads.keys * self.lrsa.kept();
        let log = (n_kept > 0).then(|| Buffer::persistent("kept", Kind::U32, n_kept).span());
        let real = |values: &[f32], cols: usize| Input::Real {
            rows: values.len() / cols,
            cols,
            format: Format::F32,
            values: values.to_vec(),
            differentiable: true,
        };
        let inputs = vec![real(&self.q, heads.queries * heads.dim), real(&self.kv, heads.kv_cols())];
        let copy = log.clone();
        let case = Case::new("property", inputs, Tolerance::SUMS, move |rec, b| {
            let ((outs, op), kept) = attend_training(rec, &b.tensors[0], &b.tensors[1], &layout, heads.scale(), None)?;
            assert_eq!(kept.is_some(), copy.is_some(), "a selection is there where partitions were scored");
            if let (Some(kept), Some(copy)) = (kept, &copy) {
                rec.copy(&kept, copy);
            }
            Ok((outs, Some(op)))
        });
        let recorded = case.record(device).unwrap();
        device.run(&recorded.recording).unwrap();
        let kept = log.map_or(Vec::new(), |log| device.read_words(&log).unwrap());
        (recorded, kept)
    }

    /// Checks the training form on one device.
    fn check(&self, device: &mut dyn Executor, allowed: &Allowed) -> Counts {
        let (recorded, words) = self.train(device);
        let name = self.name(device);
        let (q, kv) = (widened(&self.q), widened(&self.kv));
        let plain = Plain { shape: &self.shape, q: &q, kv: &kv };
        let (k, mut counts) = (self.shape.kept(), Counts::default());
        let mut lists = words.chunks(k).map(|rows| rows.iter().map(|&row| row as usize).collect::<Vec<_>>());
        let mut kept = Vec::new();
        for first in self.shape.scored() {
            let of: Vec<Vec<usize>> = (0..self.shape.n_kv_heads).map(|_| lists.next().unwrap()).collect();
            for (head, rows) in of.iter().enumerate() {
                counts.lists += 1;
                counts.near_ties += usize::from(!self.is_selection(&plain, first, head, rows, allowed, &name));
                let left_out = |&row: &usize| !rows.contains(&row);
                let mut others = (first..first + self.shape.lag).filter(left_out);
                counts.ties += usize::from(others.any(|b| rows.iter().any(|&a| plain.same(a, b, head))));
            }
            kept.push(of);
        }
        assert!(lists.next().is_none(), "{name}: no more rows are kept than partitions were scored");
        let dout = device.read_f64(recorded.output_grads[0].span()).unwrap();
        // The kernels get 1/√d in f32.
        let scale = f64::from((1.0 / (self.shape.dim as f64).sqrt()) as f32);
        let answer = plain.answer(&kept, &dout, scale);
        let mut close = |what: &str, tensor: &Tensor, want: &[f64]| {
            let got = device.read_f64(tensor.span()).unwrap();
            assert_close(&got, want, allowed.relative, &format!("{name}: {what}"));
        };
        close("output", &recorded.outputs[0], &answer.out);
        close("gradient of q", recorded.input_grads[0].as_ref().unwrap(), &answer.dq);
        close("gradient of kv", recorded.input_grads[1].as_ref().unwrap(), &answer.dkv);
        counts
    }

    /// Whether `rows` are exactly the plain selection. Panics if they differ by more than near
    /// ties, or if the later of two tokens with equal key and value is kept.
    fn is_selection(
        &self,
        plain: &Plain,
        first: usize,
        head: usize,
        rows: &[usize],
        allowed: &Allowed,
        name: &str,
    ) -> bool {
        let want = plain.select(first, head);
        if rows == want {
            return true;
        }
        let at = format!("{name}: partition at row {first}, head {head}: kept {rows:?}, plain {want:?}");
        let range = first..first + self.shape.lag;
        assert!(rows.is_sorted_by(|a, b| a < b) && rows.iter().all(|row| range.contains(row)), "{at}");
        let scores = plain.scores(first, head);
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        let threshold = want.iter().map(|&row| scores[row - first]).fold(f64::INFINITY, f64::min);
        for row in range.clone().filter(|row| rows.contains(row) != want.contains(row)) {
            assert!((scores[row - first] - threshold).abs() <= allowed.near_tie * mean, "{at}: row {row}");
        }
        for a in range.clone() {
            for b in (a + 1..range.end).filter(|&b| plain.same(a, b, head)) {
                assert!(rows.contains(&a) || !rows.contains(&b), "{at}: rows {a} and {b} tie");
            }
        }
        false
    }

    /// Feeds one sequence to a cache in random chunks and compares with the training form.
    fn check_cache(&self, device: &mut dyn Executor, tolerance: f64) {
        let name = self.name(device);
        let (trained, _) = self.train(device);
        let want = device.read_f64(trained.outputs[0].span()).unwrap();
        let (n, heads) = (self.shape.tokens(), self.heads());
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xCAFE);
        let mut cache = Cache::new(&[self.attention()], heads, n, rng.random_range(1..=n)).unwrap();
        let prefill = rng.random_range(0..=n);
        let (mut got, mut fed) = (Vec::new(), 0);
        while fed < n {
            let wanted = if fed < prefill { rng.random_range(1..=prefill - fed) } else { 1 };
            let chunk = cache.chunk(wanted);
            let step = cache.begin(device, chunk).unwrap();
            let rows = |device: &mut dyn Executor, values: &[f32], cols: usize| {
                let t = Tensor::persistent("rows", Format::F32, chunk, cols, &device.limits()).unwrap();
                t.write(device, &values[fed * cols..][..chunk * cols]).unwrap();
                t
            };
            let q = rows(device, &self.q, heads.queries * heads.dim);
            let kv = rows(device, &self.kv, heads.kv_cols());
            let out = Tensor::persistent("out", Format::F32, chunk, q.cols, &device.limits()).unwrap();
            let mut rec = Recording::new();
            let attended = cache.attend(&mut rec, 0, &step, &q, &kv, heads.scale());
            copy_tensor(&mut rec, &attended, &out);
            device.run(&rec).unwrap();
            cache.commit(&step);
            got.extend(device.read_f64(out.span()).unwrap());
            fed += chunk;
            assert_eq!(cache.n_entries(), self.shape.cache_entries(fed), "{name}: entries after {fed} tokens");
            assert_eq!(
                self.attention().cache_length(fed),
                self.shape.cache_entries(fed),
                "{name}: cache_length({fed})"
            );
        }
        assert_close(&got, &want, tolerance, &format!("{name}: cached"));
    }
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn assert_close(got: &[f64], want: &[f64], relative: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g - w).abs();
        // Written so that NaN fails.
        assert!(error <= relative * scale, "{what}, element {i}: {g} for {w}, error {error:e}");
    }
}

/// Lists of kept rows, over many problems.
#[derive(Debug, Default)]
struct Counts {
    lists: usize,
    /// Lists in which a token was kept and another with equal key and value was not.
    ties: usize,
    /// Lists that differ from the plain selection because rounding ranks two scores differently.
    near_ties: usize,
}

/// Checks problems of these seeds; limits the number of lists per thousand that may differ in near
/// ties.
fn check_all(
    device: &mut dyn Executor,
    seeds: std::ops::Range<u64>,
    dims: &[usize],
    allowed: &Allowed,
    near_ties_per_thousand: usize,
) {
    let mut all = Counts::default();
    for seed in seeds {
        let of = Problem::new(seed, dims, 1 + seed as usize % 3).check(device, allowed);
        all = Counts { lists: all.lists + of.lists, ties: all.ties + of.ties, near_ties: all.near_ties + of.near_ties };
    }
    assert!(all.lists > 200 && all.ties > 20, "too few to say anything: {all:?}");
    assert!(all.near_ties * 1000 <= near_ties_per_thousand * all.lists, "{all:?}");
}

#[test]
fn the_f64_executor_computes_the_plain_definition() {
    check_all(&mut CpuExecutor::<f64>::new(), 0..240, &[4, 8, 12, 20], &IN_F64, 0);
}

#[test]
fn the_f32_executor_computes_the_plain_definition() {
    check_all(&mut CpuExecutor::<f32>::new(), 1000..1240, &[4, 8, 12, 20], &IN_F32, 5);
}

#[test]
fn the_device_computes_the_plain_definition() {
    let Some(mut device) = common::software_device() else { return };
    check_all(&mut device, 2000..2060, &[4, 8], &IN_F32, 5);
}

#[test]
fn the_cache_equals_the_training_form_for_any_chunks() {
    let (mut wide, mut narrow) = (CpuExecutor::<f64>::new(), CpuExecutor::<f32>::new());
    for seed in 3000..3100 {
        let problem = Problem::new(seed, &[4, 8, 12], 1);
        problem.check_cache(&mut wide, 1e-12);
        problem.check_cache(&mut narrow, 1e-5);
    }
    let Some(mut device) = common::software_device() else { return };
    for seed in 4000..4012 {
        Problem::new(seed, &[4, 8], 1).check_cache(&mut device, 1e-5);
    }
}

#[test]
fn a_sliding_window_is_its_plain_definition() {
    let check = |device: &mut dyn Executor, seeds: std::ops::Range<u64>, dims: &[usize], allowed: &Allowed| {
        for seed in seeds {
            Problem::of_window(seed, dims, 1 + seed as usize % 3).check(device, allowed);
        }
    };
    check(&mut CpuExecutor::<f64>::new(), 5000..5120, &[4, 8, 12, 20], &IN_F64);
    check(&mut CpuExecutor::<f32>::new(), 6000..6060, &[4, 8, 12, 20], &IN_F32);
    let Some(mut device) = common::software_device() else { return };
    check(&mut device, 7000..7040, &[4, 8], &IN_F32);
}

#[test]
fn a_ring_equals_the_training_form_for_any_chunks() {
    let mut wide = CpuExecutor::<f64>::new();
    for seed in 8000..8100 {
        Problem::of_window(seed, &[4, 8, 12], 1).check_cache(&mut wide, 1e-12);
    }
    let Some(mut device) = common::software_device() else { return };
    for seed in 9000..9012 {
        Problem::of_window(seed, &[4, 8], 1).check_cache(&mut device, 1e-5);
    }
}
