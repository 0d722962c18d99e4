// The ORPO loss of each pair of answers (arXiv 2403.07691), and its slope in the loss of each row.
//
// mean = the mean of -losses over the rows of an answer, at most HIGHEST
// odds = mean_chosen - mean_rejected - (log(1 - e^mean_chosen) - log(1 - e^mean_rejected))
// stats[pair] = [-beta * log sigmoid(odds) / total + (sum of losses over all chosen rows) / tokens,
//                beta * mean_chosen, beta * mean_rejected, 1 if mean_chosen > mean_rejected]
// slopes[row] = the derivative of the sum of stats[., 0] with respect to losses[row]
// losses holds -log p(label) of each row. bounds has the first row of the chosen sequence, that of the
// rejected one, and the end of both. answers is 1 in the rows of an answer; the others are the prompt of
// a chosen sequence.
// grid: [pairs], one workgroup per pair.
struct Params {
    pairs: u32,
    total: u32,  // pairs of the whole step
    tokens: u32, // chosen rows of the whole step
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> losses: array<f32>;       // [n]
@group(0) @binding(2) var<storage, read> answers: array<u32>;      // [n]
@group(0) @binding(3) var<storage, read> bounds: array<u32>;       // [pairs, 3]
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;  // [pairs, 4]
@group(0) @binding(5) var<storage, read_write> slopes: array<f32>; // [n]

// The odds of an answer whose every token is certain have no bound.
const HIGHEST: f32 = -1e-6;

// 1 - e^x for x < 0. Near 0, where the difference cancels, by its series.
fn one_minus_exp(x: f32) -> f32 {
    let near = -x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0))));
    return select(1.0 - exp(clamp(x, -80.0, 0.0)), near, x > -0.02);
}

@compute @workgroup_size(256)
fn orpo(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let pair = group.x;
    if pair >= p.pairs {
        return;
    }
    let first = bounds[3u * pair];
    let middle = bounds[3u * pair + 1u];
    let end = bounds[3u * pair + 2u];

    // Losses and counts of the two answers, and the losses of the chosen sequence.
    var answer_parts = vec4<f32>();
    var chosen_part = 0.0;
    for (var i = first + lane; i < end; i += TREE_LANES) {
        let is_answer = f32(answers[i]);
        let of_answer = vec2<f32>(is_answer * losses[i], is_answer);
        let is_chosen = i < middle;
        answer_parts += select(vec4<f32>(0.0, 0.0, of_answer), vec4<f32>(of_answer, 0.0, 0.0), is_chosen);
        chosen_part += select(0.0, losses[i], is_chosen);
    }
    let sums = tree_sum4(answer_parts, lane);
    let chosen_sum = tree_sum(chosen_part, lane);
    let n_chosen = max(sums.y, 1.0);
    let n_rejected = max(sums.w, 1.0);
    let chosen = min(-sums.x / n_chosen, HIGHEST);
    let rejected = min(-sums.z / n_rejected, HIGHEST);
    let not_chosen = one_minus_exp(chosen);
    let not_rejected = one_minus_exp(rejected);
    let odds = chosen - rejected - (log(not_chosen) - log(not_rejected));
    let small = exp(clamp(-abs(odds), -80.0, 0.0));
    let wrong = select(1.0, small, odds >= 0.0) / (1.0 + small); // sigmoid(-odds)
    if lane == 0u {
        let ratio = p.beta * (max(-odds, 0.0) + log(1.0 + small));
        stats[4u * pair] = ratio / f32(p.total) + chosen_sum / f32(p.tokens);
        stats[4u * pair + 1u] = p.beta * chosen;
        stats[4u * pair + 2u] = p.beta * rejected;
        stats[4u * pair + 3u] = select(0.0, 1.0, chosen > rejected);
    }
    let slope = p.beta * wrong / f32(p.total);
    let slope_chosen = slope / (not_chosen * n_chosen);
    let slope_rejected = -slope / (not_rejected * n_rejected);
    for (var i = first + lane; i < end; i += TREE_LANES) {
        let of_answer = f32(answers[i]) * select(slope_rejected, slope_chosen, i < middle);
        slopes[i] = of_answer + select(0.0, 1.0 / f32(p.tokens), i < middle);
    }
}
