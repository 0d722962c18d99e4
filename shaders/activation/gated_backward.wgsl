// Gradients of a gated layer:
// dgate = dy * up * f'(gate)
// dup = dy * f(gate)
// The linked part defines f and f' in `activation_and_slope`.
// grid: n invocations, folded.
struct Params {
    n: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;          // [n]
@group(0) @binding(2) var<storage, read> gate: array<f32>;        // [n]
@group(0) @binding(3) var<storage, read> up: array<f32>;          // [n]
@group(0) @binding(4) var<storage, read_write> dgate: array<f32>; // [n]
@group(0) @binding(5) var<storage, read_write> dup: array<f32>;   // [n]

@compute @workgroup_size(64)
fn gated_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        let f = activation_and_slope(gate[i]);
        dgate[i] = dy[i] * up[i] * f.y;
        dup[i] = dy[i] * f.x;
    }
}
