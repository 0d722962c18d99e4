// Weights in blocks of 32 elements and 9 words: scale d (f16, low half of the first word), 32
// signed bytes q.
// w = q d
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 32 * 9 words

fn weight(i: u32) -> f32 {
    let block = (i >> 5u) * 9u;
    let d = half(w[block]);
    let q = extractBits(bitcast<i32>(w[block + 1u + ((i >> 2u) & 7u)]), (i & 3u) * 8u, 8u);
    return f32(q) * d;
}
