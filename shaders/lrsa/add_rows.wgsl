// Adds consecutive rows of one buffer to those of another, each at any row:
// dst[to_first + i] += src[from_first + i]
//
// grid: one invocation per element.
struct Params {
    n: u32,          // rows * cols
    from_first: u32, // first element
    to_first: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<f32>;       // [rows, cols]
@group(0) @binding(2) var<storage, read_write> dst: array<f32>; // [rows, cols]

@compute @workgroup_size(64)
fn add_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        dst[p.to_first + i] += src[p.from_first + i];
    }
}
