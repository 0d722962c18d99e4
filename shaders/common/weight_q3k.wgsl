// Weights in blocks of 256 elements and 28 words: 32 bytes of third bits, 64 bytes of bit pairs, 16
// 6-bit scales in 12 bytes, d (f16, low half of the last word).
// Elements 32 j ... 32 j + 31 have bit j of the third bits. Each half of 128 elements has four runs
// of 32: run r takes bit pair r of the half's 32 bytes. Every 16 elements share a scale. Scale s
// has its low bits in a nibble of byte s % 8 (low for s < 8), its high bits in bit pair s / 4 of
// byte 8 + s % 4.
// q = bit pair + 4 third bit
// w = (d (scale - 32)) (q - 4)
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 256 * 28 words

fn weight(i: u32) -> f32 {
    let block = (i >> 8u) * 28u;
    let run = (i >> 5u) & 7u;
    let word = (i >> 2u) & 7u; // word of the 32 bytes
    let bit = (i & 3u) * 8u;
    let low = extractBits(w[block + 8u + (run >> 2u) * 8u + word], bit + (run & 3u) * 2u, 2u);
    let high = extractBits(w[block + word], bit + run, 1u);
    let s = (i >> 4u) & 15u;
    let scale_low = extractBits(w[block + 24u + ((s >> 2u) & 1u)], (s & 3u) * 8u + (s >> 3u) * 4u, 4u);
    let scale_high = extractBits(w[block + 26u], (s & 3u) * 8u + (s >> 2u) * 2u, 2u);
    let d = half(w[block + 27u]);
    return (d * (f32(scale_low | (scale_high << 4u)) - 32.0)) * (f32(low | (high << 2u)) - 4.0);
}
