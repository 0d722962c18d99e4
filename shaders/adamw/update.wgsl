// One AdamW step over an arena slice, in PyTorch's order.
//
// value -= decay * (value - origin)       decay = lr * weight decay, or 0; origin: mostly 0
// g = factor * grad
// m += (1 - beta1) * (g - m)
// v += (1 - beta2) * (g^2 - v)
// value -= step_size * m / (sqrt(v) * inv_sqrt_correction + eps)
// with step_size = lr / (1 - beta1^t) and inv_sqrt_correction = 1 / sqrt(1 - beta2^t)
// The host passes small constants directly: their difference from 1 would lose most digits in f32.
// grid: n invocations, folded.
// Source: Loshchilov and Hutter, arXiv 1711.05101 (decoupled decay).
struct Params {
    n: u32,
    decay: f32,
    origin: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    step_size: f32,
    inv_sqrt_correction: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;         // [norm, factor]; factor 0 skips the step
@group(0) @binding(2) var<storage, read> grads: array<f32>;            // [n]
@group(0) @binding(3) var<storage, read_write> values: array<f32>;     // [n]
@group(0) @binding(4) var<storage, read_write> exp_avg: array<f32>;    // [n]
@group(0) @binding(5) var<storage, read_write> exp_avg_sq: array<f32>; // [n]

@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i >= p.n || clipping[1] == 0.0 {
        return;
    }
    let g = clipping[1] * grads[i];
    let m = exp_avg[i] + p.one_minus_beta1 * (g - exp_avg[i]);
    let v = exp_avg_sq[i] + p.one_minus_beta2 * (g * g - exp_avg_sq[i]);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    let kept = values[i] - p.decay * (values[i] - p.origin);
    values[i] = kept - p.step_size * (m / (sqrt(v) * p.inv_sqrt_correction + p.eps));
}
