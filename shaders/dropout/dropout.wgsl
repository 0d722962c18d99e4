// Dropout:
// out[i] = x[i] * scale where hash(key, first + i) >= threshold, else 0
// The mask depends only on key and first + i, so the backward recomputes it.
// grid: n invocations, folded.
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

@compute @workgroup_size(64)
fn dropout(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        out[i] = select(0.0, x[i] * p.scale, hash(i + p.first, p.seed, p.step, p.site) >= p.threshold);
    }
}
