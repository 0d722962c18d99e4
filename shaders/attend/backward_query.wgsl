// Gradient of the queries:
// dq = scale * sum_j w_j (dout . v_j - delta) k_j with w_j = exp(s_j - lse)
// The scores s_j are recomputed.
//
// grid: [n_tiles, Hk]; one lane per row of the tile. attend/tiles.wgsl declares the tiles.
const LANES: u32 = 64u;

@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;     // [tokens, H, D4]
@group(0) @binding(6) var<storage, read> stats: array<f32>;          // [tokens, H, 2]
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>; // [tokens, H, D4]

@compute @workgroup_size(LANES)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    for (var r = lane; r < tiles[tile].n_queries * group_size; r += LANES) {
        let row = rows_of(tile, head, vec4<u32>(r)).x;
        var query: array<vec4<f32>, D4>;
        var upstream: array<vec4<f32>, D4>;
        var total: array<vec4<f32>, D4>;
        for (var c = 0u; c < D4; c++) {
            query[c] = q[row * D4 + c] * p.scale;
            upstream[c] = dout[row * D4 + c];
        }
        for (var run = 0u; run < 3u; run++) {
            let first = run_start(tile, run);
            let n = run_length(tile, run);
            let hidden = run_first(tile, run, vec4<u32>(r / group_size)).x;
            let seen = run_seen(tile, run, vec4<u32>(r / group_size)).x;
            for (var j = 0u; j < n; j++) {
                let key = run_row(first, run, j, head);
                let value = key + p.n_kv_heads * D4;
                var score = 0.0;
                var along = 0.0;
                for (var c = 0u; c < D4; c++) {
                    score += dot(query[c], load(run, key + c));
                    along += dot(upstream[c], load(run, value + c));
                }
                // Probability of the key times the gradient of its score.
                let slope = exp(clamp(score - stats[2u * row], -80.0, 1.0)) * (along - stats[2u * row + 1u]);
                let w = select(0.0, slope, j - hidden < seen);
                for (var c = 0u; c < D4; c++) {
                    total[c] += w * load(run, key + c);
                }
            }
        }
        for (var c = 0u; c < D4; c++) {
            dq[row * D4 + c] = total[c] * p.scale;
        }
    }
}
