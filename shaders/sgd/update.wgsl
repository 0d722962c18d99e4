// One step of stochastic gradient descent with momentum over an arena slice, as in torch.optim.SGD.
//
// g = factor * grad + weight_decay * (value - origin)   (weight decay is added after clipping;
//                                                        mostly origin = 0)
// b = momentum * b + g                       (b starts at 0, so the first step has b = g)
// value -= lr * b
// grid: n invocations, folded.
struct Params {
    n: u32,
    lr: f32,
    weight_decay: f32,
    origin: f32,
    momentum: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;              // [norm, factor]; factor 0 skips the step
@group(0) @binding(2) var<storage, read> grads: array<f32>;                 // [n]
@group(0) @binding(3) var<storage, read_write> values: array<f32>;          // [n]
@group(0) @binding(4) var<storage, read_write> momentum_buffer: array<f32>; // [n]

@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i >= p.n || clipping[1] == 0.0 {
        return;
    }
    let g = clipping[1] * grads[i] + p.weight_decay * (values[i] - p.origin);
    let b = p.momentum * momentum_buffer[i] + g;
    momentum_buffer[i] = b;
    values[i] = values[i] - p.lr * b;
}
