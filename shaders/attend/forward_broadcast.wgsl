// Attention of query tiles as in attend/forward.wgsl, by subgroups without workgroup memory. Each
// lane loads every eighth quad of a key or value and broadcasts it to the lanes of the subgroup.
// Each lane owns four rows.
//
// grid: [n_tiles, Hk]; see attend/tiles.wgsl for the tiles and attend/quads.wgsl for the
// broadcasts.
const LANES: u32 = 16u;
const BLOCK: u32 = max(1u, 32u / D4); // keys per step; bounds the unrolled code for large heads
const LOWEST: f32 = -3.0e38;

@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; // [tokens, H, D4]
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;       // [tokens, H]

var<private> query: Columns;
var<private> total: Columns;

@compute @workgroup_size(LANES)
fn forward_broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                     @builtin(subgroup_invocation_id) place: u32) {
    let tile = group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_rows = tiles[tile].n_queries * group_size;
    let quad = place % 8u;
    for (var first_row = 0u; first_row < n_rows; first_row += 4u * LANES) {
        let rows = vec4<u32>(first_row + 4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
        // No result depends on rows past the last one. But without this bound, Mesa 26.1 computes
        // NaN for other rows when naga checks indices.
        let at = rows_of(tile, head, min(rows, vec4<u32>(n_rows - 1u)));
        let n_columns = count_columns(rows.x, n_rows);
        for (var c = 0u; c < count_quads(); c++) {
            var x: mat4x4<f32>;
            for (var i = 0u; i < n_columns; i++) {
                x = with_quad(x, i, q[at[i] * D4 + c] * p.scale);
            }
            push(&query, x);
        }
        total = Columns();
        var top = vec4<f32>(LOWEST);
        var sum = vec4<f32>(0.0);
        for (var run = 0u; run < 3u; run++) {
            let first = run_start(tile, run);
            let n = run_length(tile, run);
            let hidden = run_first(tile, run, rows / group_size);
            let seen = run_seen(tile, run, rows / group_size);
            for (var start = 0u; start < n; start += BLOCK) {
                var scores: array<vec4<f32>, BLOCK>;
                var highest = top;
                for (var j = 0u; j < BLOCK; j++) {
                    let key = run_row(first, run, min(start + j, n - 1u), head);
                    let score = products(&query, own(run, key + quad));
                    scores[j] = select(vec4<f32>(LOWEST), score, vec4<u32>(start + j) - hidden < seen);
                    highest = max(highest, scores[j]);
                }
                let shrink = exp(clamp(top - highest, vec4<f32>(-80.0), vec4<f32>(0.0)));
                top = highest;
                sum *= shrink;
                scale_columns(&total, shrink);
                for (var j = 0u; j < BLOCK; j++) {
                    // The weight of a masked key is exactly 0, even if all keys so far are masked.
                    let weight = exp(clamp(scores[j] - top, vec4<f32>(-80.0), vec4<f32>(0.0)));
                    let w = select(weight, vec4<f32>(0.0), scores[j] <= vec4<f32>(0.5 * LOWEST));
                    sum += w;
                    let value = run_row(first, run, min(start + j, n - 1u), head) + p.n_kv_heads * D4;
                    add_weighed(&total, w, own(run, value + quad));
                }
            }
        }
        for (var c = 0u; c < count_quads(); c++) {
            let x = next(&total);
            for (var i = 0u; i < n_columns; i++) {
                out[at[i] * D4 + c] = quad_of(x, i) / sum[i];
            }
        }
        for (var i = 0u; i < n_columns; i++) {
            lse[at[i]] = top[i] + log(sum[i]);
        }
    }
}
