//! Step 3: a small network on a tape, its gradient, and a check that the gradient is the slope of
//! the loss.
//!
//! A `Tape` is a recording that stores the ops applied. `backward` appends the commands of the
//! gradient: each op's rule returns local gradients, and the tape sums them.
//!
//!     cargo run --example 03_a_gradient

use longreach::Result;
use longreach::autograd::{Param, Tape, Var};
use longreach::gpu::{Buffer, CpuExecutor, Executor, Kind, Span};
use longreach::kernels::activation::swiglu;
use longreach::kernels::case::random;
use longreach::kernels::loss::{Need, cross_entropy};
use longreach::kernels::matmul::linear;
use longreach::tensor::copy_tensor;
use longreach::tensor::{Format, Tensor};

const TOKENS: usize = 6;
const CHANNELS: usize = 8;
const CLASSES: usize = 5;

/// loss = cross-entropy of (swiglu(x Wᵀ, x Wᵀ) Headᵀ) with the labels. W is used twice, Head is
/// frozen.
fn network(tape: &mut Tape, x: &Tensor, w: &Param, head: &Param, labels: &Span) -> Result<Var> {
    let (x, w, head) = (tape.constant(x.clone()), tape.param(w), tape.param(head));
    // apply1 appends an op's forward and keeps its gradient rule; linear is y = x wᵀ.
    let gate = tape.apply1(&[&x, &w], |rec, t| linear(rec, &t[0], &t[1], 1.0))?;
    let up = tape.apply1(&[&x, &w], |rec, t| linear(rec, &t[0], &t[1], 0.5))?;
    let hidden = tape.apply1(&[&gate, &up], |rec, t| swiglu(rec, &t[0], &t[1]))?;
    // The head and the loss are one op, so that the [tokens, vocabulary] logits are never stored as
    // a whole.
    let need = Need { hidden: tape.is_training(), head: false };
    let scale = 1.0 / TOKENS as f32;
    tape.apply1(&[&hidden, &head], |rec, t| cross_entropy(rec, &t[0], &t[1], labels, scale, need, 1 << 20))
}

fn main() -> Result<()> {
    // The CPU executor in f64, so that the central difference below is accurate enough for the
    // check.
    let mut device = CpuExecutor::<f64>::new();
    let limits = device.limits();
    let tensor = |label: &str, rows, cols| Tensor::persistent(label, Format::F32, rows, cols, &limits);
    let x = tensor("x", TOKENS, CHANNELS)?;
    let w = Param {
        name: "w".into(),
        value: tensor("w", CHANNELS, CHANNELS)?,
        grad: Some(tensor("dw", CHANNELS, CHANNELS)?),
    };
    let head = Param::frozen("head", tensor("head", CLASSES, CHANNELS)?);
    let (one, loss_out) = (tensor("one", 1, 1)?, tensor("loss", 1, 1)?);
    let labels = Buffer::persistent("labels", Kind::U32, TOKENS).span();
    let w_values: Vec<f64> = random(2, w.value.len(), 1.0).into_iter().map(f64::from).collect();
    x.write(&mut device, &random(1, x.len(), 1.0))?;
    device.write_f64(w.value.span(), &w_values)?;
    head.value.write(&mut device, &random(3, head.value.len(), 1.0))?;
    one.write(&mut device, &[1.0])?;
    device.write_words(&labels, &[0, 1, 2, 3, 4, 0])?;

    // Forward and backward are one recording. Parameter gradients accumulate in their spans, so
    // those are cleared first.
    let grad = w.grad.clone().expect("w is trained");
    let mut tape = Tape::training(false);
    tape.rec.clear(grad.span());
    let loss = network(&mut tape, &x, &w, &head, &labels)?;
    copy_tensor(&mut tape.rec, &loss.tensor, &loss_out);
    let n_forward = tape.rec.commands().len();
    tape.backward(&loss, &one)?;
    println!("forward: {n_forward} commands, with backward: {}", tape.rec.commands().len());
    device.run(&tape.rec)?;
    println!("loss: {:.6}", device.read_f64(loss_out.span())?[0]);
    let gradient = device.read_f64(grad.span())?;

    // The dot product of gradient and direction is the slope of the loss in that direction: move w
    // both ways and compare.
    let direction: Vec<f64> = random(4, w_values.len(), 1.0).into_iter().map(f64::from).collect();
    let mut forward = Tape::inference();
    let loss = network(&mut forward, &x, &w, &head, &labels)?;
    copy_tensor(&mut forward.rec, &loss.tensor, &loss_out);
    let mut loss_at = |step: f64| -> Result<f64> {
        let moved: Vec<f64> = w_values.iter().zip(&direction).map(|(v, d)| v + step * d).collect();
        device.write_f64(w.value.span(), &moved)?;
        device.run(&forward.rec)?;
        Ok(device.read_f64(loss_out.span())?[0])
    };
    let step = 1e-5;
    let numeric = (loss_at(step)? - loss_at(-step)?) / (2.0 * step);
    let analytic: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
    println!("slope by the gradient:   {analytic:.9}");
    println!("slope by two more losses: {numeric:.9}");
    assert!((analytic - numeric).abs() < 1e-7 * analytic.abs(), "the gradient is not the slope");
    println!("the gradient is the slope");
    Ok(())
}
