// Matrix product by cooperative matrices, for GPUs that have them in f32 (Metal's simdgroup matrices):
// 64 rows x 64 columns a workgroup, 16 steps of k at a time, in blocks of 8 x 8.
//
// A subgroup computes a quarter, 32 rows x 32 columns, so subgroups have at most 32 lanes; where they are shorter, several compute and
// store the same quarter. Operands and results go through workgroup memory, which takes care of edges, of orientations and of weights that are not
// stored as f32. Its rows are four elements longer than they need be, so that rows begin in different banks. It takes 13.3 KiB.
// grid: [n / 64, m / 64]; see matmul/params.wgsl for the product.
const LANES: u32 = 128u;
const SIDE: u32 = 64u;
const DEPTH: u32 = 16u;
const A_STRIDE: u32 = 20u;
const W_STRIDE: u32 = 68u;

var<workgroup> tile_a: array<f32, 1280>; // [SIDE, A_STRIDE]
var<workgroup> tile_w: array<f32, 1088>; // [DEPTH, W_STRIDE]
var<workgroup> block: array<f32, 1024>; // [4, 8, 32]: eight rows of each quarter

// Fills both tiles. Out-of-range rows and columns repeat the last one: nobody stores them. Behind the last step of k are zeros.
fn load_tiles(lane: u32, row: u32, col: u32, k: u32) {
    for (var i = lane; i < SIDE * DEPTH; i += LANES) {
        // Where k is the fast axis of an operand, neighbours load along k, else along rows or columns.
        let a_row = select(i % SIDE, i / DEPTH, a_step() == 1u);
        let a_depth = select(i / SIDE, i % DEPTH, a_step() == 1u);
        var x = 0.0;
        if k + a_depth < p.k {
            x = a[a_first(min(row + a_row, p.m - 1u)) + (k + a_depth) * a_step()];
        }
        tile_a[a_row * A_STRIDE + a_depth] = x;
        let w_col = select(i % SIDE, i / DEPTH, w_step() == 1u);
        let w_depth = select(i / SIDE, i % DEPTH, w_step() == 1u);
        var b = 0.0;
        if k + w_depth < p.k {
            b = weight(w_first(min(col + w_col, p.n - 1u)) + (k + w_depth) * w_step());
        }
        tile_w[w_depth * W_STRIDE + w_col] = b;
    }
}

@compute @workgroup_size(LANES)
fn cooperative(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
               @builtin(subgroup_id) subgroup: u32) {
    let row = SIDE * group.y;
    let col = SIDE * group.x;
    let quarter = subgroup % 4u;
    let top = 32u * (quarter / 2u);
    let left = 32u * (quarter % 2u);
    var sum: array<coop_mat8x8<f32, C>, 16>;
    for (var k = 0u; k < p.k; k += DEPTH) {
        load_tiles(lane, row, col, k);
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d += 8u) {
            var b: array<coop_mat8x8<f32, B>, 4>;
            for (var j = 0u; j < 4u; j++) {
                b[j] = coopLoadT<coop_mat8x8<f32, B>>(&tile_w[d * W_STRIDE + left + 8u * j], W_STRIDE);
            }
            for (var i = 0u; i < 4u; i++) {
                let x = coopLoadT<coop_mat8x8<f32, A>>(&tile_a[(top + 8u * i) * A_STRIDE + d], A_STRIDE);
                for (var j = 0u; j < 4u; j++) {
                    sum[4u * i + j] = coopMultiplyAdd(x, b[j], sum[4u * i + j]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            coopStoreT(sum[4u * i + j], &block[256u * quarter + 8u * j], 32u);
        }
        workgroupBarrier();
        for (var n = lane; n < 1024u; n += LANES) {
            let r = 32u * (n / 512u) + 8u * i + n / 32u % 8u;
            let c = 32u * (n / 256u % 2u) + n % 32u;
            store(row + r, col + c, block[n]);
        }
        workgroupBarrier();
    }
}
