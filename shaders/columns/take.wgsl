// Takes columns of a matrix: out[r, c] = x[r, first + c].
// grid: rows * cols invocations, folded.
struct Params {
    rows: u32,
    cols: u32,  // of out
    width: u32, // columns of x
    first: u32, // first column of x
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [rows, width]
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // [rows, cols]

@compute @workgroup_size(64)
fn take(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.rows * p.cols {
        out[i] = x[i / p.cols * p.width + p.first + i % p.cols];
    }
}
