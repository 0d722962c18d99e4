// Common part of the matmul family: parameters, the output, and the store of one element.
//
// out[i, j] = alpha * sum_k A(i, k) B(k, j) + beta * out[i, j],  i < m, j < n
// A linked orientation (nt, nn or tn.wgsl) defines the positions of A(i, k) and B(k, j). Linked
// parts declare a (operand.wgsl) and read w (a weight part), or the kernel itself reads both as
// textures.
struct Params {
    m: u32,        // rows of the output
    n: u32,        // columns of the product
    k: u32,        // length of the sum
    a_stride: u32, // elements between rows of a
    a_offset: u32, // first element of a
    w_offset: u32, // first element of w
    c_stride: u32, // elements between rows of out
    c_offset: u32, // first element of out
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [m, c_stride]

// Stores one sum, if it lies inside the product.
fn store(i: u32, j: u32, sum: f32) {
    if i < p.m && j < p.n {
        let at = i * p.c_stride + p.c_offset + j;
        var value = p.alpha * sum;
        if p.beta != 0.0 {
            value += p.beta * out[at];
        }
        out[at] = value;
    }
}
