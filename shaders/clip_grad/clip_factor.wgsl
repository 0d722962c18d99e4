// Second stage of the gradient norm, and the clipping factor of torch.nn.utils.clip_grad_norm_.
//
// state[0] = norm = sqrt(sum of partials)
// state[1] = clip > 0 ? min(1, clip / (norm + 1e-6)) : 1
//            0 if the norm is not finite: optimisers then skip the step
// grid: [1], one workgroup.
struct Params {
    n: u32,    // number of partial sums
    clip: f32, // maximum norm, 0 for no clipping
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;    // [n]
@group(0) @binding(2) var<storage, read_write> state: array<f32>; // [norm, factor]

@compute @workgroup_size(256)
fn clip_factor(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.n; i += TREE_LANES) {
        sum += partials[i];
    }
    sum = tree_sum(sum, lane);
    if lane == 0u {
        let norm = sqrt(sum);
        let factor = select(1.0, min(1.0, p.clip / (norm + 1e-6)), p.clip > 0.0);
        // By its exponent, because WGSL lets compilers assume that no value is NaN; a sum of squares has
        // no sign.
        let is_finite = (bitcast<u32>(sum) >> 23u) < 255u;
        state[0] = norm;
        state[1] = select(0.0, factor, is_finite);
    }
}
