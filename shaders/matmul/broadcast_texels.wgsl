// Matrix product by subgroups, as broadcast.wgsl, from operands that the executor has copied into textures: where buffers are read lane by
// lane (Mesa 22.3's llvmpipe), texels are still fetched by all lanes at once, and a fetch brings four numbers.
//
// A workgroup computes 32 rows x 32 columns; each lane 32 rows x 4 columns, four steps of k at a time. Lane 0 loads rows 0 to 3 of A, lane 7
// rows 28 to 31: a workgroup is one subgroup, so those of 8 lanes or more will do. A texel holds four neighbours of a row of its operand,
// so the first element and the length of every row are multiples of four, as is k where it is the fast axis of an operand. k is at least four.
// A linked part declares w and reads four elements of it.
// grid: [n / 32, m / 32]; see matmul/params.wgsl for the product.
@group(0) @binding(1) var a: texture_2d<f32>; // [m or k, a_stride / 4]: texels in the order of the buffer, 1,024 a row

const LANES: u32 = 8u;

fn texel_a(at: u32) -> vec4<f32> {
    return textureLoad(a, texel(at), 0);
}

// Where the texel with the elements from `at` on lies. Signed, since naga 30 bounds unsigned coordinates by SPIR-V that is not valid.
fn texel(at: u32) -> vec2<i32> {
    return vec2<i32>(vec2<u32>(at / 4u % 1024u, at / 4096u));
}

// First elements of four texels of A: those of rows row to row + 3 at step 0, or of steps 0 to 3 with all four rows each. Rows that do not exist
// repeat others: nobody stores them.
fn texels_a(row: u32) -> vec4<u32> {
    let last = p.m - 1u;
    if a_step() == 1u {
        return vec4<u32>(a_first(min(row, last)), a_first(min(row + 1u, last)), a_first(min(row + 2u, last)), a_first(min(row + 3u, last)));
    }
    return vec4<u32>(a_first(min(row, last / 4u * 4u))) + vec4<u32>(0u, 1u, 2u, 3u) * a_step();
}

fn texels_w(col: u32) -> vec4<u32> {
    let last = p.n - 1u;
    if w_step() == 1u {
        return vec4<u32>(w_first(min(col, last)), w_first(min(col + 1u, last)), w_first(min(col + 2u, last)), w_first(min(col + 3u, last)));
    }
    return vec4<u32>(w_first(min(col, last / 4u * 4u))) + vec4<u32>(0u, 1u, 2u, 3u) * w_step();
}

// Adds the products of four steps of a row of A with four columns of B.
fn accumulate(row: u32, x: vec4<f32>, b: mat4x4<f32>) {
    sum[row] += x.x * b[0] + x.y * b[1] + x.z * b[2] + x.w * b[3];
}

@compute @workgroup_size(LANES)
fn broadcast_texels(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                    @builtin(subgroup_invocation_id) place: u32) {
    let row = 32u * group.y;
    let col = 32u * group.x + 4u * lane;
    let in_a = texels_a(row + 4u * place);
    let in_w = texels_w(col);
    for (var k = 0u; k < p.k; k += 4u) {
        // The last four steps may have some that were taken before.
        let from_k = min(k, p.k - 4u);
        let at_a = in_a + vec4<u32>(from_k * a_step());
        var x = mat4x4<f32>(texel_a(at_a.x), texel_a(at_a.y), texel_a(at_a.z), texel_a(at_a.w)); // a column for each row
        if a_step() != 1u {
            x = transpose(x);
            let is_new = vec4<u32>(from_k) + vec4<u32>(0u, 1u, 2u, 3u) >= vec4<u32>(k);
            for (var r = 0u; r < 4u; r++) {
                x[r] = select(vec4<f32>(0.0), x[r], is_new);
            }
        }
        let at_w = in_w + vec4<u32>(from_k * w_step());
        var b = mat4x4<f32>(texel_w(at_w.x), texel_w(at_w.y), texel_w(at_w.z), texel_w(at_w.w)); // a column for each step
        if w_step() == 1u {
            b = transpose(b);
        }
        // The lane must be a constant.
        accumulate(0u, subgroupBroadcast(x[0], 0u), b);
        accumulate(1u, subgroupBroadcast(x[1], 0u), b);
        accumulate(2u, subgroupBroadcast(x[2], 0u), b);
        accumulate(3u, subgroupBroadcast(x[3], 0u), b);
        accumulate(4u, subgroupBroadcast(x[0], 1u), b);
        accumulate(5u, subgroupBroadcast(x[1], 1u), b);
        accumulate(6u, subgroupBroadcast(x[2], 1u), b);
        accumulate(7u, subgroupBroadcast(x[3], 1u), b);
        accumulate(8u, subgroupBroadcast(x[0], 2u), b);
        accumulate(9u, subgroupBroadcast(x[1], 2u), b);
        accumulate(10u, subgroupBroadcast(x[2], 2u), b);
        accumulate(11u, subgroupBroadcast(x[3], 2u), b);
        accumulate(12u, subgroupBroadcast(x[0], 3u), b);
        accumulate(13u, subgroupBroadcast(x[1], 3u), b);
        accumulate(14u, subgroupBroadcast(x[2], 3u), b);
        accumulate(15u, subgroupBroadcast(x[3], 3u), b);
        accumulate(16u, subgroupBroadcast(x[0], 4u), b);
        accumulate(17u, subgroupBroadcast(x[1], 4u), b);
        accumulate(18u, subgroupBroadcast(x[2], 4u), b);
        accumulate(19u, subgroupBroadcast(x[3], 4u), b);
        accumulate(20u, subgroupBroadcast(x[0], 5u), b);
        accumulate(21u, subgroupBroadcast(x[1], 5u), b);
        accumulate(22u, subgroupBroadcast(x[2], 5u), b);
        accumulate(23u, subgroupBroadcast(x[3], 5u), b);
        accumulate(24u, subgroupBroadcast(x[0], 6u), b);
        accumulate(25u, subgroupBroadcast(x[1], 6u), b);
        accumulate(26u, subgroupBroadcast(x[2], 6u), b);
        accumulate(27u, subgroupBroadcast(x[3], 6u), b);
        accumulate(28u, subgroupBroadcast(x[0], 7u), b);
        accumulate(29u, subgroupBroadcast(x[1], 7u), b);
        accumulate(30u, subgroupBroadcast(x[2], 7u), b);
        accumulate(31u, subgroupBroadcast(x[3], 7u), b);
    }
    store_sums(row, col);
}
