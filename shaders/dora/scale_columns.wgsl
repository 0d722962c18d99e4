// Columns scaled by their magnitude over their norm:
// out[r, c] = x[r, c] * magnitude[c] / norms[c]
// A norm below SMALLEST counts as SMALLEST, so that a column of zeros stays zero.
// grid: n invocations, folded.
// Source: Liu et al., arXiv 2402.09353.
struct Params {
    n: u32, // rows * cols
    cols: u32,
}

const SMALLEST: f32 = 1e-30;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [rows, cols]
@group(0) @binding(2) var<storage, read> magnitude: array<f32>; // [cols]
@group(0) @binding(3) var<storage, read> norms: array<f32>;     // [cols]
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [rows, cols]

@compute @workgroup_size(64)
fn scale_columns(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n {
        return;
    }
    let col = i % p.cols;
    out[i] = x[i] * (magnitude[col] / max(norms[col], SMALLEST));
}
