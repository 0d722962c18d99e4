// Writes the recent rows of the marked tokens in ascending order.
//
// grid: one invocation per pair, kv head and token. The invocation of a marked token counts the
// marks before it.
struct Params {
    n: u32,       // n_pairs * Hk * lag
    n_heads: u32, // Hk
    lag: u32,
    kept: u32,
    ring: u32,    // number of rows at which recent wraps
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> marks: array<u32>;       // [n_pairs, Hk, lag]
@group(0) @binding(2) var<storage, read> pairs: array<vec2<u32>>; // [n_pairs]
@group(0) @binding(3) var<storage, read_write> rows: array<u32>;  // [n_pairs, Hk, kept]

@compute @workgroup_size(64)
fn keep_pack(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n || marks[i] == 0u {
        return;
    }
    let token = i % p.lag;
    var before = 0u;
    for (var j = i - token; j < i; j++) {
        before += marks[j];
    }
    let list = i / p.lag;
    if before < p.kept {
        rows[list * p.kept + before] = (pairs[list / p.n_heads].x + token) % p.ring;
    }
}
