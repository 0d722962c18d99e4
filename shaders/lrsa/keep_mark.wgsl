// Marks the K highest scores of each partition; ties go to the lowest position.
//
// A token is kept iff fewer than K others precede it in that order. There is no sort, and equal
// scores give the same result on every device. Scores are not negative, so their bits sort like
// their values. For any bits, exactly K tokens are marked.
// grid: one invocation per pair, kv head and token.
struct Params {
    n: u32, // n_pairs * Hk * lag
    lag: u32,
    kept: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;      // [n_pairs, Hk, lag]
@group(0) @binding(2) var<storage, read_write> marks: array<u32>; // [n_pairs, Hk, lag], 1 where kept

@compute @workgroup_size(64)
fn keep_mark(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n {
        return;
    }
    let first = i - i % p.lag;
    let own = bitcast<u32>(scores[i]);
    var rank = 0u;
    for (var j = first; j < first + p.lag; j++) {
        let other = bitcast<u32>(scores[j]);
        rank += select(0u, 1u, other > own || (other == own && j < i));
    }
    marks[i] = select(0u, 1u, rank < p.kept);
}
