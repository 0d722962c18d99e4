// Weights in blocks of 32 elements and 6 words: scale d and minimum m (f16), a word of fifth bits
// (bit i for element i), 16 bytes of two nibbles (low: elements 0-15, high: 16-31).
// q = nibble + 16 fifth bit
// w = q d + m
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 32 * 6 words

fn weight(i: u32) -> f32 {
    let block = (i >> 5u) * 6u;
    let scales = w[block];
    let low = extractBits(w[block + 2u + ((i >> 2u) & 3u)], (i & 3u) * 8u + ((i >> 4u) & 1u) * 4u, 4u);
    let high = extractBits(w[block + 1u], i & 31u, 1u);
    return f32(low | (high << 4u)) * half(scales) + half(scales >> 16u);
}
