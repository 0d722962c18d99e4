// Gradient of the queries as in attend/backward_query.wgsl, by subgroups without workgroup memory: see attend/forward_broadcast.wgsl for how
// lanes share rows and quads.
//
// grid: [n_tiles, Hk]; see attend/tiles.wgsl for the tiles.
const LANES: u32 = 16u;

@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;     // [tokens, H, D4]
@group(0) @binding(6) var<storage, read> stats: array<f32>;          // [tokens, H, 2]
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>; // [tokens, H, D4]

var<private> query: array<vec4<f32>, CHANNELS>;
var<private> upstream: array<vec4<f32>, CHANNELS>;
var<private> total: array<vec4<f32>, CHANNELS>;

fn along_key(c: u32, x: vec4<f32>) -> vec4<f32> {
    return query[4u * c] * x.x + query[4u * c + 1u] * x.y + query[4u * c + 2u] * x.z + query[4u * c + 3u] * x.w;
}

fn along_value(c: u32, x: vec4<f32>) -> vec4<f32> {
    return upstream[4u * c] * x.x + upstream[4u * c + 1u] * x.y + upstream[4u * c + 2u] * x.z + upstream[4u * c + 3u] * x.w;
}

fn add_key(c: u32, w: vec4<f32>, x: vec4<f32>) {
    total[4u * c] += w * x.x;
    total[4u * c + 1u] += w * x.y;
    total[4u * c + 2u] += w * x.z;
    total[4u * c + 3u] += w * x.w;
}

@compute @workgroup_size(LANES)
fn backward_query_broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                            @builtin(subgroup_invocation_id) place: u32) {
    let tile = 8u * group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_rows = tiles[tile + 1u] * group_size;
    let quad = place % 8u;
    for (var first_row = 0u; first_row < n_rows; first_row += 4u * LANES) {
        let rows = vec4<u32>(first_row + 4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
        let at = rows_of(tile, head, min(rows, vec4<u32>(n_rows - 1u)));
        for (var i = 0u; i < 4u; i++) {
            for (var c = 0u; c < D4; c++) {
                let x = q[at[i] * D4 + c] * p.scale;
                let y = dout[at[i] * D4 + c];
                for (var e = 0u; e < 4u; e++) {
                    query[4u * c + e][i] = x[e];
                    upstream[4u * c + e][i] = y[e];
                }
            }
        }
        for (var c = 0u; c < CHANNELS; c++) {
            total[c] = vec4<f32>(0.0);
        }
        let lse = vec4<f32>(stats[2u * at.x], stats[2u * at.y], stats[2u * at.z], stats[2u * at.w]);
        let delta = vec4<f32>(stats[2u * at.x + 1u], stats[2u * at.y + 1u], stats[2u * at.z + 1u], stats[2u * at.w + 1u]);
        for (var run = 0u; run < 3u; run++) {
            let first = run_start(tile, run);
            let n = run_length(tile, run);
            let seen = run_seen(tile, run, rows / group_size);
            for (var j = 0u; j < n; j++) {
                let key = run_row(first, run, j, head);
                let value = key + p.n_kv_heads * D4;
                var score = vec4<f32>(0.0);
                var along = vec4<f32>(0.0);
                for (var c = 0u; c < D4; c += 8u) {
                    let x = load(run, key + c + quad);
                    let y = load(run, value + c + quad);
                    // The lane must be a constant.
                    score += along_key(c, subgroupBroadcast(x, 0u));
                    score += along_key(c + 1u, subgroupBroadcast(x, 1u));
                    score += along_key(c + 2u, subgroupBroadcast(x, 2u));
                    score += along_key(c + 3u, subgroupBroadcast(x, 3u));
                    score += along_key(c + 4u, subgroupBroadcast(x, 4u));
                    score += along_key(c + 5u, subgroupBroadcast(x, 5u));
                    score += along_key(c + 6u, subgroupBroadcast(x, 6u));
                    score += along_key(c + 7u, subgroupBroadcast(x, 7u));
                    along += along_value(c, subgroupBroadcast(y, 0u));
                    along += along_value(c + 1u, subgroupBroadcast(y, 1u));
                    along += along_value(c + 2u, subgroupBroadcast(y, 2u));
                    along += along_value(c + 3u, subgroupBroadcast(y, 3u));
                    along += along_value(c + 4u, subgroupBroadcast(y, 4u));
                    along += along_value(c + 5u, subgroupBroadcast(y, 5u));
                    along += along_value(c + 6u, subgroupBroadcast(y, 6u));
                    along += along_value(c + 7u, subgroupBroadcast(y, 7u));
                }
                // Probability of the key times the slope of the loss in its score.
                let slope = exp(clamp(score - lse, vec4<f32>(-80.0), vec4<f32>(1.0))) * (along - delta);
                let w = select(vec4<f32>(0.0), slope, vec4<u32>(j) < seen);
                for (var c = 0u; c < D4; c += 8u) {
                    let x = load(run, key + c + quad);
                    add_key(c, w, subgroupBroadcast(x, 0u));
                    add_key(c + 1u, w, subgroupBroadcast(x, 1u));
                    add_key(c + 2u, w, subgroupBroadcast(x, 2u));
                    add_key(c + 3u, w, subgroupBroadcast(x, 3u));
                    add_key(c + 4u, w, subgroupBroadcast(x, 4u));
                    add_key(c + 5u, w, subgroupBroadcast(x, 5u));
                    add_key(c + 6u, w, subgroupBroadcast(x, 6u));
                    add_key(c + 7u, w, subgroupBroadcast(x, 7u));
                }
            }
        }
        for (var i = 0u; i < 4u; i++) {
            if rows[i] < n_rows {
                for (var c = 0u; c < D4; c++) {
                    let x = vec4<f32>(total[4u * c][i], total[4u * c + 1u][i], total[4u * c + 2u][i], total[4u * c + 3u][i]);
                    dq[at[i] * D4 + c] = x * p.scale;
                }
            }
        }
    }
}
