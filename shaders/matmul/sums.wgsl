// The sums of a lane of the broadcasting kernels, and their store; see matmul/params.wgsl for the
// product. Whoever links it declares ROWS.
var<private> sum: array<mat4x4<f32>, ROWS / 4u>; // [ROWS / 4, 4 rows, 4 columns]; loops over it are unrolled at any length

// Stores those of the rows that exist.
//
// Rows move up into the place that is stored, since what a loop indexes is kept out of registers,
// and the loops have unknown lengths, since the stores of all rows make a long program: together
// that takes a software adapter five times as long to compile.
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
