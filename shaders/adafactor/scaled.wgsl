// Adafactor: element i of a piece of the gradient, divided by the root of its second moment.
//
// scaled = factor * grad / sqrt(max(estimate, floor))
// estimate = row_var[r] / divisor * col_var[c] of a matrix, col_var[c] of a vector
// The kernel that links this part declares the parameters and the bindings.
fn scaled(i: u32) -> f32 {
    var estimate = col_var[i % p.cols];
    if p.is_factored != 0u {
        estimate *= row_var[p.first_row + i / p.cols] / divisor[0];
    }
    return clipping[1] * grads[i] * inverseSqrt(max(estimate, p.floor));
}
