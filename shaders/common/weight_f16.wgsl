// IEEE half-float weights, two per word, the first in the low half.
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 2 words

fn weight(i: u32) -> f32 {
    let pair = unpack2x16float(w[i >> 1u]);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}
