// Shared declarations of the kernels over key tiles: parameters, inputs and the output.
//
// Key i of a tile is visible from query - before + i / run * step on. For recent keys, key i is
// visible from query i on. For kept keys, all keys of a partition are visible from the same query
// on.
struct KeyTile {
    key: u32,       // first key row
    n_keys: u32,
    query: u32,     // first query row of the tile
    before: u32,    // queries before it for which the first key was visible; 0 in a batch
    query_end: u32, // end of the query rows (exclusive)
    run: u32,
    step: u32,
    width: u32,     // maximum number of queries that see a key; 2^31 for no limit
}

struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;         // [tokens, H, D4]
@group(0) @binding(2) var<storage, read> keys: array<vec4<f32>>;      // [rows, 2, Hk, D4]
@group(0) @binding(3) var<storage, read> tiles: array<KeyTile>;       // [n_tiles]
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;      // [tokens, H, D4]
@group(0) @binding(5) var<storage, read> stats: array<f32>;           // [tokens, H, 2]
@group(0) @binding(6) var<storage, read_write> dkv: array<vec4<f32>>; // [rows, 2, Hk, D4]

// The first query that sees each of four keys of a tile. It wraps below 0 for keys that were visible
// before the tile; t - first_seen is right for every query t of the tile even so.
fn first_seen(tile: u32, keys: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(tiles[tile].query - tiles[tile].before) + keys / tiles[tile].run * tiles[tile].step;
}
