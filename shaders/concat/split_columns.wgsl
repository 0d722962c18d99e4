// Splits columns, the inverse of concat/concat_columns:
// da[r] = first half of grad[r]
// db[r] = second half of grad[r]
// grid: rows * cols invocations, folded.
struct Params {
    rows: u32,
    cols: u32, // of da and of db
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<f32>;     // [rows, 2 * cols]
@group(0) @binding(2) var<storage, read_write> da: array<f32>; // [rows, cols]
@group(0) @binding(3) var<storage, read_write> db: array<f32>; // [rows, cols]

@compute @workgroup_size(64)
fn split_columns(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.rows * p.cols {
        return;
    }
    let left = i + i / p.cols * p.cols; // rows of grad are twice as wide
    da[i] = grad[left];
    db[i] = grad[left + p.cols];
}
