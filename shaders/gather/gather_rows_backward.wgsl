// Gradient of gather/gather_rows:
// dx[t, c] = dy[inverse[t], c] if row t was gathered, else 0
// grid: n_rows * cols invocations, folded.
struct Params {
    n_rows: u32, // of dx
    cols: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;       // [chosen, cols]
@group(0) @binding(2) var<storage, read> inverse: array<u32>;  // [n_rows], 0xffffffff for rows that were not gathered
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // [n_rows, cols]

@compute @workgroup_size(64)
fn gather_rows_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    let row = i / p.cols;
    if row >= p.n_rows {
        return;
    }
    let chosen = inverse[row];
    var value = 0.0;
    if chosen != 0xffffffffu {
        value = dy[chosen * p.cols + i % p.cols];
    }
    dx[i] = value;
}
