// Input gradient: out [m, n] = a [m, k] * w [k, n].
// grid: [n / 64, m / 32]. Layout from the viewpoint of a weight w [out, in]; see matmul/tile.wgsl for the parameters.
@compute @workgroup_size(GROUP_X, GROUP_Y)
fn nn(@builtin(global_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>,
      @builtin(local_invocation_id) local: vec3<u32>) {
    let row = first_row(id);
    let col = first_col(group, local);
    if row >= p.m || col >= p.n {
        return;
    }
    // Out-of-range rows and columns repeat the last one; only the store is guarded.
    var rows: array<u32, 4>;
    var cols: array<u32, 4>;
    for (var i = 0u; i < 4u; i++) {
        rows[i] = min(row + i, p.m - 1u) * p.a_stride + p.a_offset;
        cols[i] = p.w_offset + min(col + i * GROUP_X, p.n - 1u);
    }
    var sum: array<vec4<f32>, 4>;
    for (var k = 0u; k < p.k; k++) {
        let b = vec4<f32>(weight(cols[0] + k * p.n), weight(cols[1] + k * p.n), weight(cols[2] + k * p.n), weight(cols[3] + k * p.n));
        sum[0] += a[rows[0] + k] * b;
        sum[1] += a[rows[1] + k] * b;
        sum[2] += a[rows[2] + k] * b;
        sum[3] += a[rows[3] + k] * b;
    }
    store(row, col, sum);
}
