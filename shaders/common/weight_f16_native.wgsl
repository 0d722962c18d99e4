// IEEE half-float weights, read as f16: the variant of common/weight_f16.wgsl for devices with the
// f16 type. WGSL lets a device take subnormal ones, below 6.1e-5, for zero. Few weights of a model are
// that small and they add little, but a check with such weights alone fails on such a device.
@group(0) @binding(2) var<storage, read> w: array<f16>; // [rows, cols]

fn weight(i: u32) -> f32 {
    return f32(w[i]);
}
