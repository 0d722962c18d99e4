// Score of a token within its partition:
// score = softmax(std of keys) + softmax(std of values)
//
// grid: one invocation per pair and kv head, which loops over the L tokens of keys and values.
// Source: LagKV, arXiv 2504.04704, eq. 12-13.
struct Params {
    n_pairs: u32,
    n_heads: u32, // Hk
    lag: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> spread: array<f32>;       // [n_pairs, 2 * Hk, lag]
@group(0) @binding(2) var<storage, read_write> scores: array<f32>; // [n_pairs, Hk, lag]

// (maximum, 1 / sum of exponentials) of the softmax that starts at `first`.
fn normaliser(first: u32) -> vec2<f32> {
    var top = spread[first];
    for (var t = 1u; t < p.lag; t++) {
        top = max(top, spread[first + t]);
    }
    var sum = 0.0;
    for (var t = 0u; t < p.lag; t++) {
        sum += exp(clamp(spread[first + t] - top, -80.0, 0.0));
    }
    return vec2<f32>(top, 1.0 / sum);
}

@compute @workgroup_size(64)
fn lag_score(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n_pairs * p.n_heads {
        return;
    }
    let pair = i / p.n_heads;
    let head = i % p.n_heads;
    let key = (pair * 2u * p.n_heads + head) * p.lag;
    let value = key + p.n_heads * p.lag;
    let of_key = normaliser(key);
    let of_value = normaliser(value);
    for (var t = 0u; t < p.lag; t++) {
        let k = exp(clamp(spread[key + t] - of_key.x, -80.0, 0.0)) * of_key.y;
        let v = exp(clamp(spread[value + t] - of_value.x, -80.0, 0.0)) * of_value.y;
        scores[i * p.lag + t] = k + v;
    }
}
