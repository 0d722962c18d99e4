// Shared declarations of the kernels over query tiles: inputs, and the three runs of keys of a
// tile. The linking kernel declares Params.
//
// A row of a tile (see attend/query_tile.wgsl) is a pair of a query and a head of the group; the
// head index varies fastest. A kv row holds Hk keys of d channels, then Hk values. The host
// generates D4 = d / 4. Recent rows wrap at `ring`.
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;      // [tokens, H, D4]
@group(0) @binding(2) var<storage, read> recent: array<vec4<f32>>; // [rows, 2, Hk, D4]
@group(0) @binding(3) var<storage, read> kept: array<vec4<f32>>;   // [kept rows, 2, Hk, D4]
@group(0) @binding(4) var<storage, read> tiles: array<QueryTile>;  // [n_tiles]

const KEPT: u32 = 1u;
const RECENT: u32 = 2u;

// Indices of tile rows in [tokens, H].
fn rows_of(tile: u32, head: u32, rows: vec4<u32>) -> vec4<u32> {
    let group_size = p.n_heads / p.n_kv_heads;
    return (vec4<u32>(tiles[tile].query) + rows / group_size) * p.n_heads + head * group_size + rows % group_size;
}

// First row of a run.
fn run_start(tile: u32, run: u32) -> u32 {
    return select(select(tiles[tile].sink, tiles[tile].kept, run == KEPT), tiles[tile].recent, run == RECENT);
}

// Number of rows of a run that the first query sees.
fn run_rows(tile: u32, run: u32) -> u32 {
    return select(select(tiles[tile].n_sink, tiles[tile].n_kept, run == KEPT), tiles[tile].n_recent, run == RECENT);
}

// First quad of key j of a run that starts at row `first`, in the buffer of that run.
fn run_row(first: u32, run: u32, j: u32, head: u32) -> u32 {
    let at = first + j;
    let wraps = run != KEPT && at >= p.ring;
    return select(at, at - p.ring, wraps) * 2u * p.n_kv_heads * D4 + head * D4;
}

fn load(run: u32, at: u32) -> vec4<f32> {
    if run == KEPT {
        return kept[at];
    }
    return recent[at];
}
