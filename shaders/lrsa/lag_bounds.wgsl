// Range of every channel over the next partition, the reference of LagKV.
//
// bounds[pair, channel] = (lo, 1 / (hi - lo))
// The factor is 0 where hi - lo < 1e-6: a flat channel does not contribute.
// pairs [n_pairs, 2]: first recent rows of the scored partition and of the next one.
// grid: one invocation per pair and channel of a kv row (keys and values).
// Source: LagKV, arXiv 2504.04704, eq. 7-8.
struct Params {
    n_pairs: u32,
    kv_cols: u32, // 2 * Hk * d
    lag: u32,
    ring: u32,    // number of rows at which recent wraps
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> recent: array<f32>;       // [rows, kv_cols]
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>;  // [n_pairs]
@group(0) @binding(3) var<storage, read_write> bounds: array<f32>; // [n_pairs, kv_cols, 2]

@compute @workgroup_size(64)
fn lag_bounds(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n_pairs * p.kv_cols {
        return;
    }
    let channel = i % p.kv_cols;
    let first = pairs[i / p.kv_cols].y;
    var lo = recent[(first % p.ring) * p.kv_cols + channel];
    var hi = lo;
    for (var t = 1u; t < p.lag; t++) {
        let x = recent[((first + t) % p.ring) * p.kv_cols + channel];
        lo = min(lo, x);
        hi = max(hi, x);
    }
    let span = hi - lo;
    bounds[2u * i] = lo;
    bounds[2u * i + 1u] = select(1.0 / max(span, 1e-6), 0.0, span < 1e-6);
}
