// Parameters of the kernels over tiles of many queries, and the keys of each run that these queries
// see; see attend/tiles.wgsl.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    scale: f32,
}

// Number of keys of a run that at least one query of the tile sees.
fn run_length(tile: u32, run: u32) -> u32 {
    let n = run_rows(tile, run);
    return select(n, n + tiles[tile].n_queries - 1u, run == RECENT);
}

// First visible key of a run, for each of four queries.
fn run_first(tile: u32, run: u32, queries: vec4<u32>) -> vec4<u32> {
    let end = vec4<u32>(tiles[tile].n_recent) + queries;
    let width = vec4<u32>(tiles[tile].width);
    return select(vec4<u32>(0u), max(end, width) - width, run == RECENT);
}

// Number of visible keys from that first key on, for each of four queries. Key i is visible if i
// minus the first key, as wrapping u32, is below it.
fn run_seen(tile: u32, run: u32, queries: vec4<u32>) -> vec4<u32> {
    let n = vec4<u32>(run_rows(tile, run));
    return select(n, min(n + queries, vec4<u32>(tiles[tile].width)), run == RECENT);
}
