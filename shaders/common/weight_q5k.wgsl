// Weights in blocks of 256 elements and 44 words: d and dmin (f16), 12 bytes of eight 6-bit pairs
// (scale, min), 32 bytes of fifth bits, 128 bytes of two nibbles.
// Elements 32 j ... 32 j + 31 have pair j and bit j of the 32 bytes. For even j they take the low
// nibbles of bytes 16 j ..., for odd j the high nibbles of bytes 16 (j - 1) ...
// q = nibble + 16 fifth bit
// w = (d scale) q - dmin min
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 256 * 44 words

// Byte `at` of the packed 6-bit pairs of a block.
fn pair_byte(block: u32, at: u32) -> u32 {
    return extractBits(w[block + 1u + (at >> 2u)], (at & 3u) * 8u, 8u);
}

fn weight(i: u32) -> f32 {
    let block = (i >> 8u) * 44u;
    let j = (i >> 5u) & 7u;
    let first = pair_byte(block, j & 3u);
    let second = pair_byte(block, (j & 3u) + 4u);
    var scale = first & 63u;
    var least = second & 63u;
    if j >= 4u {
        let low = pair_byte(block, j + 4u);
        scale = (low & 15u) | ((first >> 6u) << 4u);
        least = (low >> 4u) | ((second >> 6u) << 4u);
    }
    let d = w[block];
    let word = (i >> 2u) & 7u; // word of the 32 bytes
    let bit = (i & 3u) * 8u;
    let low = extractBits(w[block + 12u + (j >> 1u) * 8u + word], bit + (j & 1u) * 4u, 4u);
    let high = extractBits(w[block + 4u + word], bit + j, 1u);
    return (half(d) * f32(scale)) * f32(low | (high << 4u)) - half(d >> 16u) * f32(least);
}
