//! The fused head and cross-entropy beyond its cases: accuracy of the f32 loss, and sliced heads.

use longreach::gpu::{Buffer, CpuExecutor, Executor, Kind, Recording, Span};
use longreach::kernels::case::random;
use longreach::kernels::loss::{self, IGNORED, Need};
use longreach::tensor::{Format, Tensor};

const N: usize = 23;
const CHANNELS: usize = 16;
const VOCABULARY: usize = 301;

/// The loss, and the gradients of hidden states and head, from one executor.
fn run(device: &mut dyn Executor) -> (f64, Vec<f32>, Vec<f32>) {
    let limits = device.limits();
    let tensor = |rows, cols| Tensor::persistent("t", Format::F32, rows, cols, &limits).unwrap();
    let (hidden, head) = (tensor(N, CHANNELS), tensor(VOCABULARY, CHANNELS));
    hidden.write(device, &random(1, hidden.len(), 1.0)).unwrap();
    head.write(device, &random(2, head.len(), 0.7)).unwrap();
    let labels: Vec<u32> = (0..N as u32).map(|i| if i == 4 { IGNORED } else { i * 13 % VOCABULARY as u32 }).collect();
    let span: Span = Buffer::persistent("labels", Kind::U32, N).span();
    device.write_words(&span, &labels).unwrap();
    let mut rec = Recording::new();
    let need = Need { hidden: true, head: true };
    let applied = loss::cross_entropy(&mut rec, &hidden, &head, &span, 1.0 / 22.0, need, limits.max_elements());
    let (outs, op) = applied.unwrap();
    let upstream = tensor(1, 1);
    upstream.write(device, &[1.0]).unwrap();
    let grads = op.backward(&mut rec, &[upstream], &[true, true]).unwrap();
    let kept: Vec<Tensor> = [&outs[0], grads[0].as_ref().unwrap(), grads[1].as_ref().unwrap()]
        .into_iter()
        .map(|t| {
            let kept = tensor(t.rows, t.cols);
            longreach::tensor::copy_tensor(&mut rec, t, &kept);
            kept
        })
        .collect();
    device.run(&rec).unwrap();
    let loss = device.read_f64(kept[0].span()).unwrap()[0];
    (loss, kept[1].read(device).unwrap(), kept[2].read(device).unwrap())
}

fn assert_close(a: &[f32], b: &[f32]) {
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() <= 1e-6 * largest, "element {i}: {x} and {y}");
    }
}

#[test]
fn the_f32_loss_is_within_a_millionth_of_f64() {
    let (exact, ..) = run(&mut CpuExecutor::<f64>::new());
    let (rounded, ..) = run(&mut CpuExecutor::<f32>::new());
    assert!((rounded - exact).abs() < 1e-6 * exact, "{rounded} and {exact}");
}

#[test]
fn a_cut_head_in_chunks_gives_what_a_whole_one_gives() {
    let (loss, dhidden, dhead) = run(&mut CpuExecutor::<f64>::new());
    // 512 elements per binding: the head has ten slices and every row of logits is its own chunk.
    let (cut_loss, cut_dhidden, cut_dhead) = run(&mut CpuExecutor::<f64>::with_binding_limit(2048));
    assert!((loss - cut_loss).abs() < 1e-12 * loss);
    assert_close(&cut_dhidden, &dhidden);
    assert_close(&cut_dhead, &dhead);
}
