// Dropout:
// out[i] = x[i] * scale where hash(key, first + i) >= threshold, else 0
// The mask depends only on key and first + i, so the backward recomputes it.
// grid: n invocations, folded.
// Source of the hash: two rounds of the four-word PCG of Jarzynski and Olano, "Hash Functions for
// GPU Rendering", JCGT 9(3), 2020.
struct Params {
    n: u32,
    threshold: u32, // p * 2^32
    scale: f32,     // 1 / (1 - p)
    seed: u32,
    step: u32,
    site: u32,
    first: u32,     // index of the first element
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [n]
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // [n]

fn mixed(words: vec4<u32>) -> vec4<u32> {
    var v = words;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

fn hash(i: u32) -> u32 {
    let v = mixed(vec4<u32>(i + p.first, p.seed, p.step, p.site) * 1664525u + 1013904223u);
    return mixed(v ^ (v >> vec4<u32>(16u))).x;
}

@compute @workgroup_size(64)
fn dropout(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        out[i] = select(0.0, x[i] * p.scale, hash(i) >= p.threshold);
    }
}
