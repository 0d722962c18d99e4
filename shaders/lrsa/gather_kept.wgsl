// Copies the kept keys and values of every head into kept rows:
// kept[out_row + pair * kept + i, side, head] = recent[rows[pair, head, i], side, head]
//
// grid: one invocation per kept element.
struct Params {
    n: u32,       // n_pairs * kept * kv_cols
    kv_cols: u32, // 2 * Hk * d
    head_dim: u32,
    kept: u32,
    out_row: u32, // first kept row written
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> recent: array<f32>;     // [rows, kv_cols]
@group(0) @binding(2) var<storage, read> rows: array<u32>;       // [n_pairs, Hk, kept]
@group(0) @binding(3) var<storage, read_write> kept: array<f32>; // [kept rows, kv_cols]

@compute @workgroup_size(64)
fn gather_kept(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n {
        return;
    }
    let n_heads = p.kv_cols / (2u * p.head_dim);
    let col = i % p.kv_cols;
    let row = i / p.kv_cols;
    let head = (col / p.head_dim) % n_heads;
    let source = rows[((row / p.kept) * n_heads + head) * p.kept + row % p.kept];
    kept[p.out_row * p.kv_cols + i] = recent[source * p.kv_cols + col];
}
