// Parameters of the kernels over tiles of many queries, and what these see of the runs of keys in attend/tiles.wgsl.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    scale: f32,
}

// Keys of a run that some query of the tile sees.
fn run_length(tile: u32, run: u32) -> u32 {
    let n = tiles[tile + 3u + 2u * run];
    return select(n, n + tiles[tile + 1u] - 1u, run == WINDOW);
}

// How many of them each of four queries sees.
fn run_seen(tile: u32, run: u32, queries: vec4<u32>) -> vec4<u32> {
    let n = vec4<u32>(tiles[tile + 3u + 2u * run]);
    return select(n, n + queries, run == WINDOW);
}
