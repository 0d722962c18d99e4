// Matrix product by tiles in workgroup memory, for GPUs: 64 rows x 64 columns per workgroup, 4 x 4
// per invocation, 16 steps of k at a time.
//
// A tile lies in workgroup memory with k as the slow axis, so that an invocation reads its four
// rows and its four columns as one vector each. The kernel uses 8 KiB of workgroup memory and 256
// invocations, within WebGPU's default limits.
// grid: [n / 64, m / 64]; see matmul/params.wgsl for the product.
const DEPTH: u32 = 16u;

var<workgroup> tile_a: array<vec4<f32>, 256>; // [DEPTH, 16]
var<workgroup> tile_w: array<vec4<f32>, 256>; // [DEPTH, 16]

// Four rows of A from `row` on, at step k; zeros past the last step. Out-of-range rows repeat the
// last one, and their results are never stored.
fn load_a(row: u32, k: u32) -> vec4<f32> {
    if k >= p.k {
        return vec4<f32>(0.0);
    }
    let last = p.m - 1u;
    let in_a = k * a_step();
    return vec4<f32>(a[a_first(min(row, last)) + in_a], a[a_first(min(row + 1u, last)) + in_a],
                     a[a_first(min(row + 2u, last)) + in_a], a[a_first(min(row + 3u, last)) + in_a]);
}

fn load_w(col: u32, k: u32) -> vec4<f32> {
    if k >= p.k {
        return vec4<f32>(0.0);
    }
    let last = p.n - 1u;
    let in_w = k * w_step();
    return vec4<f32>(weight(w_first(min(col, last)) + in_w), weight(w_first(min(col + 1u, last)) + in_w),
                     weight(w_first(min(col + 2u, last)) + in_w), weight(w_first(min(col + 3u, last)) + in_w));
}

@compute @workgroup_size(256)
fn shared_tile(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = 64u * group.y;
    let col = 64u * group.x;
    // If k is the fast axis of an operand, adjacent lanes load along k, otherwise along rows or
    // columns.
    let a_quad = select(lane % 16u, lane / DEPTH, a_step() == 1u);
    let a_depth = select(lane / 16u, lane % DEPTH, a_step() == 1u);
    let w_quad = select(lane % 16u, lane / DEPTH, w_step() == 1u);
    let w_depth = select(lane / 16u, lane % DEPTH, w_step() == 1u);
    let own_row = lane / 16u;
    let own_col = lane % 16u;
    var sum: array<vec4<f32>, 4>;
    for (var k = 0u; k < p.k; k += DEPTH) {
        tile_a[a_depth * 16u + a_quad] = load_a(row + 4u * a_quad, k + a_depth);
        tile_w[w_depth * 16u + w_quad] = load_w(col + 4u * w_quad, k + w_depth);
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let x = tile_a[d * 16u + own_row];
            let b = tile_w[d * 16u + own_col];
            sum[0] += x.x * b;
            sum[1] += x.y * b;
            sum[2] += x.z * b;
            sum[3] += x.w * b;
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            store(row + 4u * own_row + r, col + 4u * own_col + c, sum[r][c]);
        }
    }
}
