// Rotates keys by their positions and concatenates the unchanged values:
// out[t] = [rope(k[t]), v[t]]
// See rope/rope.wgsl for the rotation.
// grid: tokens * heads * (d - r/2) invocations, folded; each writes a pair of keys and a pair of
// values, or a key and a value that pass.
struct Params {
    tokens: u32,
    heads: u32,
    half: u32, // r / 2, the rotating pairs of a head
    rest: u32, // d - r, the channels of a head that pass
    direction: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> k: array<f32>;         // [tokens, heads * d]
@group(0) @binding(2) var<storage, read> v: array<f32>;         // [tokens, heads * d]
@group(0) @binding(3) var<storage, read> cos_table: array<f32>; // [positions, r / 2]
@group(0) @binding(4) var<storage, read> sin_table: array<f32>; // [positions, r / 2]
@group(0) @binding(5) var<storage, read> positions: array<u32>; // [tokens]
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // [tokens, 2 * heads * d]

@compute @workgroup_size(64)
fn rope_kv(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let n = linear_index(id, n_groups, 64u);
    let lanes = p.half + p.rest; // one for each pair, then one for each channel that passes
    let i = n % lanes;
    let head = n / lanes; // counted over all tokens
    let token = head / p.heads;
    if token >= p.tokens {
        return;
    }
    let head_dim = 2u * p.half + p.rest;
    let width = p.heads * head_dim;
    let first = head * head_dim;
    let row = token * width; // rows of out are twice as wide
    if i >= p.half {
        let at = first + p.half + i;
        out[row + at] = k[at];
        out[row + at + width] = v[at];
        return;
    }
    let angle = positions[token] * p.half + i;
    let c = cos_table[angle];
    let s = sin_table[angle] * p.direction;
    let low = first + i;
    let high = low + p.half;
    let out_low = row + low;
    let out_high = out_low + p.half;
    let a = k[low];
    let b = k[high];
    out[out_low] = a * c - b * s;
    out[out_high] = b * c + a * s;
    out[out_low + width] = v[low];
    out[out_high + width] = v[high];
}
