// Row statistics of the attention backward:
// stats = (log-sum-exp, delta) with delta = sum_c dout * out
//
// grid: one invocation per token and query head.
// Source: FlashAttention, arXiv 2205.14135.
struct Params {
    n: u32, // tokens * H
    head_dim: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> out: array<f32>;         // [tokens, H, d]
@group(0) @binding(2) var<storage, read> dout: array<f32>;        // [tokens, H, d]
@group(0) @binding(3) var<storage, read> lse: array<f32>;         // [tokens, H]
@group(0) @binding(4) var<storage, read_write> stats: array<f32>; // [tokens, H, 2]

@compute @workgroup_size(64)
fn delta(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n {
        return;
    }
    var sum = 0.0;
    for (var c = 0u; c < p.head_dim; c++) {
        sum += out[i * p.head_dim + c] * dout[i * p.head_dim + c];
    }
    stats[2u * i] = lse[i];
    stats[2u * i + 1u] = sum;
}
