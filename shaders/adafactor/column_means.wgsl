// Adafactor: the running mean of the squared gradients of each column. A matrix that is cut into
// pieces adds up its sums piece by piece. A vector is a matrix of one row.
//
// sums[c] = sum_r (factor * grad[r, c])^2, plus sums[c] of earlier pieces
// col_var[c] += weight * (sums[c] / tensor_rows - col_var[c])         after the last piece
// grid: a workgroup of 8 lanes for each of 32 columns, folded.
// Source: Shazeer and Stern, arXiv 1804.04235, as torch.optim.Adafactor computes it.
const COLUMNS: u32 = 32u;
const LANES: u32 = 8u;

struct Params {
    rows: u32, // of the piece
    cols: u32,
    tensor_rows: u32, // of all pieces
    is_first: u32,
    is_last: u32,
    weight: f32, // of the new mean
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;      // [norm, factor]; factor 0 skips the step
@group(0) @binding(2) var<storage, read> grads: array<f32>;         // [rows, cols]
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;    // [cols]
@group(0) @binding(4) var<storage, read_write> col_var: array<f32>; // [cols]

var<workgroup> partials: array<f32, 256>;

@compute @workgroup_size(256)
fn column_means(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let column = (group.x + group.y * n_groups.x) * COLUMNS + local % COLUMNS;
    let lane = local / COLUMNS;
    var squares = 0.0;
    if column < p.cols {
        for (var r = lane; r < p.rows; r += LANES) {
            let g = clipping[1] * grads[r * p.cols + column];
            squares += g * g;
        }
    }
    partials[local] = squares;
    workgroupBarrier();
    if lane != 0u || column >= p.cols || clipping[1] == 0.0 {
        return;
    }
    var total = partials[local];
    for (var k = 1u; k < LANES; k++) {
        total += partials[local + k * COLUMNS];
    }
    if p.is_first == 0u {
        total += sums[column];
    }
    sums[column] = total;
    if p.is_last != 0u {
        col_var[column] += p.weight * (total / f32(p.tensor_rows) - col_var[column]);
    }
}
