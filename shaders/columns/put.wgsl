// Puts a matrix into columns of a wider one, the inverse of columns/take:
// out[r, first + c] = x[r, c]
// grid: rows * cols invocations, folded.
struct Params {
    rows: u32,
    cols: u32,  // of x
    width: u32, // columns of out
    first: u32, // first column of out
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [rows, cols]
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // [rows, width]

@compute @workgroup_size(64)
fn put(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.rows * p.cols {
        out[i / p.cols * p.width + p.first + i % p.cols] = x[i];
    }
}
