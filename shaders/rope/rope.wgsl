// Rotary embedding: rotates the pair (i, i + r/2) of each head by the angle of the token's
// position. Channels from r pass unchanged.
// out[i] = x[i] cos - s x[i + r/2] sin
// out[i + r/2] = x[i + r/2] cos + s x[i] sin
// s = 1 in the forward, -1 in the backward
// grid: tokens * heads * (d - r/2) invocations, folded.
// Source: Su et al., arXiv 2104.09864, in the channel order of transformers.
struct Params {
    tokens: u32,
    heads: u32,
    half: u32, // r / 2, the rotating pairs of a head
    rest: u32, // d - r, the channels of a head that pass
    direction: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [tokens, heads * d]
@group(0) @binding(2) var<storage, read> cos_table: array<f32>; // [positions, r / 2]
@group(0) @binding(3) var<storage, read> sin_table: array<f32>; // [positions, r / 2]
@group(0) @binding(4) var<storage, read> positions: array<u32>; // [tokens]
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // [tokens, heads * d]

@compute @workgroup_size(64)
fn rope(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let n = linear_index(id, n_groups, 64u);
    let lanes = p.half + p.rest; // one for each pair, then one for each channel that passes
    let i = n % lanes;
    let head = n / lanes; // counted over all tokens
    let token = head / p.heads;
    if token >= p.tokens {
        return;
    }
    let first = head * (2u * p.half + p.rest);
    if i >= p.half {
        let at = first + p.half + i;
        out[at] = x[at];
        return;
    }
    let angle = positions[token] * p.half + i;
    let c = cos_table[angle];
    let s = sin_table[angle] * p.direction;
    let low = first + i;
    let high = low + p.half;
    let a = x[low];
    let b = x[high];
    out[low] = a * c - b * s;
    out[high] = b * c + a * s;
}
