// Gradient of the queries: dq = scale * sum_j w_j (dout . v_j - delta) k_j with w_j = exp(s_j - lse), recomputed.
//
// Tiles and layouts as in attend/forward.wgsl.
// grid: [n_tiles, Hk]; a lane is one (query, head of the group).
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;        // [tokens, H, D4]
@group(0) @binding(2) var<storage, read> raw: array<vec4<f32>>;      // [rows, 2, Hk, D4]
@group(0) @binding(3) var<storage, read> packed: array<vec4<f32>>;   // [packed rows, 2, Hk, D4]
@group(0) @binding(4) var<storage, read> tiles: array<u32>;          // [n_tiles, 8]
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;     // [tokens, H, D4]
@group(0) @binding(6) var<storage, read> stats: array<f32>;          // [tokens, H, 2]
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>; // [tokens, H, D4]

var<private> query: array<vec4<f32>, D4>;
var<private> upstream: array<vec4<f32>, D4>;
var<private> total: array<vec4<f32>, D4>;

// Weight of a key times the slope of the loss in it.
fn slope(score: f32, along: f32, row: u32) -> f32 {
    return exp(clamp(score - stats[2u * row], -80.0, 1.0)) * (along - stats[2u * row + 1u]);
}

fn visit_raw(first: u32, n: u32, seen: u32, head: u32, row: u32) {
    let values = p.n_kv_heads * D4;
    for (var j = 0u; j < n; j++) {
        let key = ((first + j) % p.ring) * 2u * values + head * D4;
        var score = 0.0;
        var along = 0.0;
        for (var c = 0u; c < D4; c++) {
            score += dot(query[c], raw[key + c]);
            along += dot(upstream[c], raw[key + values + c]);
        }
        let w = select(0.0, slope(score, along, row), j < seen);
        for (var c = 0u; c < D4; c++) {
            total[c] += w * raw[key + c];
        }
    }
}

fn visit_packed(first: u32, n: u32, head: u32, row: u32) {
    let values = p.n_kv_heads * D4;
    for (var j = 0u; j < n; j++) {
        let key = (first + j) * 2u * values + head * D4;
        var score = 0.0;
        var along = 0.0;
        for (var c = 0u; c < D4; c++) {
            score += dot(query[c], packed[key + c]);
            along += dot(upstream[c], packed[key + values + c]);
        }
        let w = slope(score, along, row);
        for (var c = 0u; c < D4; c++) {
            total[c] += w * packed[key + c];
        }
    }
}

@compute @workgroup_size(64)
fn backward_query(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = group.x * 8u;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_queries = tiles[tile + 1u];
    for (var r = lane; r < n_queries * group_size; r += 64u) {
        let row = (tiles[tile] + r / group_size) * p.n_heads + head * group_size + r % group_size;
        for (var c = 0u; c < D4; c++) {
            query[c] = q[row * D4 + c] * p.scale;
            upstream[c] = dout[row * D4 + c];
            total[c] = vec4<f32>(0.0);
        }
        visit_raw(tiles[tile + 2u], tiles[tile + 3u], tiles[tile + 3u], head, row);
        visit_packed(tiles[tile + 4u], tiles[tile + 5u], head, row);
        let n_window = tiles[tile + 7u];
        visit_raw(tiles[tile + 6u], n_window + n_queries - 1u, n_window + r / group_size, head, row);
        for (var c = 0u; c < D4; c++) {
            dq[row * D4 + c] = total[c] * p.scale;
        }
    }
}
