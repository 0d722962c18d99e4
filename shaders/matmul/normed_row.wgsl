// Matrix product of one row after an RMS norm in one dispatch, for decoding one token:
// out[j] = sum_k x[k] * scale[k] * W(j, k) * rstd
// rstd = 1 / sqrt(mean_k x[k]^2 + eps)
//
// The lanes share the sum over k as in matmul/row.wgsl, and accumulate the squares of x in the same
// loop. A linked weight part declares w.
// grid: [n / 8]
// Source of the norm: Zhang and Sennrich, arXiv 1910.07467.
struct Params {
    n: u32,        // columns of the product
    k: u32,        // length of the row
    c_offset: u32, // first element of out
    eps: f32,      // added to the mean square
}

const GROUP: u32 = 64u;
const SEGMENT: u32 = 32u;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [k]
@group(0) @binding(3) var<storage, read> scale: array<f32>;     // [k]
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // [n] from c_offset on

@compute @workgroup_size(GROUP)
fn normed_row(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let col = 8u * group.x + 4u * (lane / SEGMENT);
    // Out-of-range columns repeat the last one. Only the store checks bounds.
    let cols = min(vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.n - 1u)) * p.k;
    var sum = vec4<f32>(0.0);
    var squares = 0.0;
    for (var k = lane % SEGMENT; k < p.k; k += SEGMENT) {
        let at = cols + vec4<u32>(k);
        sum += x[k] * scale[k] * vec4<f32>(weight(at.x), weight(at.y), weight(at.z), weight(at.w));
        squares += x[k] * x[k];
    }
    let rstd = inverseSqrt(segment_sum(squares, lane, SEGMENT) / f32(p.k) + p.eps);
    for (var i = 0u; i < 4u; i++) {
        let total = segment_sum(sum[i], lane, SEGMENT);
        if lane % SEGMENT == 0u && col + i < p.n {
            out[p.c_offset + col + i] = total * rstd;
        }
    }
}
