// Parameters of the kernels over tiles of many queries, and what these see of the runs of keys in
// attend/tiles.wgsl.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    scale: f32,
}

// Keys of a run that some query of the tile sees.
fn run_length(tile: u32, run: u32) -> u32 {
    let n = run_rows(tile, run);
    return select(n, n + tiles[tile].n_queries - 1u, run == RECENT);
}

// The first key of a run that each of four queries sees.
fn run_first(tile: u32, run: u32, queries: vec4<u32>) -> vec4<u32> {
    let end = vec4<u32>(tiles[tile].n_recent) + queries;
    let width = vec4<u32>(tiles[tile].width);
    return select(vec4<u32>(0u), max(end, width) - width, run == RECENT);
}

// How many keys from there on each of them sees: all those whose number minus the first one's is
// smaller, as u32 wrap.
fn run_seen(tile: u32, run: u32, queries: vec4<u32>) -> vec4<u32> {
    let n = vec4<u32>(run_rows(tile, run));
    return select(n, min(n + queries, vec4<u32>(tiles[tile].width)), run == RECENT);
}
