// Adafactor: the divisor of the factored second moments.
//
// divisor = max(mean of row_var, floor)
// grid: [1], one workgroup.
// Source: torch.optim.Adafactor.
struct Params {
    rows: u32,
    floor: f32, // eps1
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> row_var: array<f32>;       // [rows]
@group(0) @binding(2) var<storage, read_write> divisor: array<f32>; // [1]

@compute @workgroup_size(256)
fn divisor_of_rows(@builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < p.rows; i += TREE_LANES) {
        sum += row_var[i];
    }
    sum = tree_sum(sum, lane);
    if lane == 0u {
        divisor[0] = max(sum / f32(p.rows), p.floor);
    }
}
