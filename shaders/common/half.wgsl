// The number of the IEEE half float in the low 16 bits of a word, exact on every device.
//
// WGSL lets unpack2x16float take a subnormal half float, below 6.1e-5, for zero, and the scales of K
// blocks are often subnormal. As an f32 each of them is a normal number: mantissa * 2^-24.
fn half(bits: u32) -> f32 {
    let subnormal = f32(bits & 1023u) * 5.9604644775390625e-8;
    let signed = select(subnormal, -subnormal, (bits & 32768u) != 0u);
    return select(unpack2x16float(bits).x, signed, (bits & 31744u) == 0u);
}
