// bfloat16 weights, two per word, the first in the low half. A bfloat16 is the upper half of an
// f32.
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 2 words

fn weight(i: u32) -> f32 {
    let word = w[i >> 1u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
}
