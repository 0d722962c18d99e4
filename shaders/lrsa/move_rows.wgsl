// Shared declarations of the kernels that move consecutive rows between buffers, each at any row.
struct Params {
    n: u32,          // rows * cols
    from_first: u32, // first element
    to_first: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<f32>;       // [rows, cols]
@group(0) @binding(2) var<storage, read_write> dst: array<f32>; // [rows, cols]
