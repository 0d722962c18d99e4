// Combines the key ranges of attend/decode.wgsl, with T the maximum of their tops:
// out = Σ e^(top - T) mixed / Σ e^(top - T) sum
// lse = T + log Σ e^(top - T) sum
//
// Each lane takes one quad of channels of every WAYS-th range; d is at most 256.
// grid: [n_tiles, H]; tiles of one query.
struct Params {
    n_heads: u32, // H
    n_splits: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;     // [n_tiles, n_splits, H, (top, sum)]
@group(0) @binding(2) var<storage, read> mixed: array<vec4<f32>>;     // [n_tiles, n_splits, H, D4]
@group(0) @binding(3) var<storage, read> tiles: array<QueryTile>;     // [n_tiles]
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>; // [tokens, H, D4]
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;       // [tokens, H]

const GROUP: u32 = 64u;
const WAYS: u32 = GROUP / D4;
const LOWEST: f32 = -3.0e38;

var<workgroup> parts: array<vec4<f32>, GROUP>;

@compute @workgroup_size(GROUP)
fn combine(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * p.n_splits * p.n_heads + group.y;
    let row = tiles[group.x].query * p.n_heads + group.y;
    var top = LOWEST;
    for (var s = lane; s < p.n_splits; s += GROUP) {
        top = max(top, stats[first + s * p.n_heads].x);
    }
    top = segment_max(top, lane, GROUP);
    var sum = 0.0;
    for (var s = lane; s < p.n_splits; s += GROUP) {
        let range = stats[first + s * p.n_heads];
        sum += exp(clamp(range.x - top, -80.0, 0.0)) * range.y;
    }
    sum = segment_sum(sum, lane, GROUP);
    var total = vec4<f32>(0.0);
    let way = lane / D4;
    if way < WAYS {
        for (var s = way; s < p.n_splits; s += WAYS) {
            let at = first + s * p.n_heads;
            total += exp(clamp(stats[at].x - top, -80.0, 0.0)) * mixed[at * D4 + lane % D4];
        }
    }
    parts[lane] = total;
    workgroupBarrier();
    if lane < D4 {
        var x = vec4<f32>(0.0);
        for (var w = 0u; w < WAYS; w++) {
            x += parts[w * D4 + lane];
        }
        out[row * D4 + lane] = x / sum;
    }
    if lane == 0u {
        lse[row] = top + log(sum);
    }
}
