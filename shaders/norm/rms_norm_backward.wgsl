// Input gradient of RMS norm, with g = dy * w:
// dx[r, c] = rstd[r] * (g[r, c] - x[r, c] * rstd[r]^2 * mean_k(g[r, k] * x[r, k]))
// grid: LANES invocations per row, folded.
struct Params {
    rows: u32,
    cols: u32,
    eps: f32, // unused: rstd includes it
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;       // [rows, cols]
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [rows, cols]
@group(0) @binding(3) var<storage, read> w: array<f32>;        // [cols]
@group(0) @binding(4) var<storage, read> rstd: array<f32>;     // [rows]
@group(0) @binding(5) var<storage, read_write> dx: array<f32>; // [rows, cols]

@compute @workgroup_size(GROUP)
fn rms_norm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let at = row_lane(group, n_groups, local);
    let row = min(at.row, p.rows - 1u);
    let first = row * p.cols;
    let scale = rstd[row];
    // Normalising x first keeps the sum in range for large x.
    var products = 0.0;
    for (var c = at.lane; c < p.cols; c += LANES) {
        products += dy[first + c] * w[c] * (x[first + c] * scale);
    }
    let mean = segment_sum(products, local, LANES) / f32(p.cols);
    if at.row >= p.rows {
        return;
    }
    for (var c = at.lane; c < p.cols; c += LANES) {
        dx[first + c] = scale * (dy[first + c] * w[c] - x[first + c] * scale * mean);
    }
}
