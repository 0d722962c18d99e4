// Gradients of keys and values:
// dv_j = sum_t w_tj dout_t
// dk_j = scale * sum_t w_tj (dout_t . v_j - delta_t) q_t
// The sums run over the queries t that see key j and over the g query heads of its group, in a
// fixed order. No atomics.
//
// grid: [n_tiles, Hk]; one lane per key, so all lanes read the same query at a time.
// attend/key_tiles.wgsl declares the tiles.
@compute @workgroup_size(64)
fn backward_key(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let values = p.n_kv_heads * D4;
    if lane >= tiles[tile].n_keys {
        return;
    }
    let at = (tiles[tile].key + lane) * 2u * values + head * D4;
    let seen_from = first_seen(tile, vec4<u32>(lane)).x;
    let width = tiles[tile].width;
    var key: array<vec4<f32>, D4>;
    var value: array<vec4<f32>, D4>;
    var dkey: array<vec4<f32>, D4>;
    var dvalue: array<vec4<f32>, D4>;
    for (var c = 0u; c < D4; c++) {
        key[c] = keys[at + c] * p.scale;
        value[c] = keys[at + values + c];
    }
    for (var t = tiles[tile].query; t < tiles[tile].query_end; t++) {
        for (var g = 0u; g < group_size; g++) {
            let row = t * p.n_heads + head * group_size + g;
            var score = 0.0;
            var along = 0.0;
            for (var c = 0u; c < D4; c++) {
                score += dot(q[row * D4 + c], key[c]);
                along += dot(dout[row * D4 + c], value[c]);
            }
            let w = select(0.0, exp(clamp(score - stats[2u * row], -80.0, 1.0)), t - seen_from < width);
            let slope = w * (along - stats[2u * row + 1u]) * p.scale;
            for (var c = 0u; c < D4; c++) {
                dvalue[c] += w * dout[row * D4 + c];
                dkey[c] += slope * q[row * D4 + c];
            }
        }
    }
    for (var c = 0u; c < D4; c++) {
        dkv[at + c] = dkey[c];
        dkv[at + values + c] = dvalue[c];
    }
}
