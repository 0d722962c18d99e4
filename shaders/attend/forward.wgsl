// Attention of query tiles over three runs of keys: sink, packed, window. Online softmax (Milakov & Gimelshein, arXiv
// 1805.02867), blocks of keys as in FlashAttention (arXiv 2205.14135); saves the row log-sum-exp for the backward.
//
// A kv row holds Hk keys of d channels, then Hk values. Rows of raw wrap at `ring`. D4 = d / 4 is generated.
// grid: [n_tiles, Hk]; a lane is one (query, head of the group), so that all lanes read the same key at a time.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;         // [tokens, H, D4]
@group(0) @binding(2) var<storage, read> raw: array<vec4<f32>>;       // [rows, 2, Hk, D4]
@group(0) @binding(3) var<storage, read> packed: array<vec4<f32>>;    // [packed rows, 2, Hk, D4]
@group(0) @binding(4) var<storage, read> tiles: array<u32>;           // [n_tiles, 8]
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>; // [tokens, H, D4]
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;       // [tokens, H]

const BLOCK: u32 = 8u;
const LOWEST: f32 = -3.0e38;

var<private> query: array<vec4<f32>, D4>;
var<private> total: array<vec4<f32>, D4>;
var<private> top: f32 = LOWEST;
var<private> sum: f32 = 0.0;

// Folds the scores of a block into the running maximum and sum; returns the weights.
fn fold(scores: array<f32, BLOCK>) -> array<f32, BLOCK> {
    var new_top = top;
    for (var j = 0u; j < BLOCK; j++) {
        new_top = max(new_top, scores[j]);
    }
    let shrink = exp(clamp(top - new_top, -80.0, 0.0));
    top = new_top;
    sum *= shrink;
    for (var c = 0u; c < D4; c++) {
        total[c] *= shrink;
    }
    var weights: array<f32, BLOCK>;
    for (var j = 0u; j < BLOCK; j++) {
        // A masked key weighs exactly nothing, also while every key so far was masked.
        weights[j] = select(exp(clamp(scores[j] - new_top, -80.0, 0.0)), 0.0, scores[j] <= 0.5 * LOWEST);
        sum += weights[j];
    }
    return weights;
}

// Attends to `seen` of the `n` raw rows from `first`.
fn visit_raw(first: u32, n: u32, seen: u32, head: u32) {
    let values = p.n_kv_heads * D4;
    for (var start = 0u; start < n; start += BLOCK) {
        var scores: array<f32, BLOCK>;
        for (var j = 0u; j < BLOCK; j++) {
            let key = ((first + min(start + j, n - 1u)) % p.ring) * 2u * values + head * D4;
            var score = 0.0;
            for (var c = 0u; c < D4; c++) {
                score += dot(query[c], raw[key + c]);
            }
            scores[j] = select(LOWEST, score, start + j < seen);
        }
        let weights = fold(scores);
        for (var j = 0u; j < BLOCK; j++) {
            let value = ((first + min(start + j, n - 1u)) % p.ring) * 2u * values + values + head * D4;
            for (var c = 0u; c < D4; c++) {
                total[c] += weights[j] * raw[value + c];
            }
        }
    }
}

// Attends to all of the `n` packed rows from `first`.
fn visit_packed(first: u32, n: u32, head: u32) {
    let values = p.n_kv_heads * D4;
    for (var start = 0u; start < n; start += BLOCK) {
        var scores: array<f32, BLOCK>;
        for (var j = 0u; j < BLOCK; j++) {
            let key = (first + min(start + j, n - 1u)) * 2u * values + head * D4;
            var score = 0.0;
            for (var c = 0u; c < D4; c++) {
                score += dot(query[c], packed[key + c]);
            }
            scores[j] = select(LOWEST, score, start + j < n);
        }
        let weights = fold(scores);
        for (var j = 0u; j < BLOCK; j++) {
            let value = (first + min(start + j, n - 1u)) * 2u * values + values + head * D4;
            for (var c = 0u; c < D4; c++) {
                total[c] += weights[j] * packed[value + c];
            }
        }
    }
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = group.x * 8u;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_queries = tiles[tile + 1u];
    for (var r = lane; r < n_queries * group_size; r += 64u) {
        let row = (tiles[tile] + r / group_size) * p.n_heads + head * group_size + r % group_size;
        for (var c = 0u; c < D4; c++) {
            query[c] = q[row * D4 + c] * p.scale;
            total[c] = vec4<f32>(0.0);
        }
        top = LOWEST;
        sum = 0.0;
        visit_raw(tiles[tile + 2u], tiles[tile + 3u], tiles[tile + 3u], head);
        visit_packed(tiles[tile + 4u], tiles[tile + 5u], head);
        let n_window = tiles[tile + 7u];
        visit_raw(tiles[tile + 6u], n_window + n_queries - 1u, n_window + r / group_size, head);
        for (var c = 0u; c < D4; c++) {
            out[row * D4 + c] = total[c] / sum;
        }
        lse[row] = top + log(sum);
    }
}
