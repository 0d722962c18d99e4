//! The fused head and the loss of distillation beyond its cases: accuracy in f32, sliced heads, a
//! student that equals its teacher, tokens that a teacher rules out, and models with the adapter
//! off.

use std::path::Path;

use longreach::attention::Attention;
use longreach::autograd::Tape;
use longreach::checkpoint::adapter_file::read_adapter;
use longreach::checkpoint::load::{Loaded, Train, load};
use longreach::checkpoint::weights::WeightSource;
use longreach::data::batch::Batch;
use longreach::data::dataset::Example;
use longreach::gpu::{Buffer, CpuExecutor, Executor, Kind, Recording, Span};
use longreach::kernels::case::random;
use longreach::kernels::distill::{Scales, distillation};
use longreach::kernels::head::Head;
use longreach::kernels::loss::{IGNORED, Need, cross_entropy};
use longreach::tensor::{Format, Tensor, copy_tensor};
use longreach::train::{Objective, Teacher, UploadedBatch};

const N: usize = 23;
const CHANNELS: usize = 16;
const VOCABULARY: usize = 301;
const SCALES: Scales = Scales { ce: 0.4 / 22.0, kl: 0.6 / 23.0 };
const NEED: Need = Need { hidden: true, head: true };

/// Loss, Σ cross-entropy and Σ divergence, and the gradients of hidden states and head.
struct Found {
    loss: f64,
    ce: f64,
    kl: f64,
    dhidden: Vec<f32>,
    dhead: Vec<f32>,
}

fn put(device: &mut dyn Executor, rows: usize, cols: usize, values: &[f32]) -> Tensor {
    let t = Tensor::persistent("t", Format::F32, rows, cols, &device.limits()).unwrap();
    t.write(device, values).unwrap();
    t
}

fn labels(device: &mut dyn Executor) -> Span {
    let labels: Vec<u32> = (0..N as u32).map(|i| if i == 4 { IGNORED } else { i * 13 % VOCABULARY as u32 }).collect();
    let span = Buffer::persistent("labels", Kind::U32, N).span();
    device.write_words(&span, &labels).unwrap();
    span
}

fn run(device: &mut dyn Executor, student: &[f32], teacher: &[f32], head: &[f32], scales: Scales) -> Found {
    let (student, teacher) = (put(device, N, CHANNELS, student), put(device, N, CHANNELS, teacher));
    let (head, labels, max) = (put(device, VOCABULARY, CHANNELS, head), labels(device), device.limits().max_elements());
    let head = Head::from(&head);
    let mut rec = Recording::new();
    let ((outs, op), parts) =
        distillation(&mut rec, (&student, head), (&teacher, head), &labels, scales, NEED, max).unwrap();
    let grads = op.backward(&mut rec, &[put(device, 1, 1, &[1.0])], &[true, true]).unwrap();
    let kept: Vec<Tensor> = [&outs[0], &parts.ce, &parts.kl, grads[0].as_ref().unwrap(), grads[1].as_ref().unwrap()]
        .into_iter()
        .map(|t| {
            let kept = Tensor::persistent("kept", Format::F32, t.rows, t.cols, &device.limits()).unwrap();
            copy_tensor(&mut rec, t, &kept);
            kept
        })
        .collect();
    device.run(&rec).unwrap();
    let [loss, ce, kl] = [0, 1, 2].map(|i| device.read_f64(kept[i].span()).unwrap()[0]);
    Found { loss, ce, kl, dhidden: kept[3].read(device).unwrap(), dhead: kept[4].read(device).unwrap() }
}

/// Random hidden states of a student and its teacher, and a head.
fn inputs() -> [Vec<f32>; 3] {
    [random(1, N * CHANNELS, 1.0), random(5, N * CHANNELS, 0.8), random(2, VOCABULARY * CHANNELS, 0.7)]
}

fn assert_close(a: &[f32], b: &[f32]) {
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= 1e-6 * largest, "element {i}: {x} and {y}");
    }
}

#[test]
fn the_f32_loss_is_within_a_millionth_of_f64() {
    let [student, teacher, head] = inputs();
    let exact = run(&mut CpuExecutor::<f64>::new(), &student, &teacher, &head, SCALES);
    let rounded = run(&mut CpuExecutor::<f32>::new(), &student, &teacher, &head, SCALES);
    for (a, b) in [(rounded.loss, exact.loss), (rounded.ce, exact.ce), (rounded.kl, exact.kl)] {
        assert!((a - b).abs() < 1e-6 * b, "{a} and {b}");
    }
    let sum = f64::from(SCALES.ce) * exact.ce + f64::from(SCALES.kl) * exact.kl;
    assert!((exact.loss - sum).abs() < 1e-12 * sum);
}

