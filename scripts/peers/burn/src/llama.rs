//! A small Llama with random weights from burn's layers, with the sizes of `longreach bench --config 8m`.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig, SwiGlu, SwiGluConfig};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};

const HIDDEN: usize = 256;
const INNER: usize = 688;
const LAYERS: usize = 8;
const HEADS: usize = 8;
const HEAD_DIM: usize = HIDDEN / HEADS;
/// Number of tokens in the vocabulary.
pub const VOCABULARY: usize = 4096;

/// The model, from ids to logits.
#[derive(Module, Debug)]
pub struct Llama {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    rotary: Rotary,
}

#[derive(Module, Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    mlp_norm: RmsNorm,
    gate_and_up: SwiGlu,
    down: Linear,
}

/// Cosine and sine by position and channel, `[1, 1, length, HEAD_DIM]`; the two halves of a head
/// are paired.
#[derive(Module, Debug)]
struct Rotary {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Llama {
    /// Random weights, and RoPE tables for `length` tokens.
    pub fn new(length: usize, device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(VOCABULARY, HIDDEN).init(device),
            layers: (0..LAYERS).map(|_| Layer::new(device)).collect(),
            norm: RmsNormConfig::new(HIDDEN).init(device),
            head: linear(HIDDEN, VOCABULARY, device),
            rotary: Rotary::new(length, device),
        }
    }

    /// Ids `[batch, length]` to logits `[batch, length, VOCABULARY]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let mut x = self.embedding.forward(ids);
        for layer in &self.layers {
            x = layer.forward(x, &self.rotary);
        }
        self.head.forward(self.norm.forward(x))
    }
}

impl Layer {
    fn new(device: &Device) -> Self {
        let square = || linear(HIDDEN, HIDDEN, device);
        let norm = || RmsNormConfig::new(HIDDEN).init(device);
        Self {
            attention_norm: norm(),
            query: square(),
            key: square(),
            value: square(),
            output: square(),
            mlp_norm: norm(),
            gate_and_up: SwiGluConfig::new(HIDDEN, INNER).init(device),
            down: linear(INNER, HIDDEN, device),
        }
    }

    fn forward(&self, x: Tensor<3>, rotary: &Rotary) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let heads = |y: Tensor<3>| y.reshape([batch, length, HEADS, HEAD_DIM]).swap_dims(1, 2);
        let normed = self.attention_norm.forward(x.clone());
        let query = rotary.rotate(heads(self.query.forward(normed.clone())));
        let key = rotary.rotate(heads(self.key.forward(normed.clone())));
        let value = heads(self.value.forward(normed));
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        let mixed = attention(query, key, value, None, None, options);
        let x = x + self.output.forward(mixed.swap_dims(1, 2).reshape([batch, length, HIDDEN]));
        let normed = self.mlp_norm.forward(x.clone());
        x + self.down.forward(self.gate_and_up.forward(normed))
    }
}

impl Rotary {
    fn new(length: usize, device: &Device) -> Self {
        let half = HEAD_DIM / 2;
        let angle = |i: usize| {
            let (position, channel) = (i / HEAD_DIM, i % HEAD_DIM % half);
            position as f64 * 10_000f64.powf(-(channel as f64) / half as f64)
        };
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = (0..length * HEAD_DIM).map(|i| of(angle(i)) as f32).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, length, HEAD_DIM]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, heads, length, _] = x.dims();
        let half = HEAD_DIM / 2;
        let low = x.clone().slice([0..batch, 0..heads, 0..length, 0..half]);
        let high = x.clone().slice([0..batch, 0..heads, 0..length, half..HEAD_DIM]);
        let turned = Tensor::cat(vec![high.neg(), low], 3);
        x * self.cos.clone() + turned * self.sin.clone()
    }
}

fn linear(inputs: usize, outputs: usize, device: &Device) -> Linear {
    LinearConfig::new(inputs, outputs).with_bias(false).init(device)
}
