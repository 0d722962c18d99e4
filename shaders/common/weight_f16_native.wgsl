// IEEE half-float weights, read as f16: the variant of common/weight_f16.wgsl for devices with the
// f16 type.
@group(0) @binding(2) var<storage, read> w: array<f16>; // [rows, cols]

fn weight(i: u32) -> f32 {
    return f32(w[i]);
}
