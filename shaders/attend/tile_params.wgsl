// Parameters of the kernels that take a tile of queries to a workgroup.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    scale: f32,
}
