// Copies consecutive rows:
// dst[to_first + i] = src[from_first + i]
//
// grid: one invocation per element. lrsa/move_rows.wgsl declares the buffers.
@compute @workgroup_size(64)
fn copy_rows(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i < p.n {
        dst[p.to_first + i] = src[p.from_first + i];
    }
}
