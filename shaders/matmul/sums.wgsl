// The sums of a lane of the broadcasting kernels, and their store; see matmul/params.wgsl for the product.
var<private> sum: array<vec4<f32>, 32>; // 32 rows x 4 columns

// Stores those of the rows that exist.
//
// Rows move up into the place that is stored, since what a loop indexes is kept out of registers, and the loops have unknown lengths, since
// the stores of 32 rows make a long program: together that takes a software adapter five times as long to compile.
fn store_sums(row: u32, col: u32) {
    let rows = min(p.m - row, 32u);
    for (var first = 0u; first < rows; first += 4u) {
        for (var r = first; r < min(first + 4u, rows); r++) {
            let x = sum[0];
            sum[0] = sum[1];
            sum[1] = sum[2];
            sum[2] = sum[3];
            for (var i = 0u; i < 4u; i++) {
                store(row + r, col + i, x[i]);
            }
        }
        for (var r = 0u; r < 28u; r++) {
            sum[r] = sum[r + 4u];
        }
    }
}
