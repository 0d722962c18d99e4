// Parameters of attend/decode.
struct Params {
    n_heads: u32,    // H
    n_kv_heads: u32, // Hk
    ring: u32,
    n_splits: u32,
    scale: f32,
}
