// Attention of query tiles over three runs of keys as in attend/forward.wgsl, by subgroups without workgroup memory: each lane loads
// one quad of a key or value, and the subgroup hands them round to lanes that have four rows each.
//
// Private arrays have a vec4 for each channel, whose components are the lane's rows. Subgroups of 8 lanes or more will do, whatever
// lanes they are made of. d is a multiple of 32.
// grid: [n_tiles, Hk]; see attend/tiles.wgsl for the tiles.
const LANES: u32 = 16u;
const BLOCK: u32 = 4u;
const LOWEST: f32 = -3.0e38;

@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; // [tokens, H, D4]
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;       // [tokens, H]

var<private> query: array<vec4<f32>, CHANNELS>;
var<private> total: array<vec4<f32>, CHANNELS>;

// Products of the rows with one quad of a key.
fn along_key(c: u32, x: vec4<f32>) -> vec4<f32> {
    return query[4u * c] * x.x + query[4u * c + 1u] * x.y + query[4u * c + 2u] * x.z + query[4u * c + 3u] * x.w;
}

// Adds one quad of a value, weighed for each row.
fn add_value(c: u32, w: vec4<f32>, x: vec4<f32>) {
    total[4u * c] += w * x.x;
    total[4u * c + 1u] += w * x.y;
    total[4u * c + 2u] += w * x.z;
    total[4u * c + 3u] += w * x.w;
}

@compute @workgroup_size(LANES)
fn forward_broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                     @builtin(subgroup_invocation_id) place: u32) {
    let tile = 8u * group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_rows = tiles[tile + 1u] * group_size;
    let quad = place % 8u;
    for (var first_row = 0u; first_row < n_rows; first_row += 4u * LANES) {
        let rows = vec4<u32>(first_row + 4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
        let at = rows_of(tile, head, min(rows, vec4<u32>(n_rows - 1u)));
        for (var c = 0u; c < D4; c++) {
            let x0 = q[at.x * D4 + c] * p.scale;
            let x1 = q[at.y * D4 + c] * p.scale;
            let x2 = q[at.z * D4 + c] * p.scale;
            let x3 = q[at.w * D4 + c] * p.scale;
            query[4u * c] = vec4<f32>(x0.x, x1.x, x2.x, x3.x);
            query[4u * c + 1u] = vec4<f32>(x0.y, x1.y, x2.y, x3.y);
            query[4u * c + 2u] = vec4<f32>(x0.z, x1.z, x2.z, x3.z);
            query[4u * c + 3u] = vec4<f32>(x0.w, x1.w, x2.w, x3.w);
        }
        for (var c = 0u; c < CHANNELS; c++) {
            total[c] = vec4<f32>(0.0);
        }
        var top = vec4<f32>(LOWEST);
        var sum = vec4<f32>(0.0);
        for (var run = 0u; run < 3u; run++) {
            let first = run_start(tile, run);
            let n = run_length(tile, run);
            let seen = run_seen(tile, run, rows / group_size);
            for (var start = 0u; start < n; start += BLOCK) {
                var scores: array<vec4<f32>, BLOCK>;
                var highest = top;
                for (var j = 0u; j < BLOCK; j++) {
                    let key = run_row(first, run, min(start + j, n - 1u), head);
                    var score = vec4<f32>(0.0);
                    for (var c = 0u; c < D4; c += 8u) {
                        let x = load(run, key + c + quad);
                        // The lane must be a constant.
                        score += along_key(c, subgroupBroadcast(x, 0u));
                        score += along_key(c + 1u, subgroupBroadcast(x, 1u));
                        score += along_key(c + 2u, subgroupBroadcast(x, 2u));
                        score += along_key(c + 3u, subgroupBroadcast(x, 3u));
                        score += along_key(c + 4u, subgroupBroadcast(x, 4u));
                        score += along_key(c + 5u, subgroupBroadcast(x, 5u));
                        score += along_key(c + 6u, subgroupBroadcast(x, 6u));
                        score += along_key(c + 7u, subgroupBroadcast(x, 7u));
                    }
                    scores[j] = select(vec4<f32>(LOWEST), score, vec4<u32>(start + j) < seen);
                    highest = max(highest, scores[j]);
                }
                let shrink = exp(clamp(top - highest, vec4<f32>(-80.0), vec4<f32>(0.0)));
                top = highest;
                sum *= shrink;
                for (var c = 0u; c < CHANNELS; c++) {
                    total[c] *= shrink;
                }
                for (var j = 0u; j < BLOCK; j++) {
                    // A masked key weighs exactly nothing, also while every key so far was masked.
                    let weight = exp(clamp(scores[j] - top, vec4<f32>(-80.0), vec4<f32>(0.0)));
                    let w = select(weight, vec4<f32>(0.0), scores[j] <= vec4<f32>(0.5 * LOWEST));
                    sum += w;
                    let value = run_row(first, run, min(start + j, n - 1u), head) + p.n_kv_heads * D4;
                    for (var c = 0u; c < D4; c += 8u) {
                        let x = load(run, value + c + quad);
                        add_value(c, w, subgroupBroadcast(x, 0u));
                        add_value(c + 1u, w, subgroupBroadcast(x, 1u));
                        add_value(c + 2u, w, subgroupBroadcast(x, 2u));
                        add_value(c + 3u, w, subgroupBroadcast(x, 3u));
                        add_value(c + 4u, w, subgroupBroadcast(x, 4u));
                        add_value(c + 5u, w, subgroupBroadcast(x, 5u));
                        add_value(c + 6u, w, subgroupBroadcast(x, 6u));
                        add_value(c + 7u, w, subgroupBroadcast(x, 7u));
                    }
                }
            }
        }
        for (var i = 0u; i < 4u; i++) {
            if rows[i] < n_rows {
                for (var c = 0u; c < D4; c++) {
                    let x = vec4<f32>(total[4u * c][i], total[4u * c + 1u][i], total[4u * c + 2u][i], total[4u * c + 3u][i]);
                    out[at[i] * D4 + c] = x / sum[i];
                }
                lse[at[i]] = top[i] + log(sum[i]);
            }
        }
    }
}
