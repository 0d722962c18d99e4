// IEEE half-float weights, two per word, the first in the low half.
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 2 words

fn weight(i: u32) -> f32 {
    return half(w[i >> 1u] >> ((i & 1u) * 16u));
}
