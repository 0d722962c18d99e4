// Attention of single queries over one range of SPLIT keys. The ranges divide the sequence sink,
// kept, recent.
// For every query head:
// top = max_k score_k
// sum = sum_k e^(score_k - top)
// mixed = sum_k e^(score_k - top) v_k
// attend/combine.wgsl combines the ranges.
//
// Lanes first take keys, for the scores, then channels of every WAYS-th value. A workgroup
// processes G query heads of a KV head together, so that it reads each key once for all of them.
// The host generates G and SPLIT; d is at most 256.
// grid: [n_tiles, Hk, n_splits]; tiles of one query, see attend/tiles.wgsl. A range past the last
// key writes LOWEST, 0 and zeros.
// Source: online softmax, Milakov and Gimelshein, arXiv 1805.02867.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    n_splits: u32,
    scale: f32,
}

const GROUP: u32 = 64u;
const WAYS: u32 = GROUP / D4;
const LOWEST: f32 = -3.0e38;

@group(0) @binding(5) var<storage, read_write> stats: array<vec2<f32>>; // [n_tiles, n_splits, H, (top, sum)]
@group(0) @binding(6) var<storage, read_write> mixed: array<vec4<f32>>; // [n_tiles, n_splits, H, D4]

var<workgroup> weights: array<f32, G * SPLIT>;
var<workgroup> parts: array<vec4<f32>, G * GROUP>;

// Run and first quad of key i of the tile, counted over all three runs.
fn key_at(tile: u32, i: u32, head: u32) -> vec2<u32> {
    let n_sink = tiles[tile].n_sink;
    let n_older = n_sink + tiles[tile].n_kept;
    if i < n_sink {
        return vec2<u32>(0u, run_row(run_start(tile, 0u), 0u, i, head));
    }
    if i < n_older {
        return vec2<u32>(KEPT, run_row(run_start(tile, KEPT), KEPT, i - n_sink, head));
    }
    return vec2<u32>(RECENT, run_row(run_start(tile, RECENT), RECENT, i - n_older, head));
}

@compute @workgroup_size(GROUP)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let start = SPLIT * group.z;
    let n_keys = tiles[tile].n_sink + tiles[tile].n_kept + tiles[tile].n_recent;
    let n = min(max(n_keys, start) - start, SPLIT);
    let query = rows_of(tile, head, vec4<u32>(0u)).x;
    let out = (group.x * p.n_splits + group.z) * p.n_heads + head * group_size;
    for (var first = 0u; first < group_size; first += G) {
        var top: array<f32, G>;
        for (var h = 0u; h < G; h++) {
            top[h] = LOWEST;
        }
        for (var k = lane; k < n; k += GROUP) {
            let key = key_at(tile, start + k, head);
            var score: array<f32, G>;
            for (var c = 0u; c < D4; c++) {
                let x = load(key.x, key.y + c);
                for (var h = 0u; h < G; h++) {
                    score[h] += dot(q[(query + min(first + h, group_size - 1u)) * D4 + c], x);
                }
            }
            for (var h = 0u; h < G; h++) {
                let scaled = score[h] * p.scale;
                weights[h * SPLIT + k] = scaled;
                top[h] = max(top[h], scaled);
            }
        }
        for (var h = 0u; h < G; h++) {
            let highest = segment_max(top[h], lane, GROUP);
            var sum = 0.0;
            for (var k = lane; k < n; k += GROUP) {
                let w = exp(clamp(weights[h * SPLIT + k] - highest, -80.0, 0.0));
                weights[h * SPLIT + k] = w;
                sum += w;
            }
            sum = segment_sum(sum, lane, GROUP); // its barriers also make the weights visible to all lanes
            if lane == h && first + h < group_size {
                stats[out + first + h] = vec2<f32>(highest, sum);
            }
        }
        var total: array<vec4<f32>, G>;
        let way = lane / D4;
        if way < WAYS {
            for (var k = way; k < n; k += WAYS) {
                let key = key_at(tile, start + k, head);
                let x = load(key.x, key.y + p.n_kv_heads * D4 + lane % D4);
                for (var h = 0u; h < G; h++) {
                    total[h] += weights[h * SPLIT + k] * x;
                }
            }
        }
        for (var h = 0u; h < G; h++) {
            parts[h * GROUP + lane] = total[h];
        }
        workgroupBarrier();
        for (var i = lane; i < min(G, group_size - first) * D4; i += GROUP) {
            var x = vec4<f32>(0.0);
            for (var w = 0u; w < WAYS; w++) {
                x += parts[i / D4 * GROUP + w * D4 + i % D4];
            }
            mixed[(out + first) * D4 + i] = x;
        }
    }
}
