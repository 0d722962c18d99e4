// Matrix product by subgroups without workgroup memory: each lane loads elements of four rows of A, and the subgroup hands them round.
//
// A workgroup computes 32 rows x 32 columns; each lane 32 rows x 4 columns, two steps of k at a time. Lane 0 of a subgroup has rows
// 0 to 3, lane 7 rows 28 to 31, lane 8, where there is one, rows 0 to 3 again: subgroups of 8 lanes or more will do, whatever lanes
// they are made of.
// grid: [n / 32, m / 32]; see matmul/params.wgsl for the product.
const LANES: u32 = 8u;

var<private> sum: array<vec4<f32>, 32>;

// Adds the products of four rows of A, for two steps of k, with four columns of B.
fn accumulate(row: u32, x: vec4<f32>, y: vec4<f32>, b: vec4<f32>, c: vec4<f32>) {
    sum[row] += x.x * b + y.x * c;
    sum[row + 1u] += x.y * b + y.y * c;
    sum[row + 2u] += x.z * b + y.z * c;
    sum[row + 3u] += x.w * b + y.w * c;
}

fn load_a(first: vec4<u32>, k: u32) -> vec4<f32> {
    let at = first + vec4<u32>(k * a_step());
    return vec4<f32>(a[at.x], a[at.y], a[at.z], a[at.w]);
}

fn load_w(first: vec4<u32>, k: u32) -> vec4<f32> {
    let at = first + vec4<u32>(k * w_step());
    return vec4<f32>(weight(at.x), weight(at.y), weight(at.z), weight(at.w));
}

@compute @workgroup_size(LANES)
fn broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
             @builtin(subgroup_invocation_id) place: u32) {
    let row = 32u * group.y;
    let col = 32u * group.x + 4u * lane;
    // Out-of-range rows and columns repeat the last one; only the store is guarded.
    var rows: vec4<u32>;
    var cols: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
        rows[i] = a_first(min(row + 4u * (place % LANES) + i, p.m - 1u));
        cols[i] = w_first(min(col + i, p.n - 1u));
    }
    for (var r = 0u; r < 32u; r++) {
        sum[r] = vec4<f32>(0.0);
    }
    for (var k = 0u; k < p.k; k += 2u) {
        let x = load_a(rows, k);
        let b = load_w(cols, k);
        var y = vec4<f32>(0.0);
        var c = vec4<f32>(0.0);
        if k + 1u < p.k {
            y = load_a(rows, k + 1u);
            c = load_w(cols, k + 1u);
        }
        // The lane must be a constant.
        accumulate(0u, subgroupBroadcast(x, 0u), subgroupBroadcast(y, 0u), b, c);
        accumulate(4u, subgroupBroadcast(x, 1u), subgroupBroadcast(y, 1u), b, c);
        accumulate(8u, subgroupBroadcast(x, 2u), subgroupBroadcast(y, 2u), b, c);
        accumulate(12u, subgroupBroadcast(x, 3u), subgroupBroadcast(y, 3u), b, c);
        accumulate(16u, subgroupBroadcast(x, 4u), subgroupBroadcast(y, 4u), b, c);
        accumulate(20u, subgroupBroadcast(x, 5u), subgroupBroadcast(y, 5u), b, c);
        accumulate(24u, subgroupBroadcast(x, 6u), subgroupBroadcast(y, 6u), b, c);
        accumulate(28u, subgroupBroadcast(x, 7u), subgroupBroadcast(y, 7u), b, c);
    }
    // A loop of unknown length over a copy: 32 rows of stores make a long program, and what a loop indexes is kept out of registers.
    var total = sum;
    for (var r = 0u; r < min(p.m - row, 32u); r++) {
        for (var i = 0u; i < 4u; i++) {
            store(row + r, col + i, total[r][i]);
        }
    }
}
