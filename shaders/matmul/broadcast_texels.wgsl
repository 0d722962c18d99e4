// Matrix product by subgroups as in matmul/broadcast.wgsl, from operands that the executor has
// copied into textures. Mesa 22.3's llvmpipe reads buffers lane by lane, but fetches texels for all
// lanes at once, and one fetch returns four numbers.
//
// A workgroup computes 64 rows x 32 columns; each lane 64 rows x 4 columns, four steps of k at a
// time. Lane 0 loads rows 0 to 3 and 32 to 35 of A, lane 7 rows 28 to 31 and 60 to 63. A workgroup
// is one subgroup, so subgroups of 8 or more lanes suffice. A texel holds four adjacent elements of
// a row of its operand. So the first element and the length of every row are multiples of four, and
// so is k if it is the fast axis of an operand. k is at least four.
// A linked part declares w and reads four elements of it.
// grid: [n / 32, m / 64]; see matmul/params.wgsl for the product.
@group(0) @binding(1) var a: texture_storage_2d<rgba32float, read>; // [m or k, a_stride / 4]: texels in the order of the buffer, 1,024 a row

const LANES: u32 = 8u;
const ROWS: u32 = 64u;

fn texel_a(at: u32) -> vec4<f32> {
    return textureLoad(a, texel(at));
}

// Position of the texel with elements `at` to `at + 3`. It is signed, since naga 30 generates
// invalid SPIR-V for bounds checks of unsigned coordinates.
fn texel(at: u32) -> vec2<i32> {
    return vec2<i32>(vec2<u32>(at / 4u % 1024u, at / 4096u));
}

// First elements of four texels of A: rows row to row + 3 at step 0, or steps 0 to 3 with four rows
// each. Rows past the end repeat others, and their results are never stored.
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

// Four texels of A from step k on, one column per row.
fn load_a(first: vec4<u32>, k: u32) -> mat4x4<f32> {
    let at = first + vec4<u32>(k * a_step());
    let x = mat4x4<f32>(texel_a(at.x), texel_a(at.y), texel_a(at.z), texel_a(at.w));
    if a_step() == 1u {
        return x;
    }
    return transpose(x);
}

// Four texels of B, one column per step.
fn load_w(first: vec4<u32>, k: u32) -> mat4x4<f32> {
    let at = first + vec4<u32>(k * w_step());
    let b = mat4x4<f32>(texel_w(at.x), texel_w(at.y), texel_w(at.z), texel_w(at.w));
    if w_step() == 1u {
        return transpose(b);
    }
    return b;
}

// B with zeros for steps that an earlier iteration has covered. Needed only if k is not a multiple
// of four.
fn without_taken(b: mat4x4<f32>, n_taken: u32) -> mat4x4<f32> {
    if a_step() == 1u {
        return b;
    }
    let none = vec4<f32>(0.0);
    return mat4x4<f32>(
        select(b[0], none, n_taken > 0u), select(b[1], none, n_taken > 1u), select(b[2], none, n_taken > 2u), b[3],
    );
}

// Adds the products of four steps of one row of A with four columns of B. It uses one sum and one
// row at a time, since Mesa 22.3 generates slower code for b * x and for sums of matrices.
fn accumulate(four: u32, r: u32, x: vec4<f32>, b: mat4x4<f32>) {
    sum[four][r] += x.x * b[0] + x.y * b[1] + x.z * b[2] + x.w * b[3];
}

// Adds the products of 32 rows; each lane holds four of them.
fn add_rows(four: u32, x: mat4x4<f32>, b: mat4x4<f32>) {
    // subgroupBroadcast needs a constant lane.
    accumulate(four + 0u, 0u, subgroupBroadcast(x[0], 0u), b);
    accumulate(four + 0u, 1u, subgroupBroadcast(x[1], 0u), b);
    accumulate(four + 0u, 2u, subgroupBroadcast(x[2], 0u), b);
    accumulate(four + 0u, 3u, subgroupBroadcast(x[3], 0u), b);
    accumulate(four + 1u, 0u, subgroupBroadcast(x[0], 1u), b);
    accumulate(four + 1u, 1u, subgroupBroadcast(x[1], 1u), b);
    accumulate(four + 1u, 2u, subgroupBroadcast(x[2], 1u), b);
    accumulate(four + 1u, 3u, subgroupBroadcast(x[3], 1u), b);
    accumulate(four + 2u, 0u, subgroupBroadcast(x[0], 2u), b);
    accumulate(four + 2u, 1u, subgroupBroadcast(x[1], 2u), b);
    accumulate(four + 2u, 2u, subgroupBroadcast(x[2], 2u), b);
    accumulate(four + 2u, 3u, subgroupBroadcast(x[3], 2u), b);
    accumulate(four + 3u, 0u, subgroupBroadcast(x[0], 3u), b);
    accumulate(four + 3u, 1u, subgroupBroadcast(x[1], 3u), b);
    accumulate(four + 3u, 2u, subgroupBroadcast(x[2], 3u), b);
    accumulate(four + 3u, 3u, subgroupBroadcast(x[3], 3u), b);
    accumulate(four + 4u, 0u, subgroupBroadcast(x[0], 4u), b);
    accumulate(four + 4u, 1u, subgroupBroadcast(x[1], 4u), b);
    accumulate(four + 4u, 2u, subgroupBroadcast(x[2], 4u), b);
    accumulate(four + 4u, 3u, subgroupBroadcast(x[3], 4u), b);
    accumulate(four + 5u, 0u, subgroupBroadcast(x[0], 5u), b);
    accumulate(four + 5u, 1u, subgroupBroadcast(x[1], 5u), b);
    accumulate(four + 5u, 2u, subgroupBroadcast(x[2], 5u), b);
    accumulate(four + 5u, 3u, subgroupBroadcast(x[3], 5u), b);
    accumulate(four + 6u, 0u, subgroupBroadcast(x[0], 6u), b);
    accumulate(four + 6u, 1u, subgroupBroadcast(x[1], 6u), b);
    accumulate(four + 6u, 2u, subgroupBroadcast(x[2], 6u), b);
    accumulate(four + 6u, 3u, subgroupBroadcast(x[3], 6u), b);
    accumulate(four + 7u, 0u, subgroupBroadcast(x[0], 7u), b);
    accumulate(four + 7u, 1u, subgroupBroadcast(x[1], 7u), b);
    accumulate(four + 7u, 2u, subgroupBroadcast(x[2], 7u), b);
    accumulate(four + 7u, 3u, subgroupBroadcast(x[3], 7u), b);
}

@compute @workgroup_size(LANES)
fn broadcast_texels(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32,
                    @builtin(subgroup_invocation_id) place: u32) {
    let row = ROWS * group.y;
    let col = 32u * group.x + 4u * lane;
    let low = texels_a(row + 4u * place);
    let high = texels_a(row + 32u + 4u * place);
    let in_w = texels_w(col);
    for (var k = 0u; k < p.k; k += 4u) {
        let from_k = min(k, p.k - 4u);
        let b = without_taken(load_w(in_w, from_k), k - from_k);
        add_rows(0u, load_a(low, from_k), b);
        add_rows(8u, load_a(high, from_k), b);
    }
    store_sums(row, col);
}
