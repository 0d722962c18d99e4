// Forward of a linear layer:
// out [m, n] = a [m, k] * w [n, k]^T
// A(i, k) is at a_first(i) + k * a_step(), B(k, j) at w_first(j) + k * w_step().
fn a_first(i: u32) -> u32 {
    return p.a_offset + i * p.a_stride;
}

fn a_step() -> u32 {
    return 1u;
}

fn w_first(j: u32) -> u32 {
    return p.w_offset + j * p.k;
}

fn w_step() -> u32 {
    return 1u;
}
