// Standard deviation of a lag-normalised token over the channels of a head, in two passes:
// x' = (x - lo) / (hi - lo)
// std = sqrt(sum (x' - mean)^2 / (d - 1))
//
// grid: one invocation per pair, head (of the keys, then of the values) and token.
// Source: LagKV, arXiv 2504.04704, eq. 9-11.
struct Params {
    n_pairs: u32,
    kv_cols: u32, // 2 * Hk * d
    lag: u32,
    ring: u32,    // number of rows at which recent wraps
    head_dim: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> recent: array<f32>;       // [rows, kv_cols]
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;  // [n_pairs]
@group(0) @binding(3) var<storage, read> bounds: array<f32>;       // [n_pairs, kv_cols, 2]
@group(0) @binding(4) var<storage, read_write> spread: array<f32>; // [n_pairs, 2 * Hk, lag]

@compute @workgroup_size(64)
fn lag_std(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    let sides = p.kv_cols / p.head_dim;
    if i >= p.n_pairs * sides * p.lag {
        return;
    }
    let token = i % p.lag;
    let side = (i / p.lag) % sides;
    let pair = i / (p.lag * sides);
    let row = ((pairs[pair].x + token) % p.ring) * p.kv_cols + side * p.head_dim;
    let bound = 2u * (pair * p.kv_cols + side * p.head_dim);
    var mean = 0.0;
    for (var c = 0u; c < p.head_dim; c++) {
        mean += (recent[row + c] - bounds[bound + 2u * c]) * bounds[bound + 2u * c + 1u];
    }
    mean /= f32(p.head_dim);
    var square = 0.0;
    for (var c = 0u; c < p.head_dim; c++) {
        let x = (recent[row + c] - bounds[bound + 2u * c]) * bounds[bound + 2u * c + 1u] - mean;
        square += x * x;
    }
    spread[i] = sqrt(square / f32(p.head_dim - 1u));
}
