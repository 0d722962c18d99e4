// Norms of the rows of an adapted weight, for DoRA:
// out[first + r] = sqrt(sum_c (W(r, c) + delta[r, c])^2)
// delta is the scaled product of the adapter's matrices. A linked weight part declares w.
// grid: LANES invocations per row, folded.
// Source: Liu et al., arXiv 2402.09353.
struct Params {
    rows: u32,
    cols: u32,
    w_offset: u32, // first element of the rows within w
    first: u32,    // first element of out
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> delta: array<f32>;     // [rows, cols]
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [rows] from first on

@compute @workgroup_size(GROUP)
fn row_norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let at = row_lane(group, n_groups, local);
    let start = min(at.row, p.rows - 1u) * p.cols;
    var squares = 0.0;
    for (var c = at.lane; c < p.cols; c += LANES) {
        let v = weight(p.w_offset + start + c) + delta[start + c];
        squares += v * v;
    }
    let total = segment_sum(squares, local, LANES);
    if at.row < p.rows && at.lane == 0u {
        out[p.first + at.row] = sqrt(total);
    }
}
