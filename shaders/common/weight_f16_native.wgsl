// Weights stored as IEEE half floats, read as such: the form of common/weight_f16.wgsl for devices
// that have the type.
@group(0) @binding(2) var<storage, read> w: array<f16>; // [rows, cols]

fn weight(i: u32) -> f32 {
    return f32(w[i]);
}
