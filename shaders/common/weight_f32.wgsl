// f32 weights, one per word.
@group(0) @binding(2) var<storage, read> w: array<f32>; // [rows, cols]

fn weight(i: u32) -> f32 {
    return w[i];
}
