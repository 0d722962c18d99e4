// NEFTune's noise of the embeddings:
// out[t, c] = x[t, c] + magnitude[t] * u, with u uniform in [-1, 1)
// u depends only on key and (first + t) * cols + c.
// grid: rows * cols invocations, folded.
// Source: Jain et al., arXiv 2310.05914.
struct Params {
    n: u32, // rows * cols
    cols: u32,
    seed: u32,
    step: u32,
    site: u32,
    first: u32, // index of the first element
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;          // [rows, cols]
@group(0) @binding(2) var<storage, read> magnitudes: array<f32>; // [rows]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;  // [rows, cols]

@compute @workgroup_size(64)
fn add_noise(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        // 24 bits are exact in f32.
        let u = f32(hash(i + p.first, p.seed, p.step, p.site) >> 8u) / 8388608.0 - 1.0;
        out[i] = x[i] + magnitudes[i / p.cols] * u;
    }
}
