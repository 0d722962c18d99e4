// Gradient of rope/rope_kv:
// dk[t] = rope(grad[t, first half], -angle)
// dv[t] = grad[t, second half]
// grid: tokens * heads * (d - r/2) invocations, folded; see rope/rope_kv.
struct Params {
    tokens: u32,
    heads: u32,
    half: u32, // r / 2, the rotating pairs of a head
    rest: u32, // d - r, the channels of a head that pass
    direction: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<f32>;      // [tokens, 2 * heads * d]
@group(0) @binding(2) var<storage, read> cos_table: array<f32>; // [positions, r / 2]
@group(0) @binding(3) var<storage, read> sin_table: array<f32>; // [positions, r / 2]
@group(0) @binding(4) var<storage, read> positions: array<u32>; // [tokens]
@group(0) @binding(5) var<storage, read_write> dk: array<f32>;  // [tokens, heads * d]
@group(0) @binding(6) var<storage, read_write> dv: array<f32>;  // [tokens, heads * d]

@compute @workgroup_size(64)
fn rope_kv_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let n = linear_index(id, n_groups, 64u);
    let lanes = p.half + p.rest; // one for each pair, then one for each channel that passes
    let i = n % lanes;
    let head = n / lanes; // counted over all tokens
    let token = head / p.heads;
    if token >= p.tokens {
        return;
    }
    let head_dim = 2u * p.half + p.rest;
    let width = p.heads * head_dim;
    let first = head * head_dim;
    let row = token * width; // rows of grad are twice as wide
    if i >= p.half {
        let at = first + p.half + i;
        dk[at] = grad[row + at];
        dv[at] = grad[row + at + width];
        return;
    }
    let angle = positions[token] * p.half + i;
    let c = cos_table[angle];
    let s = sin_table[angle] * p.direction;
    let low = first + i;
    let high = low + p.half;
    let grad_low = row + low;
    let grad_high = grad_low + p.half;
    let a = grad[grad_low];
    let b = grad[grad_high];
    dk[low] = a * c - b * s;
    dk[high] = b * c + a * s;
    dv[low] = grad[grad_low + width];
    dv[high] = grad[grad_high + width];
}
