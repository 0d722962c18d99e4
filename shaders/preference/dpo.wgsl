// The DPO loss of each pair of answers (arXiv 2305.18290), and its slope in the loss of each row.
//
// chosen = beta * sum over the rows of the chosen answer of (reference - losses); rejected likewise
// stats[pair] = [-log sigmoid(chosen - rejected) / total, chosen, rejected, 1 if chosen > rejected]
// slopes[row] = the derivative of the sum of stats[., 0] with respect to losses[row]
// losses and reference hold -log p(label) of each row. bounds has the first row of the chosen answer,
// that of the rejected one, and the end of both.
// grid: [pairs], one workgroup per pair.
struct Params {
    pairs: u32,
    total: u32, // pairs of the whole step
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> losses: array<f32>;       // [n]
@group(0) @binding(2) var<storage, read> reference: array<f32>;    // [n]
@group(0) @binding(3) var<storage, read> bounds: array<u32>;       // [pairs, 3]
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;  // [pairs, 4]
@group(0) @binding(5) var<storage, read_write> slopes: array<f32>; // [n]

@compute @workgroup_size(256)
fn dpo(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let pair = group.x;
    if pair >= p.pairs {
        return;
    }
    let first = bounds[3u * pair];
    let middle = bounds[3u * pair + 1u];
    let end = bounds[3u * pair + 2u];

    var parts = vec4<f32>();
    for (var i = first + lane; i < end; i += TREE_LANES) {
        let gain = reference[i] - losses[i];
        parts += select(vec4<f32>(0.0, gain, 0.0, 0.0), vec4<f32>(gain, 0.0, 0.0, 0.0), i < middle);
    }
    let gains = tree_sum4(parts, lane);
    let chosen = p.beta * gains.x;
    let rejected = p.beta * gains.y;
    let margin = chosen - rejected;
    let small = exp(clamp(-abs(margin), -80.0, 0.0));
    let wrong = select(1.0, small, margin >= 0.0) / (1.0 + small); // sigmoid(-margin)
    if lane == 0u {
        stats[4u * pair] = (max(-margin, 0.0) + log(1.0 + small)) / f32(p.total);
        stats[4u * pair + 1u] = chosen;
        stats[4u * pair + 2u] = rejected;
        stats[4u * pair + 3u] = select(0.0, 1.0, margin > 0.0);
    }
    let slope = p.beta * wrong / f32(p.total);
    for (var i = first + lane; i < end; i += TREE_LANES) {
        slopes[i] = select(-slope, slope, i < middle);
    }
}
