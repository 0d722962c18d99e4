// Weights in blocks of 256 elements and 21 words: 16 bytes of two nibbles (scale: low, min: high),
// 64 bytes of bit pairs q, d and dmin (f16).
// Each half of 128 elements has four runs of 32. Run r takes bit pair r of the half's 32 bytes.
// Every 16 elements share a scale and a min.
// w = (d scale) q - dmin min
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 256 * 21 words

fn weight(i: u32) -> f32 {
    let block = (i >> 8u) * 21u;
    let run = (i >> 5u) & 7u;
    let q = extractBits(w[block + 4u + (run >> 2u) * 8u + ((i >> 2u) & 7u)], (i & 3u) * 8u + (run & 3u) * 2u, 2u);
    let at = (i >> 4u) & 15u;
    let pair = extractBits(w[block + (at >> 2u)], (at & 3u) * 8u, 8u);
    let d = w[block + 20u];
    return (half(d) * f32(pair & 15u)) * f32(q) - half(d >> 16u) * f32(pair >> 4u);
}
