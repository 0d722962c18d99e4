// token[0] = the lowest i < n with the largest x[i].
// grid: [1], one workgroup.
struct Params {
    n: u32, // vocabulary
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // [n]
@group(0) @binding(2) var<storage, read_write> token: array<u32>; // [1]

var<workgroup> best: array<u32, 256>;

@compute @workgroup_size(256)
fn argmax(@builtin(local_invocation_index) lane: u32) {
    var at = p.n - 1u;
    var highest = -3.0e38;
    for (var i = lane; i < p.n; i += TREE_LANES) {
        let value = x[i];
        if value > highest {
            highest = value;
            at = i;
        }
    }
    let peak = tree_max(highest, lane);
    best[lane] = select(p.n - 1u, at, highest >= peak);
    workgroupBarrier();
    if lane == 0u {
        var lowest = p.n - 1u;
        for (var l = 0u; l < TREE_LANES; l++) {
            lowest = min(lowest, best[l]);
        }
        token[0] = lowest;
    }
}
