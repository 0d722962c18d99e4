// Finds the thresholds of top-k and top-p without sorting, by a search over the ordered bits of
// f32, four bits per pass.

@group(0) @binding(1) var<storage, read> adjusted: array<vec4<f32>>; // [ceil(n / 4)], padded with a value below every logit

// Below this, exp adds nothing to the sum in f32.
const LOWEST_EXPONENT: f32 = -80.0;

// Maps a number to an unsigned key with the same order. Both zeros map to one key.
fn ordered(x: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(x);
    let positive = bits ^ vec4<u32>(0x80000000u);
    let sign_set = (bits & vec4<u32>(0x80000000u)) != vec4<u32>(0u);
    let key = select(positive, ~bits, sign_set);
    return select(key, vec4<u32>(0x80000000u), bits == vec4<u32>(0x80000000u));
}

// The number of a key.
fn unordered(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key ^ 0x80000000u, key >= 0x80000000u));
}

// Unnormalised probability; 1 for the most likely token.
fn mass(x: vec4<f32>, peak: f32) -> vec4<f32> {
    return exp(clamp(x - peak, vec4<f32>(LOWEST_EXPONENT), vec4<f32>(0.0)));
}

// Sum over all tokens with key >= least.
fn mass_from(least: u32, peak: f32, lane: u32, n_quads: u32) -> f32 {
    var sum = 0.0;
    for (var i = lane; i < n_quads; i += TREE_LANES) {
        let x = adjusted[i];
        let kept = select(vec4<f32>(0.0), mass(x, peak), ordered(x) >= vec4<u32>(least));
        sum += kept.x;
        sum += kept.y;
        sum += kept.z;
        sum += kept.w;
    }
    return tree_sum(sum, lane);
}

// Sums over the tokens with key >= thresholds[c], for four thresholds.
fn at_least(value: f32, key: u32, thresholds: vec4<u32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), vec4<f32>(value), vec4<u32>(key) >= thresholds);
}

// Number of the four sums, over all lanes, that reach the goal.
fn n_reached(sums: vec4<f32>, goal: f32, lane: u32) -> u32 {
    let reached = select(vec4<u32>(0u), vec4<u32>(1u), tree_sum4(sums, lane) >= vec4<f32>(goal));
    return reached.x + reached.y + reached.z + reached.w;
}

// The largest key for which the tokens with this key or a larger one reach the goal, by count or by
// mass. Tokens below `least` do not count. All thresholds use the same order of summation, so the
// sums decrease as the threshold rises.
fn search(goal: f32, by_mass: bool, least: u32, peak: f32, lane: u32, n_quads: u32) -> u32 {
    var found = 0u;
    for (var shift = 32u; shift > 0u;) {
        shift -= 4u;
        let step = 1u << shift;
        let t0 = vec4<u32>(found) + vec4<u32>(0u, 1u, 2u, 3u) * step;
        let t1 = t0 + vec4<u32>(4u * step);
        let t2 = t1 + vec4<u32>(4u * step);
        let t3 = t2 + vec4<u32>(4u * step);
        var s0 = vec4<f32>(0.0);
        var s1 = vec4<f32>(0.0);
        var s2 = vec4<f32>(0.0);
        var s3 = vec4<f32>(0.0);
        for (var i = lane; i < n_quads; i += TREE_LANES) {
            let x = adjusted[i];
            let key = ordered(x);
            let weighed = select(vec4<f32>(1.0), mass(x, peak), by_mass);
            let value = select(vec4<f32>(0.0), weighed, key >= vec4<u32>(least));
            for (var c = 0u; c < 4u; c++) {
                s0 += at_least(value[c], key[c], t0);
                s1 += at_least(value[c], key[c], t1);
                s2 += at_least(value[c], key[c], t2);
                s3 += at_least(value[c], key[c], t3);
            }
        }
        var n = n_reached(s0, goal, lane) + n_reached(s1, goal, lane);
        n += n_reached(s2, goal, lane) + n_reached(s3, goal, lane);
        found += (max(n, 1u) - 1u) * step;
    }
    return found;
}
