// Gradients of keys and values as in attend/backward_key.wgsl, by subgroups without workgroup
// memory. Each lane loads every eighth quad of a query and of dout, and broadcasts them to the
// lanes of the subgroup. Each lane owns four keys.
//
// grid: [n_tiles, Hk]; see attend/key_tiles.wgsl for the tiles and attend/quads.wgsl for the
// broadcasts.
const LANES: u32 = 16u;

var<private> key: Columns;
var<private> value: Columns;
var<private> dkey: Columns; // initially zero
var<private> dvalue: Columns;

@compute @workgroup_size(LANES)
fn backward_key_broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                          @builtin(subgroup_invocation_id) place: u32) {
    let tile = group.x;
    let head = group.y;
    let group_size = p.n_heads / p.n_kv_heads;
    let n_keys = tiles[tile].n_keys;
    let quad = place % 8u;
    let own = vec4<u32>(4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
    let seen_from = first_seen(tile, own);
    let width = vec4<u32>(tiles[tile].width);
    // Keys past the end load zeros, and their results are never stored.
    let n_columns = count_columns(own.x, n_keys);
    let at = (vec4<u32>(tiles[tile].key) + own) * (2u * p.n_kv_heads * D4) + head * D4;
    for (var c = 0u; c < count_quads(); c++) {
        var x: mat4x4<f32>;
        var y: mat4x4<f32>;
        for (var i = 0u; i < n_columns; i++) {
            x = with_quad(x, i, keys[at[i] + c] * p.scale);
            y = with_quad(y, i, keys[at[i] + p.n_kv_heads * D4 + c]);
        }
        push(&key, x);
        push(&value, y);
    }
    for (var t = tiles[tile].query; t < tiles[tile].query_end; t++) {
        for (var g = 0u; g < group_size; g++) {
            let row = t * p.n_heads + head * group_size + g;
            var x: Own;
            var y: Own;
            for (var i = 0u; i < OWN_QUADS; i++) {
                x[i] = q[row * D4 + quad + 8u * i];
                y[i] = dout[row * D4 + quad + 8u * i];
            }
            let score = products(&key, x);
            let along = products(&value, y);
            let weight = exp(clamp(score - stats[2u * row], vec4<f32>(-80.0), vec4<f32>(1.0)));
            let w = select(vec4<f32>(0.0), weight, vec4<u32>(t) - seen_from < width);
            let slope = w * (along - stats[2u * row + 1u]) * p.scale;
            add_weighed(&dvalue, w, y);
            add_weighed(&dkey, slope, x);
        }
    }
    for (var c = 0u; c < count_quads(); c++) {
        let x = next(&dkey);
        let y = next(&dvalue);
        for (var i = 0u; i < n_columns; i++) {
            dkv[at[i] + c] = quad_of(x, i);
            dkv[at[i] + p.n_kv_heads * D4 + c] = quad_of(y, i);
        }
    }
}
