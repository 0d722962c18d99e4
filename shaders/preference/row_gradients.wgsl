// The gradient of Σ slopes[i] * losses[i] with respect to a chunk of logits, in place.
//
// losses[i] = -log softmax(x[i])[label] has the gradient softmax(x[i]) - [j = label], so
// x[r, j] <- slopes[first_row + r] * slope * (exp(x[r, j] - max) / sum - [j = label])
// slope = 1 - (x[r, j] / softcap)^2, that of the softcap, or 1 without
// A label of cols or more marks a row as ignored: its gradient is 0.
// grid: [rows], one workgroup per row.
struct Params {
    rows: u32,      // rows of the chunk
    cols: u32,      // vocabulary
    first_row: u32, // first row of the chunk within labels and slopes
    softcap: f32,   // 0 for none
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<u32>;  // [n]
@group(0) @binding(2) var<storage, read> slopes: array<f32>;  // [n]
@group(0) @binding(3) var<storage, read_write> x: array<f32>; // [rows, cols]

// Below this, exp adds nothing to the sum in f32.
const LOWEST_EXPONENT: f32 = -80.0;

@compute @workgroup_size(256)
fn row_gradients(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    if row >= p.rows {
        return;
    }
    let base = row * p.cols;
    let label = labels[p.first_row + row];

    var highest = -3.0e38;
    for (var j = lane; j < p.cols; j += TREE_LANES) {
        highest = max(highest, x[base + j]);
    }
    highest = tree_max(highest, lane);

    var sum = 0.0;
    for (var j = lane; j < p.cols; j += TREE_LANES) {
        sum += exp(clamp(x[base + j] - highest, LOWEST_EXPONENT, 0.0));
    }
    sum = tree_sum(sum, lane);

    let factor = select(slopes[p.first_row + row], 0.0, label >= p.cols);
    let steepness = select(0.0, 1.0 / max(p.softcap, 1e-30), p.softcap > 0.0);
    for (var j = lane; j < p.cols; j += TREE_LANES) {
        let y = x[base + j];
        let probability = exp(clamp(y - highest, LOWEST_EXPONENT, 0.0)) / sum;
        let slope = 1.0 - (y * steepness) * (y * steepness);
        x[base + j] = factor * slope * (probability - select(0.0, 1.0, j == label));
    }
}
