// One AdamW step over an arena slice, with state in 8 bits. A block of 256 elements has one factor
// (absmax) for each of the two means, and each element a code:
//
// m = absmax_m * signed_level(code), v = absmax_v * level(code)
// value, m and v as in adamw/update, with the new m and v before they are rounded
// absmax_m = max |m|, absmax_v = max v over the block; codes of the nearest levels
//
// The levels of v are 0, then 2, 4, ... 128 even steps within each of seven decades, then 1. Those
// of m are 0, then 1, 2, ... 64 steps within each decade, and their negatives, then 1.
// grid: one workgroup of 64 invocations a block, folded; an invocation has four elements, which
// share a word.
// Source: Dettmers et al., arXiv 2110.02861 (block-wise dynamic quantisation), as in bitsandbytes.
const GROUP: u32 = 64u;
// 10^(e - 6) for e from 0 to 6.
const LOW_POWERS = vec4<f32>(1e-6, 1e-5, 1e-4, 1e-3);
const HIGH_POWERS = vec4<f32>(1e-2, 1e-1, 1.0, 0.0);
// The code of m = 0.
const ZERO: u32 = 127u;
// For a block of zeros.
const LEAST_DIVISOR: f32 = 1e-37;

struct Params {
    n: u32,
    decay: f32,
    origin: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    step_size: f32,
    inv_sqrt_correction: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;                // [norm, factor]; factor 0 skips the step
@group(0) @binding(2) var<storage, read> grads: array<f32>;                   // [n]
@group(0) @binding(3) var<storage, read_write> values: array<f32>;            // [n]
@group(0) @binding(4) var<storage, read_write> exp_avg: array<u32>;           // [blocks * 64], four codes a word
@group(0) @binding(5) var<storage, read_write> exp_avg_absmax: array<f32>;    // [blocks]
@group(0) @binding(6) var<storage, read_write> exp_avg_sq: array<u32>;        // [blocks * 64], four codes a word
@group(0) @binding(7) var<storage, read_write> exp_avg_sq_absmax: array<f32>; // [blocks]

// 10^(e - 6)
fn power(e: u32) -> f32 {
    return select(LOW_POWERS[e & 3u], HIGH_POWERS[e & 3u], e > 3u);
}

// The j-th level from 0 up. The first decade has 2^finer steps: finer is 0 for m, 1 for v.
fn level(j: u32, finer: u32) -> f32 {
    if j == 0u {
        return 0.0;
    }
    if j == last_level(finer) {
        return 1.0;
    }
    let i = j + finer;
    let log_steps = firstLeadingBit(i);
    let steps = 1u << log_steps;
    return power(log_steps - finer) * (0.1 + 0.9 * ((f32(i - steps) + 0.5) / f32(steps)));
}

fn last_level(finer: u32) -> u32 {
    return 128u + 127u * finer;
}

// Half way from the j-th level to the next one.
fn middle(j: u32, finer: u32) -> f32 {
    return 0.5 * (level(j, finer) + level(j + 1u, finer));
}

// The level nearest to a in [0, 1]; the lower one of two that are equally near. It is that of the
// step in which a lies, or next to it.
fn nearest(a: f32, finer: u32) -> u32 {
    var e = 0u;
    for (var k = 0u; k < 6u; k++) {
        e += select(0u, 1u, a >= power(k));
    }
    let steps = 1u << (e + finer);
    let step = u32(max(0.0, (a / power(e) - 0.1) / 0.9 * f32(steps)));
    let j = steps + min(step, steps - 1u) - finer;
    if a <= middle(j - 1u, finer) {
        return j - 1u;
    }
    return select(j, j + 1u, a > middle(j, finer));
}

fn signed_level(code: u32) -> f32 {
    if code < ZERO {
        return -level(ZERO - code, 0u);
    }
    return level(code - ZERO, 0u);
}

// -1 is not a level.
fn signed_nearest(a: f32) -> u32 {
    let j = nearest(abs(a), 0u);
    return select(ZERO + j, ZERO - min(j, ZERO), a < 0.0);
}

@compute @workgroup_size(GROUP)
fn update(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let block = group.x + group.y * n_groups.x;
    let word = block * GROUP + lane;
    let first = 4u * word;
    let is_on = first < p.n && clipping[1] != 0.0;
    var m = vec4<f32>();
    var v = vec4<f32>();
    if is_on {
        for (var k = 0u; k < min(4u, p.n - first); k++) {
            let g = clipping[1] * grads[first + k];
            let old_m = exp_avg_absmax[block] * signed_level(extractBits(exp_avg[word], 8u * k, 8u));
            let old_v = exp_avg_sq_absmax[block] * level(extractBits(exp_avg_sq[word], 8u * k, 8u), 1u);
            m[k] = old_m + p.one_minus_beta1 * (g - old_m);
            v[k] = old_v + p.one_minus_beta2 * (g * g - old_v);
        }
    }
    let sizes = abs(m);
    let m_max = segment_max(max(max(sizes.x, sizes.y), max(sizes.z, sizes.w)), lane, GROUP);
    let v_max = segment_max(max(max(v.x, v.y), max(v.z, v.w)), lane, GROUP);
    if !is_on {
        return;
    }
    var m_word = 0u;
    var v_word = 0u;
    for (var k = 0u; k < 4u; k++) {
        m_word |= signed_nearest(m[k] / max(m_max, LEAST_DIVISOR)) << (8u * k);
        v_word |= nearest(v[k] / max(v_max, LEAST_DIVISOR), 1u) << (8u * k);
    }
    for (var k = 0u; k < min(4u, p.n - first); k++) {
        let x = values[first + k];
        let kept = x - p.decay * (x - p.origin);
        values[first + k] = kept - p.step_size * (m[k] / (sqrt(v[k]) * p.inv_sqrt_correction + p.eps));
    }
    exp_avg[word] = m_word;
    exp_avg_sq[word] = v_word;
    if lane == 0u {
        exp_avg_absmax[block] = m_max;
        exp_avg_sq_absmax[block] = v_max;
    }
}
