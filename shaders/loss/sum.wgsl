// out[0] = scale * sum_{i < n} x[i], in a fixed order.
// grid: [1], one workgroup.
struct Params {
    n: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [n]
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // [1]

@compute @workgroup_size(256)
fn sum(@builtin(local_invocation_index) lane: u32) {
    var part = 0.0;
    for (var i = lane; i < p.n; i += TREE_LANES) {
        part += x[i];
    }
    part = tree_sum(part, lane);
    if lane == 0u {
        out[0] = p.scale * part;
    }
}
