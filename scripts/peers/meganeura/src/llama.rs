//! Meganeura's own Llama with random weights, with the sizes of `longreach bench --config 8m`.

use meganeura::Graph;
use meganeura::graph::{Node, Op};
use meganeura::models::smollm2::{SmolLM2Config, build_training_graph};

use crate::Random;

/// Number of tokens in the vocabulary.
pub const VOCABULARY: usize = 4096;

/// Names and values of the weights.
pub type Weights = Vec<(String, Vec<f32>)>;

/// The graph from ids, `token_ids` `[length]`, and one-hot targets, `labels` `[length,
/// VOCABULARY]`, to the mean cross-entropy.
pub fn graph(length: usize) -> Graph {
    let config = SmolLM2Config {
        vocab_size: VOCABULARY,
        hidden_size: 256,
        num_hidden_layers: 8,
        num_attention_heads: 8,
        num_key_value_heads: 8,
        intermediate_size: 688,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
    };
    build_training_graph(&config, length)
}

/// Random weights for every parameter of `graph`: uniform; a matrix `[inputs, outputs]` within 1 /
/// sqrt(inputs), the embedding with variance 1, norms all one.
pub fn random_weights(graph: &Graph) -> Weights {
    let mut random = Random(1);
    let weight = |node: &Node| {
        let Op::Parameter { name } = &node.op else { return None };
        let values = match node.ty.shape[..] {
            [width] => vec![1.0; width],
            [VOCABULARY, width] => random.values(VOCABULARY * width, 3f32.sqrt()),
            _ => random.values(node.ty.num_elements(), 1.0 / (node.ty.shape[0] as f32).sqrt()),
        };
        Some((name.clone(), values))
    };
    graph.nodes().iter().filter_map(weight).collect()
}
