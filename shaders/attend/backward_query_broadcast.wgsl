// Gradient of the queries as in attend/backward_query.wgsl, by subgroups without workgroup memory
// as in attend/forward_broadcast.wgsl.
//
// grid: [n_tiles, Hk]; see attend/tiles.wgsl for the tiles and attend/quads.wgsl for the
// broadcasts.
const LANES: u32 = 16u;

@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;     // [tokens, H, D4]
@group(0) @binding(6) var<storage, read> stats: array<f32>;          // [tokens, H, 2]
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>; // [tokens, H, D4]

var<private> query: Columns;
var<private> upstream: Columns;
var<private> total: Columns;

@compute @workgroup_size(LANES)
fn backward_query_broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                            @builtin(subgroup_invocation_id) place: u32) {
    let tile = group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_rows = tiles[tile].n_queries * group_size;
    let quad = place % 8u;
    for (var first_row = 0u; first_row < n_rows; first_row += 4u * LANES) {
        let rows = vec4<u32>(first_row + 4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
        let at = rows_of(tile, head, min(rows, vec4<u32>(n_rows - 1u)));
        let n_columns = count_columns(rows.x, n_rows);
        for (var c = 0u; c < count_quads(); c++) {
            var x: mat4x4<f32>;
            var y: mat4x4<f32>;
            for (var i = 0u; i < n_columns; i++) {
                x = with_quad(x, i, q[at[i] * D4 + c] * p.scale);
                y = with_quad(y, i, dout[at[i] * D4 + c]);
            }
            push(&query, x);
            push(&upstream, y);
        }
        total = Columns();
        let lse = vec4<f32>(stats[2u * at.x], stats[2u * at.y], stats[2u * at.z], stats[2u * at.w]);
        let delta = vec4<f32>(stats[2u * at.x + 1u], stats[2u * at.y + 1u], stats[2u * at.z + 1u], stats[2u * at.w + 1u]);
        for (var run = 0u; run < 3u; run++) {
            let first = run_start(tile, run);
            let n = run_length(tile, run);
            let hidden = run_first(tile, run, rows / group_size);
            let seen = run_seen(tile, run, rows / group_size);
            for (var j = 0u; j < n; j++) {
                let key = run_row(first, run, j, head);
                let value = key + p.n_kv_heads * D4;
                let x = own(run, key + quad);
                let score = products(&query, x);
                let along = products(&upstream, own(run, value + quad));
                // Probability of the key times the gradient of its score.
                let slope = exp(clamp(score - lse, vec4<f32>(-80.0), vec4<f32>(1.0))) * (along - delta);
                let w = select(vec4<f32>(0.0), slope, vec4<u32>(j) - hidden < seen);
                add_weighed(&total, w, x);
            }
        }
        for (var c = 0u; c < count_quads(); c++) {
            let x = next(&total);
            for (var i = 0u; i < n_columns; i++) {
                dq[at[i] * D4 + c] = quad_of(x, i) * p.scale;
            }
        }
    }
}
