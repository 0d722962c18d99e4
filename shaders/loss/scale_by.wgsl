// x *= factor[0], element by element. The factor is a buffer on the device.
// grid: n invocations, folded.
struct Params {
    n: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> factor: array<f32>;  // [1]
@group(0) @binding(2) var<storage, read_write> x: array<f32>; // [n]

@compute @workgroup_size(256)
fn scale_by(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i < p.n {
        x[i] *= factor[0];
    }
}
