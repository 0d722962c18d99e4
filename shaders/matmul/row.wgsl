// Matrix product of few rows, for decoding one token. With so few rows, the lanes share the sum
// over k.
//
// 32 lanes compute four columns of one row; a workgroup has two such segments. Adjacent lanes load
// adjacent elements along k, so this kernel serves only nt, where the steps along k are 1.
// grid: [n / 8, m]; see matmul/params.wgsl for the product.
const GROUP: u32 = 64u;
const SEGMENT: u32 = 32u;

@compute @workgroup_size(GROUP)
fn row(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let col = 8u * group.x + 4u * (lane / SEGMENT);
    let in_a = a_first(group.y);
    // Out-of-range columns repeat the last one. Only the store checks bounds.
    var cols: vec4<u32>;
    for (var i = 0u; i < 4u; i++) {
        cols[i] = w_first(min(col + i, p.n - 1u));
    }
    var sum = vec4<f32>(0.0);
    for (var k = lane % SEGMENT; k < p.k; k += SEGMENT) {
        let at = cols + vec4<u32>(k);
        sum += a[in_a + k] * vec4<f32>(weight(at.x), weight(at.y), weight(at.z), weight(at.w));
    }
    for (var i = 0u; i < 4u; i++) {
        let total = segment_sum(sum[i], lane, SEGMENT);
        if lane % SEGMENT == 0u {
            store(group.y, col + i, total);
        }
    }
}
