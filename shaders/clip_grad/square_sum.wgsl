// First stage of the gradient norm: sums of squares of one arena slice, one partial sum per
// workgroup.
//
// partials[first + g] = sum of x[i]^2 over the 256-element blocks with index ≡ g (mod n_groups)
// grid: [n_groups].
struct Params {
    n: u32,        // elements of the slice
    n_groups: u32, // workgroups, and partial sums of this slice
    first: u32,    // index of the first partial sum of this slice
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;              // [n]
@group(0) @binding(2) var<storage, read_write> partials: array<f32>; // [all slices' partial sums]

@compute @workgroup_size(256)
fn square_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = group.x * TREE_LANES + lane; i < p.n; i += p.n_groups * TREE_LANES) {
        sum += x[i] * x[i];
    }
    sum = tree_sum(sum, lane);
    if lane == 0u {
        partials[p.first + group.x] = sum;
    }
}
