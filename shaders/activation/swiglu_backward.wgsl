// Gradients of SwiGLU, with s = 1 / (1 + exp(-gate)):
// dgate = dy * up * s * (1 + gate * (1 - s)),  dup = dy * gate * s.
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
fn swiglu_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        let g = gate[i];
        let s = 1.0 / (1.0 + exp(-clamp(g, -80.0, 80.0)));
        dgate[i] = dy[i] * up[i] * (s * (1.0 + g * (1.0 - s)));
        dup[i] = dy[i] * (g * s);
    }
}
