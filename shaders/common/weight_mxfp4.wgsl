// Weights in blocks of 32 elements and 5 words: a byte e (low byte of the first word), 16 bytes of
// two nibbles q (low: elements 0-15, high: 16-31), each a sign and the number of one of 8 levels.
// w = +-level(q) 2^(e - 128)
// The power has two factors, since alone it may be subnormal, and a device may take that for zero.
@group(0) @binding(2) var<storage, read> w: array<u32>; // [rows, cols] / 32 * 5 words

fn weight(i: u32) -> f32 {
    let block = (i >> 5u) * 5u;
    let e = w[block] & 255u;
    let q = extractBits(w[block + 1u + ((i >> 2u) & 3u)], (i & 3u) * 8u + ((i >> 4u) & 1u) * 4u, 4u);
    let level = i32(extractBits(0xc8643210u, (q & 7u) * 4u, 4u)); // 0 1 2 3 4 6 8 12
    let first = bitcast<f32>(((e >> 1u) + 63u) << 23u); // 2^(e / 2 - 64)
    let second = bitcast<f32>((e - (e >> 1u) + 63u) << 23u); // 2^(e - e / 2 - 64)
    return f32(select(level, -level, q >= 8u)) * first * second;
}
