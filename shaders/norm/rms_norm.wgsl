// RMS norm:
// y[r, c] = w[c] * x[r, c] * rstd[r]
// rstd[r] = 1 / sqrt(mean_c x[r, c]^2 + eps)
// grid: LANES invocations per row, folded.
// Source: Zhang and Sennrich, arXiv 1910.07467.
struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;          // [rows, cols]
@group(0) @binding(2) var<storage, read> w: array<f32>;          // [cols]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;    // [rows, cols]
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>; // [rows]

@compute @workgroup_size(GROUP)
fn rms_norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let at = row_lane(group, n_groups, local);
    let first = min(at.row, p.rows - 1u) * p.cols;
    var squares = 0.0;
    for (var c = at.lane; c < p.cols; c += LANES) {
        let v = x[first + c];
        squares += v * v;
    }
    let scale = inverseSqrt(segment_sum(squares, local, LANES) / f32(p.cols) + p.eps);
    if at.row >= p.rows {
        return;
    }
    for (var c = at.lane; c < p.cols; c += LANES) {
        y[first + c] = w[c] * (x[first + c] * scale);
    }
    if at.lane == 0u {
        rstd[at.row] = scale;
    }
}
