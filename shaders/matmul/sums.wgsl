// The sums of a lane in the broadcast kernels, and their store; see matmul/params.wgsl for the
// product. The linking kernel declares ROWS.
var<private> sum: array<mat4x4<f32>, ROWS / 4u>; // [ROWS / 4, 4 rows, 4 columns]; compilers unroll loops over it at any length

// Stores the sums of the rows that exist.
//
// The loop stores from a fixed position and shifts the rows to it, because arrays with dynamic
// indices are not kept in registers. The loop bounds are unknown at compile time, because unrolled
// stores of all rows make a long program. With dynamic indices and unrolled stores, a software
// adapter takes five times as long to compile the kernel.
fn store_sums(row: u32, col: u32) {
    let rows = min(p.m - row, ROWS);
    for (var first = 0u; first < rows; first += 4u) {
        var four = sum[0];
        for (var r = first; r < min(first + 4u, rows); r++) {
            let x = four[0];
            four = mat4x4<f32>(four[1], four[2], four[3], four[3]);
            for (var i = 0u; i < 4u; i++) {
                store(row + r, col + i, x[i]);
            }
        }
        for (var r = 0u; r + 1u < ROWS / 4u; r++) {
            sum[r] = sum[r + 1u];
        }
    }
}
