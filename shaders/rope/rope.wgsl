// Rotary embedding: rotates the pair (i, i + d/2) of each head by the angle of the token's
// position.
// out[i] = x[i] cos - s x[i + d/2] sin
// out[i + d/2] = x[i + d/2] cos + s x[i] sin
// s = 1 in the forward, -1 in the backward
// grid: tokens * heads * d/2 invocations, folded.
// Source: Su et al., arXiv 2104.09864, in the channel order of transformers.
struct Params {
    tokens: u32,
    heads: u32,
    half: u32, // d / 2
    direction: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [tokens, heads * d]
@group(0) @binding(2) var<storage, read> cos_table: array<f32>; // [positions, d / 2]
@group(0) @binding(3) var<storage, read> sin_table: array<f32>; // [positions, d / 2]
@group(0) @binding(4) var<storage, read> positions: array<u32>; // [tokens]
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // [tokens, heads * d]

@compute @workgroup_size(64)
fn rope(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let n = linear_index(id, n_groups, 64u);
    let i = n % p.half;
    let head = n / p.half; // counted over all tokens
    let token = head / p.heads;
    if token >= p.tokens {
        return;
    }
    let angle = positions[token] * p.half + i;
    let c = cos_table[angle];
    let s = sin_table[angle] * p.direction;
    let low = head * 2u * p.half + i;
    let high = low + p.half;
    let a = x[low];
    let b = x[high];
    out[low] = a * c - b * s;
    out[high] = b * c + a * s;
}
