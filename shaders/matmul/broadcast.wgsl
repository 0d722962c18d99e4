// Matrix product by subgroups without workgroup memory. Each lane loads elements of four rows of A
// and broadcasts them to the lanes of the subgroup.
//
// A workgroup computes 32 rows x 32 columns; each lane 32 rows x 4 columns. Lane 0 loads rows 0 to
// 3, lane 7 rows 28 to 31. A workgroup is one subgroup, so subgroups of 8 or more lanes suffice.
// grid: [n / 32, m / 32]; see matmul/params.wgsl for the product.
const LANES: u32 = 8u;
const ROWS: u32 = 32u;

// Adds the products of four rows of A with four columns of B.
fn accumulate(four: u32, x: vec4<f32>, b: vec4<f32>) {
    sum[four] += mat4x4<f32>(x.x * b, x.y * b, x.z * b, x.w * b);
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
    let row = ROWS * group.y;
    let col = 32u * group.x + 4u * lane;
    // Out-of-range rows and columns repeat the last one. Only the store checks bounds.
    var rows: vec4<u32>;
    var cols: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
        rows[i] = a_first(min(row + 4u * place + i, p.m - 1u));
        cols[i] = w_first(min(col + i, p.n - 1u));
    }
    for (var k = 0u; k < p.k; k++) {
        let x = load_a(rows, k);
        let b = load_w(cols, k);
        // subgroupBroadcast needs a constant lane.
        accumulate(0u, subgroupBroadcast(x, 0u), b);
        accumulate(1u, subgroupBroadcast(x, 1u), b);
        accumulate(2u, subgroupBroadcast(x, 2u), b);
        accumulate(3u, subgroupBroadcast(x, 3u), b);
        accumulate(4u, subgroupBroadcast(x, 4u), b);
        accumulate(5u, subgroupBroadcast(x, 5u), b);
        accumulate(6u, subgroupBroadcast(x, 6u), b);
        accumulate(7u, subgroupBroadcast(x, 7u), b);
    }
    store_sums(row, col);
}
