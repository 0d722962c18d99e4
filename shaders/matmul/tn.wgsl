// Weight gradient of a linear layer, where w is the input of the layer:
// out [m, n] = a [k, m]^T * w [k, n]
// A(i, k) is at a_first(i) + k * a_step(), B(k, j) at w_first(j) + k * w_step().
fn a_first(i: u32) -> u32 {
    return p.a_offset + i;
}

fn a_step() -> u32 {
    return p.a_stride;
}

fn w_first(j: u32) -> u32 {
    return p.w_offset + j;
}

fn w_step() -> u32 {
    return p.n;
}
