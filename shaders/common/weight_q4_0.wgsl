// Weights in blocks of 32 elements and 5 words: scale d (f16, low half of the first word), 16 bytes
// of two nibbles q (low: elements 0-15, high: 16-31).
// w = (q - 8) d
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 32 * 5 words

fn weight(i: u32) -> f32 {
    let block = (i >> 5u) * 5u;
    let d = half(w[block]);
    let q = extractBits(w[block + 1u + ((i >> 2u) & 3u)], (i & 3u) * 8u + ((i >> 4u) & 1u) * 4u, 4u);
    return (f32(q) - 8.0) * d;
}
