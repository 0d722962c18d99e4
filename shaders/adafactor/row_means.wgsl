// Adafactor: the running mean of the squared gradients of each row of a piece of a matrix.
//
// row_var[first_row + r] += weight * (mean_c (factor * grad[r, c])^2 - row_var[first_row + r])
// grid: LANES invocations per row, folded.
// Source: Shazeer and Stern, arXiv 1804.04235, as torch.optim.Adafactor computes it.
struct Params {
    rows: u32,
    cols: u32,
    first_row: u32, // of the piece within the matrix
    weight: f32,    // of the new mean
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;      // [norm, factor]; factor 0 skips the step
@group(0) @binding(2) var<storage, read> grads: array<f32>;         // [rows, cols]
@group(0) @binding(3) var<storage, read_write> row_var: array<f32>; // [rows of the matrix]

@compute @workgroup_size(GROUP)
fn row_means(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let at = row_lane(group, n_groups, local);
    let first = min(at.row, p.rows - 1u) * p.cols;
    var squares = 0.0;
    for (var c = at.lane; c < p.cols; c += LANES) {
        let g = clipping[1] * grads[first + c];
        squares += g * g;
    }
    let mean = segment_sum(squares, local, LANES) / f32(p.cols);
    if at.row >= p.rows || at.lane != 0u || clipping[1] == 0.0 {
        return;
    }
    let row = p.first_row + at.row;
    row_var[row] += p.weight * (mean - row_var[row]);
}
