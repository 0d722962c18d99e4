// Matrix product by register tiles, for every device: no workgroup memory, no subgroups.
//
// Each invocation computes 4 rows x 4 columns. Its columns are GROUP_X apart, so that adjacent
// lanes load adjacent elements.
// grid: [n / 64, m / 32]; see matmul/params.wgsl for the product.
const GROUP_X: u32 = 16u;
const GROUP_Y: u32 = 8u;

@compute @workgroup_size(GROUP_X, GROUP_Y)
fn tile(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>,
        @builtin(local_invocation_id) local: vec3<u32>) {
    let row = 4u * id.y;
    let col = group.x * (4u * GROUP_X) + local.x;
    if row >= p.m || col >= p.n {
        return;
    }
    // Out-of-range rows and columns repeat the last one. Only the store checks bounds.
    var rows: array<u32, 4>;
    var cols: array<u32, 4>;
    for (var i = 0u; i < 4u; i++) {
        rows[i] = a_first(min(row + i, p.m - 1u));
        cols[i] = w_first(min(col + i * GROUP_X, p.n - 1u));
    }
    var sum: array<vec4<f32>, 4>;
    for (var k = 0u; k < p.k; k++) {
        let in_a = k * a_step();
        let in_w = k * w_step();
        let b = vec4<f32>(weight(cols[0] + in_w), weight(cols[1] + in_w), weight(cols[2] + in_w), weight(cols[3] + in_w));
        sum[0] += a[rows[0] + in_a] * b;
        sum[1] += a[rows[1] + in_a] * b;
        sum[2] += a[rows[2] + in_a] * b;
        sum[3] += a[rows[3] + in_a] * b;
    }
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            store(row + r, col + c * GROUP_X, sum[r][c]);
        }
    }
}
