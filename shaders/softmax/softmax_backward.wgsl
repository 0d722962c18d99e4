// Gradient of the row softmax:
// dx[r, c] = y[r, c] * (dy[r, c] - sum_k dy[r, k] * y[r, k])
// grid: LANES invocations per row, folded.
struct Params {
    rows: u32,
    cols: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;       // [rows, cols]
@group(0) @binding(2) var<storage, read> y: array<f32>;        // [rows, cols]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>; // [rows, cols]

@compute @workgroup_size(GROUP)
fn softmax_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let at = row_lane(group, n_groups, local);
    let first = min(at.row, p.rows - 1u) * p.cols;
    var products = 0.0;
    for (var c = at.lane; c < p.cols; c += LANES) {
        products += dy[first + c] * y[first + c];
    }
    let total = segment_sum(products, local, LANES);
    if at.row >= p.rows {
        return;
    }
    for (var c = at.lane; c < p.cols; c += LANES) {
        dx[first + c] = y[first + c] * (dy[first + c] - total);
    }
}
