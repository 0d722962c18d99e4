// Gathers rows:
// out[j, c] = x[rows[j], c]
// grid: n * cols invocations, folded.
struct Params {
    n_rows: u32, // of out
    cols: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [tokens, cols]
@group(0) @binding(2) var<storage, read> rows: array<u32>;      // [n_rows]
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [n_rows, cols]

@compute @workgroup_size(64)
fn gather_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    let row = i / p.cols;
    if row < p.n_rows {
        out[i] = x[rows[row] * p.cols + i % p.cols];
    }
}