#[test]
fn a_cut_head_in_chunks_gives_what_a_whole_one_gives() {
    let [student, teacher, head] = inputs();
    let whole = run(&mut CpuExecutor::<f64>::new(), &student, &teacher, &head, SCALES);
    // 512 elements per binding: the head has ten slices and every row of logits is its own chunk.
    let cut = run(&mut CpuExecutor::<f64>::with_binding_limit(2048), &student, &teacher, &head, SCALES);
    assert!((whole.loss - cut.loss).abs() < 1e-12 * whole.loss);
    assert_close(&cut.dhidden, &whole.dhidden);
    assert_close(&cut.dhead, &whole.dhead);
}

#[test]
fn a_student_that_equals_its_teacher_has_the_cross_entropy_alone() {
    let [student, _, head] = inputs();
    let device = &mut CpuExecutor::<f32>::new();
    let found = run(device, &student, &student, &head, SCALES);
    assert_eq!(found.kl, 0.0);
    let only = run(device, &student, &student, &head, Scales { ce: 0.0, kl: 1.0 });
    assert!(only.loss == 0.0 && only.dhidden.iter().chain(&only.dhead).all(|&g| g == 0.0));
    let (hidden, weight) = (put(device, N, CHANNELS, &student), put(device, VOCABULARY, CHANNELS, &head));
    let (labels, max) = (labels(device), device.limits().max_elements());
    let mut rec = Recording::new();
    let (outs, _) = cross_entropy(&mut rec, &hidden, &weight, &labels, SCALES.ce, NEED, max).unwrap();
    let kept = put(device, 1, 1, &[0.0]);
    copy_tensor(&mut rec, &outs[0], &kept);
    device.run(&rec).unwrap();
    assert_eq!(device.read_f64(kept.span()).unwrap()[0], found.loss);
}

#[test]
fn what_a_teacher_rules_out_counts_nothing_and_what_a_student_rules_out_counts_much() {
    let [student, teacher, head] = inputs();
    let sharp = |states: &[f32]| -> Vec<f32> { states.iter().map(|x| 300.0 * x).collect() };
    for device in [&mut CpuExecutor::<f32>::new() as &mut dyn Executor, &mut CpuExecutor::<f64>::new()] {
        let ruled_out = run(device, &student, &sharp(&teacher), &head, SCALES);
        let missed = run(device, &sharp(&student), &teacher, &head, SCALES);
        // The teacher takes one token, so the divergence is the student's surprise at it.
        assert!(ruled_out.kl > 0.0 && ruled_out.kl < 20.0 * N as f64, "{}", ruled_out.kl);
        assert!(missed.kl > 100.0 * N as f64 && missed.kl.is_finite(), "{}", missed.kl);
        let grads = [ruled_out.dhidden, ruled_out.dhead, missed.dhidden, missed.dhead];
        assert!(grads.iter().flatten().all(|g| g.is_finite()));
    }
}

/// The hidden states of a teacher for some tokens.
fn taught(device: &mut dyn Executor, loaded: &mut Loaded, teacher: Teacher, lengths: &[usize]) -> Vec<f32> {
    let example = |&n: &usize| {
        let ids: Vec<u32> = (0..n).map(|i| (i * 7 % 200 + 3) as u32).collect();
        Example { labels: vec![-100; n], ids, rejected: None }
    };
    let batch = Batch::new(&lengths.iter().map(example).collect::<Vec<_>>());
    let (attention, distill) = (Attention::Dense, Some((teacher, 1.0)));
    let objective = Objective { attention, scale: 0.0, dropout: None, distill, preference: None, kept: None };
    let uploaded = UploadedBatch::new(device, &mut loaded.model, &batch, &objective).unwrap();
    let mut tape = Tape::inference();
    let hidden = uploaded.teacher_hidden(&mut tape, &loaded.model).unwrap().unwrap();
    assert_eq!(hidden.rows, lengths.iter().map(|n| n - 1).sum::<usize>());
    let kept = Tensor::persistent("kept", Format::F32, hidden.rows, hidden.cols, &device.limits()).unwrap();
    copy_tensor(&mut tape.rec, &hidden, &kept);
    device.run(&tape.rec).unwrap();
    kept.read(device).unwrap()
}

#[test]
fn the_base_model_teaches_as_it_was_before_the_adapter() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let device = &mut CpuExecutor::<f32>::new();
    // LoRA, DoRA, and an adapter of fused projections.
    for (model, adapter) in
        [("qwen3-qknorm", "qwen3-qknorm/lora"), ("llama-gqa", "adapters/dora"), ("phi4-mini", "phi4-mini/lora")]
    {
        let dir = golden.join(adapter);
        let source = WeightSource::open(&golden.join(model)).unwrap();
        let read = read_adapter(&dir, source.config()).unwrap();
        let mut adapted = load(device, &source, Some(&read), Train::Nothing).unwrap();
        let mut plain = load(device, &source, None, Train::Nothing).unwrap();
        for lengths in [&[30, 12][..], &[2]] {
            let off = taught(device, &mut adapted, Teacher::Base, lengths);
            let on = taught(device, &mut adapted, Teacher::Oneself, lengths);
            let before = taught(device, &mut plain, Teacher::Oneself, lengths);
            assert!(off == before, "{adapter} is not off");
            assert!(on != off, "{adapter} changes nothing");
        }
    }
}
