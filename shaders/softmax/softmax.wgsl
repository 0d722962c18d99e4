// Row softmax:
// y[r, c] = exp(x[r, c] - max_k x[r, k]) / sum_k exp(x[r, k] - max)
// Exponents are clamped to [-80, 0].
// grid: LANES invocations per row, folded.
struct Params {
    rows: u32,
    cols: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;       // [rows, cols]
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // [rows, cols]

@compute @workgroup_size(GROUP)
fn softmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let at = row_lane(group, n_groups, local);
    let first = min(at.row, p.rows - 1u) * p.cols;
    var largest = -3.0e38;
    for (var c = at.lane; c < p.cols; c += LANES) {
        largest = max(largest, x[first + c]);
    }
    largest = segment_max(largest, local, LANES);
    var sum = 0.0;
    for (var c = at.lane; c < p.cols; c += LANES) {
        sum += exp(clamp(x[first + c] - largest, -80.0, 0.0));
    }
    let factor = 1.0 / segment_sum(sum, local, LANES);
    if at.row >= p.rows {
        return;
    }
    for (var c = at.lane; c < p.cols; c += LANES) {
        y[first + c] = exp(clamp(x[first + c] - largest, -80.0, 0.0)) * factor;
    }
}
