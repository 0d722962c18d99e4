// Writes new kv rows into a cache:
// cache[(first + t) % ring] = rows[t]
//
// grid: one invocation per element.
struct Params {
    n: u32,    // tokens * kv_cols
    kv_cols: u32,
    first: u32,
    ring: u32, // number of rows at which the cache wraps
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> rows: array<f32>;        // [tokens, kv_cols]
@group(0) @binding(2) var<storage, read_write> cache: array<f32>; // [cache rows, kv_cols]

@compute @workgroup_size(64)
fn store_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        cache[((p.first + i / p.kv_cols) % p.ring) * p.kv_cols + i % p.kv_cols] = rows[i];
    }
}
