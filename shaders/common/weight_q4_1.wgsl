// Weights in blocks of 32 elements and 5 words: scale d and minimum m (f16), 16 bytes of two
// nibbles q (low: elements 0-15, high: 16-31).
// w = q d + m
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 32 * 5 words

fn weight(i: u32) -> f32 {
    let block = (i >> 5u) * 5u;
    let scales = w[block];
    let q = extractBits(w[block + 1u + ((i >> 2u) & 3u)], (i & 3u) * 8u + ((i >> 4u) & 1u) * 4u, 4u);
    return f32(q) * half(scales) + half(scales >> 16u);
}
