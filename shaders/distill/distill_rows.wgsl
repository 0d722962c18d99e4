// Cross-entropy of a chunk of a student's logits, their divergence from a teacher's, and the
// gradient of both in place.
//
// With p = softmax(x[r]) and q = softmax(teacher[r]):
// ce[first_row + r] = -log p[label], and 0 for an ignored row
// kl[first_row + r] = sum_j q[j] (log q[j] - log p[j])
// x[r, j] <- slope * (ce_scale * (p[j] - [j = label]) + kl_scale * (p[j] - q[j]))   only if gradient is 1
// slope = 1 - (x[r, j] / softcap)^2, that of the softcap, or 1 without
// A label of cols or more marks a row as ignored; its ce_scale is 0.
// grid: [rows], one workgroup per row.
struct Params {
    rows: u32,      // rows of the chunk
    cols: u32,      // vocabulary
    first_row: u32, // first row of the chunk within labels, ce and kl
    gradient: u32,  // 1: overwrite the student's logits with the gradient
    ce_scale: f32,  // scale of the cross-entropy's gradient
    kl_scale: f32,  // scale of the divergence's gradient
    softcap: f32,   // 0 for none
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<u32>;  // [n]
@group(0) @binding(2) var<storage, read> teacher: array<f32>; // [rows, cols]
@group(0) @binding(3) var<storage, read_write> x: array<f32>; // [rows, cols]
@group(0) @binding(4) var<storage, read_write> ce: array<f32>; // [n]
@group(0) @binding(5) var<storage, read_write> kl: array<f32>; // [n]

// Below this, exp adds nothing to the sum in f32.
const LOWEST_EXPONENT: f32 = -80.0;

@compute @workgroup_size(256)
fn distill_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    if row >= p.rows {
        return;
    }
    let base = row * p.cols;
    let label = labels[p.first_row + row];
    let ignored = label >= p.cols;

    var top = -3.0e38;
    var teacher_top = -3.0e38;
    for (var j = lane; j < p.cols; j += TREE_LANES) {
        top = max(top, x[base + j]);
        teacher_top = max(teacher_top, teacher[base + j]);
    }
    top = tree_max(top, lane);
    teacher_top = tree_max(teacher_top, lane);

    var sum = 0.0;
    var teacher_sum = 0.0;
    for (var j = lane; j < p.cols; j += TREE_LANES) {
        sum += exp(clamp(x[base + j] - top, LOWEST_EXPONENT, 0.0));
        teacher_sum += exp(clamp(teacher[base + j] - teacher_top, LOWEST_EXPONENT, 0.0));
    }
    sum = tree_sum(sum, lane);
    teacher_sum = tree_sum(teacher_sum, lane);

    if lane == 0u {
        let loss = log(sum) + (top - x[base + min(label, p.cols - 1u)]);
        ce[p.first_row + row] = select(loss, 0.0, ignored);
    }
    storageBarrier(); // all lanes have read the label's logit before it is overwritten

    let ce_scale = select(p.ce_scale, 0.0, ignored);
    let steepness = select(0.0, 1.0 / max(p.softcap, 1e-30), p.softcap > 0.0);
    let shift = log(sum / teacher_sum);
    var divergence = 0.0;
    for (var j = lane; j < p.cols; j += TREE_LANES) {
        let y = x[base + j];
        let below = teacher[base + j] - teacher_top;
        let weight = exp(clamp(below, LOWEST_EXPONENT, 0.0));
        // A token that the teacher rules out counts nothing, whatever its logarithms are.
        divergence += select(weight * (below - (y - top) + shift), 0.0, below < LOWEST_EXPONENT);
        if p.gradient == 1u {
            let probability = exp(clamp(y - top, LOWEST_EXPONENT, 0.0)) / sum;
            let slope = 1.0 - (y * steepness) * (y * steepness);
            let from_label = ce_scale * (probability - select(0.0, 1.0, j == label));
            x[base + j] = slope * (from_label + p.kl_scale * (probability - weight / teacher_sum));
        }
    }
    divergence = tree_sum(divergence, lane);
    if lane == 0u {
        kl[p.first_row + row] = divergence / teacher_sum;
    }
}
