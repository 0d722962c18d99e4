// Attention of query tiles over three runs of keys: sink, kept, recent. It processes keys in blocks
// with an online softmax and saves the row log-sum-exp for the backward.
//
// grid: [n_tiles, Hk]; one lane per row of the tile, so all lanes read the same key at a time.
// attend/tiles.wgsl declares the tiles.
// Sources: online softmax, Milakov and Gimelshein, arXiv 1805.02867; blocks of keys,
// FlashAttention, arXiv 2205.14135.
const LANES: u32 = 64u;
const BLOCK: u32 = 4u;
const LOWEST: f32 = -3.0e38;

@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; // [tokens, H, D4]
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;       // [tokens, H]

@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    for (var r = lane; r < tiles[tile].n_queries * group_size; r += LANES) {
        let row = rows_of(tile, head, vec4<u32>(r)).x;
        var query: array<vec4<f32>, D4>;
        var total: array<vec4<f32>, D4>;
        for (var c = 0u; c < D4; c++) {
            query[c] = q[row * D4 + c] * p.scale;
        }
        var top = LOWEST;
        var sum = 0.0;
        for (var run = 0u; run < 3u; run++) {
            let first = run_start(tile, run);
            let n = run_length(tile, run);
            let hidden = run_first(tile, run, vec4<u32>(r / group_size)).x;
            let seen = run_seen(tile, run, vec4<u32>(r / group_size)).x;
            for (var start = 0u; start < n; start += BLOCK) {
                var scores: array<f32, BLOCK>;
                var highest = top;
                for (var j = 0u; j < BLOCK; j++) {
                    let key = run_row(first, run, min(start + j, n - 1u), head);
                    var score = 0.0;
                    for (var c = 0u; c < D4; c++) {
                        score += dot(query[c], load(run, key + c));
                    }
                    scores[j] = select(LOWEST, score, start + j - hidden < seen);
                    highest = max(highest, scores[j]);
                }
                let shrink = exp(clamp(top - highest, -80.0, 0.0));
                top = highest;
                sum *= shrink;
                for (var c = 0u; c < D4; c++) {
                    total[c] *= shrink;
                }
                for (var j = 0u; j < BLOCK; j++) {
                    // The weight of a masked key is exactly 0, even if all keys so far are masked.
                    let weight = exp(clamp(scores[j] - top, -80.0, 0.0));
                    let w = select(weight, 0.0, scores[j] <= 0.5 * LOWEST);
                    sum += w;
                    let value = run_row(first, run, min(start + j, n - 1u), head) + p.n_kv_heads * D4;
                    for (var c = 0u; c < D4; c++) {
                        total[c] += w * load(run, value + c);
                    }
                }
            }
        }
        for (var c = 0u; c < D4; c++) {
            out[row * D4 + c] = total[c] / sum;
        }
        lse[row] = top + log(sum);
    }
}
