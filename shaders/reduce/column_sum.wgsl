// Column sums over blocks of rows:
// out[b, c] = sum over the rows r of block b of x[r, c]
// Applied twice, it sums whole columns in a fixed order.
// grid: blocks * cols invocations, folded.
struct Params {
    rows: u32,
    cols: u32,
    block: u32, // rows per block
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [rows, cols]
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // [rows / block, cols]

@compute @workgroup_size(64)
fn column_sum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    let first = i / p.cols * p.block;
    if first >= p.rows {
        return;
    }
    let col = i % p.cols;
    let end = min(first + p.block, p.rows);
    var sum = 0.0;
    for (var r = first; r < end; r++) {
        sum += x[r * p.cols + col];
    }
    out[i] = sum;
}
