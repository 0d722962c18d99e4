// Weights in blocks of 32 elements and 5 words: scale d (f16, low half of the first word), 16 bytes
// of two nibbles q (low: elements 0-15, high: 16-31), each the number of one of 16 levels.
// w = level(q) d
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 32 * 5 words

// The levels, as signed bytes: -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113.
const LEVELS = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

fn weight(i: u32) -> f32 {
    let block = (i >> 5u) * 5u;
    let d = half(w[block]);
    let q = extractBits(w[block + 1u + ((i >> 2u) & 3u)], (i & 3u) * 8u + ((i >> 4u) & 1u) * 4u, 4u);
    let level = extractBits(bitcast<i32>(LEVELS[q >> 2u]), (q & 3u) * 8u, 8u);
    return f32(level) * d;
}
