// Weights in blocks of 256 elements and 53 words: 128 bytes of low nibbles, 64 bytes of high bit
// pairs, 16 signed scales, d (f16, low half of the last word).
// Each half of 128 elements has four runs of 32. Run r takes nibble r / 2 of byte (r % 2) 32 + l
// and bit pair r of byte l. Every 16 elements share a scale.
// w = (d scale) (q - 32)
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 256 * 53 words

fn weight(i: u32) -> f32 {
    let block = (i >> 8u) * 53u;
    let part = (i >> 7u) & 1u;
    let run = (i >> 5u) & 3u;
    let word = (i >> 2u) & 7u; // word of the 32 bytes
    let bit = (i & 3u) * 8u;
    let low = extractBits(w[block + part * 16u + (run & 1u) * 8u + word], bit + (run >> 1u) * 4u, 4u);
    let high = extractBits(w[block + 32u + part * 8u + word], bit + run * 2u, 2u);
    let at = (i >> 4u) & 15u;
    let scale = extractBits(bitcast<i32>(w[block + 48u + (at >> 2u)]), (at & 3u) * 8u, 8u);
    let d = half(w[block + 52u]);
    return (d * f32(scale)) * (f32(low | (high << 4u)) - 32.0);
}
