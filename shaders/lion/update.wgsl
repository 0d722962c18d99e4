// One Lion step over an arena slice, with decoupled weight decay.
//
// g = factor * grad
// direction = sign(beta1 * m + (1 - beta1) * g)
// value -= decay * (value - origin) + lr * direction   decay = lr * weight decay, or 0
// Mostly origin = 0.
// m = beta2 * m + (1 - beta2) * g
// The direction is 0 where m and g are 0, so the padding of a slice stays 0.
// grid: n invocations, folded.
// Source: arXiv 2302.06675, algorithm 2.
struct Params {
    n: u32,
    lr: f32,
    decay: f32,
    origin: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;      // [norm, factor]; factor 0 skips the step
@group(0) @binding(2) var<storage, read> grads: array<f32>;         // [n]
@group(0) @binding(3) var<storage, read_write> values: array<f32>;  // [n]
@group(0) @binding(4) var<storage, read_write> exp_avg: array<f32>; // [n]

@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i >= p.n || clipping[1] == 0.0 {
        return;
    }
    let g = clipping[1] * grads[i];
    let m = exp_avg[i];
    let direction = sign(m + p.one_minus_beta1 * (g - m));
    exp_avg[i] = m + p.one_minus_beta2 * (g - m);
    let kept = values[i] - p.decay * (values[i] - p.origin);
    values[i] = kept - p.lr * direction;
}
