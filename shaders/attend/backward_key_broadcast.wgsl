// Gradients of keys and values as in attend/backward_key.wgsl, by subgroups without workgroup memory: each lane loads one quad of a query
// and of its output's gradient, and the subgroup hands them round to lanes that have four keys each.
//
// Private arrays have a vec4 for each channel, whose components are the lane's keys. Subgroups of 8 lanes or more will do, whatever
// lanes they are made of. d is a multiple of 32.
// grid: [n_tiles, Hk]; see attend/backward_key.wgsl for the tiles.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;         // [tokens, H, D4]
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;      // [rows, 2, Hk, D4]
@group(0) @binding(3) var<storage, read> tiles: array<u32>;           // [n_tiles, 6]
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;      // [tokens, H, D4]
@group(0) @binding(5) var<storage, read> stats: array<f32>;           // [tokens, H, 2]
@group(0) @binding(6) var<storage, read_write> dkv: array<vec4<f32>>; // [rows, 2, Hk, D4]

const LANES: u32 = 16u;
const CHANNELS: u32 = 4u * D4;

var<private> key: array<vec4<f32>, CHANNELS>;
var<private> value: array<vec4<f32>, CHANNELS>;
var<private> dkey: array<vec4<f32>, CHANNELS>;
var<private> dvalue: array<vec4<f32>, CHANNELS>;

fn along_key(c: u32, x: vec4<f32>) -> vec4<f32> {
    return key[4u * c] * x.x + key[4u * c + 1u] * x.y + key[4u * c + 2u] * x.z + key[4u * c + 3u] * x.w;
}

fn along_value(c: u32, x: vec4<f32>) -> vec4<f32> {
    return value[4u * c] * x.x + value[4u * c + 1u] * x.y + value[4u * c + 2u] * x.z + value[4u * c + 3u] * x.w;
}

fn add_query(c: u32, w: vec4<f32>, x: vec4<f32>) {
    dkey[4u * c] += w * x.x;
    dkey[4u * c + 1u] += w * x.y;
    dkey[4u * c + 2u] += w * x.z;
    dkey[4u * c + 3u] += w * x.w;
}

fn add_upstream(c: u32, w: vec4<f32>, x: vec4<f32>) {
    dvalue[4u * c] += w * x.x;
    dvalue[4u * c + 1u] += w * x.y;
    dvalue[4u * c + 2u] += w * x.z;
    dvalue[4u * c + 3u] += w * x.w;
}

@compute @workgroup_size(LANES)
fn backward_key_broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                          @builtin(subgroup_invocation_id) place: u32) {
    let tile = 6u * group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_keys = tiles[tile + 1u];
    let quad = place % 8u;
    let own = vec4<u32>(4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
    let first_seen = vec4<u32>(tiles[tile + 2u]) + own / tiles[tile + 4u] * tiles[tile + 5u];
    // Out-of-range keys repeat the last one; only the store is guarded.
    let at = (vec4<u32>(tiles[tile]) + min(own, vec4<u32>(n_keys - 1u))) * (2u * p.n_kv_heads * D4) + head * D4;
    for (var i = 0u; i < 4u; i++) {
        for (var c = 0u; c < D4; c++) {
            let x = keys[at[i] + c] * p.scale;
            let y = keys[at[i] + p.n_kv_heads * D4 + c];
            for (var e = 0u; e < 4u; e++) {
                key[4u * c + e][i] = x[e];
                value[4u * c + e][i] = y[e];
            }
        }
    }
    for (var c = 0u; c < CHANNELS; c++) {
        dkey[c] = vec4<f32>(0.0);
        dvalue[c] = vec4<f32>(0.0);
    }
    for (var t = tiles[tile + 2u]; t < tiles[tile + 3u]; t++) {
        for (var g = 0u; g < group_size; g++) {
            let row = t * p.n_heads + head * group_size + g;
            var score = vec4<f32>(0.0);
            var along = vec4<f32>(0.0);
            for (var c = 0u; c < D4; c += 8u) {
                let x = q[row * D4 + c + quad];
                let y = dout[row * D4 + c + quad];
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
            let weight = exp(clamp(score - stats[2u * row], vec4<f32>(-80.0), vec4<f32>(1.0)));
            let w = select(vec4<f32>(0.0), weight, vec4<u32>(t) >= first_seen);
            let slope = w * (along - stats[2u * row + 1u]) * p.scale;
            for (var c = 0u; c < D4; c += 8u) {
                let x = q[row * D4 + c + quad];
                let y = dout[row * D4 + c + quad];
                add_upstream(c, w, subgroupBroadcast(y, 0u));
                add_upstream(c + 1u, w, subgroupBroadcast(y, 1u));
                add_upstream(c + 2u, w, subgroupBroadcast(y, 2u));
                add_upstream(c + 3u, w, subgroupBroadcast(y, 3u));
                add_upstream(c + 4u, w, subgroupBroadcast(y, 4u));
                add_upstream(c + 5u, w, subgroupBroadcast(y, 5u));
                add_upstream(c + 6u, w, subgroupBroadcast(y, 6u));
                add_upstream(c + 7u, w, subgroupBroadcast(y, 7u));
                add_query(c, slope, subgroupBroadcast(x, 0u));
                add_query(c + 1u, slope, subgroupBroadcast(x, 1u));
                add_query(c + 2u, slope, subgroupBroadcast(x, 2u));
                add_query(c + 3u, slope, subgroupBroadcast(x, 3u));
                add_query(c + 4u, slope, subgroupBroadcast(x, 4u));
                add_query(c + 5u, slope, subgroupBroadcast(x, 5u));
                add_query(c + 6u, slope, subgroupBroadcast(x, 6u));
                add_query(c + 7u, slope, subgroupBroadcast(x, 7u));
            }
        }
    }
    for (var i = 0u; i < 4u; i++) {
        if own[i] < n_keys {
            for (var c = 0u; c < D4; c++) {
                dkv[at[i] + c] = vec4<f32>(dkey[4u * c][i], dkey[4u * c + 1u][i], dkey[4u * c + 2u][i], dkey[4u * c + 3u][i]);
                dkv[at[i] + p.n_kv_heads * D4 + c] =
                    vec4<f32>(dvalue[4u * c][i], dvalue[4u * c + 1u][i], dvalue[4u * c + 2u][i], dvalue[4u * c + 3u][i]);
            }
        }
    }
}
