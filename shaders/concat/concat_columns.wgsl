// Concatenates two matrices of equal shape by columns:
// out[r] = [a[r], b[r]]
// grid: rows * cols invocations, folded; each writes one element of each half.
struct Params {
    rows: u32,
    cols: u32, // of a and of b
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;         // [rows, cols]
@group(0) @binding(2) var<storage, read> b: array<f32>;         // [rows, cols]
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [rows, 2 * cols]

@compute @workgroup_size(64)
fn concat_columns(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.rows * p.cols {
        return;
    }
    let left = i + i / p.cols * p.cols; // rows of out are twice as wide
    out[left] = a[i];
    out[left + p.cols] = b[i];
}
