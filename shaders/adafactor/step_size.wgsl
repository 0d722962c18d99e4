// Adafactor: the step size of a tensor.
//
// step = max(least_scale, RMS of its values) * rho / max(1, RMS of its scaled gradient)
// grid: [1], one workgroup.
// Source: torch.optim.Adafactor with d = 1.
struct Params {
    n: u32,           // pairs of partial sums
    elements: u32,    // of the tensor
    rho: f32,         // min(lr, 1 / sqrt(t))
    least_scale: f32, // eps2
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;   // [n, 2]
@group(0) @binding(2) var<storage, read_write> step: array<f32>; // [1]

@compute @workgroup_size(256)
fn step_size(@builtin(local_invocation_index) lane: u32) {
    var updates = 0.0;
    var squares = 0.0;
    for (var i = lane; i < p.n; i += TREE_LANES) {
        updates += partials[2u * i];
        squares += partials[2u * i + 1u];
    }
    updates = tree_sum(updates, lane);
    squares = tree_sum(squares, lane);
    if lane == 0u {
        let scale = max(p.least_scale, sqrt(squares / f32(p.elements)));
        step[0] = scale * p.rho / max(1.0, sqrt(updates / f32(p.elements)));
    }
}
