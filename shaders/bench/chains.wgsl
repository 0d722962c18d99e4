// Arithmetic benchmark: eight chains x <- x * factor + offset in registers, no reads and few
// writes.
//
// out[i] = sum over c < 8 of x_c after 8 * turns steps, where x_c starts at (i mod 16 + 16 c) / 16
// With |factor| < 1 the chains stay bounded for any number of steps. 128 floating-point operations
// per turn and invocation.
// grid: n invocations, folded.
struct Params {
    n: u32,
    turns: u32,
    factor: f32,
    offset: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // [n]

@compute @workgroup_size(64)
fn chains(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i >= p.n {
        return;
    }
    let factor = vec4<f32>(p.factor);
    let offset = vec4<f32>(p.offset);
    var x = vec4<f32>(f32(i % 16u) / 16.0) + vec4<f32>(0.0, 1.0, 2.0, 3.0);
    var y = x + vec4<f32>(4.0);
    for (var turn = 0u; turn < p.turns; turn++) {
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
        x = fma(x, factor, offset);
        y = fma(y, factor, offset);
    }
    out[i] = dot(x + y, vec4<f32>(1.0));
}
