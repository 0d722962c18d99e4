// Gated layer, element by element:
// out = f(gate) * up
// The linked activation part defines f.
// grid: n invocations, folded.
// Source: Shazeer, arXiv 2002.05202.
struct Params {
    n: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gate: array<f32>;      // [n]
@group(0) @binding(2) var<storage, read> up: array<f32>;        // [n]
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [n]

@compute @workgroup_size(64)
fn gated(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        out[i] = activation(gate[i]) * up[i];
    }
}
