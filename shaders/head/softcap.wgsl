// x = cap * tanh(x / cap), element by element, in place.
// WGSL bounds the absolute error of its own tanh only. Near 0, tanh is a Padé approximant, whose
// error there is below that of f32; elsewhere tanh v = (1 - e) / (1 + e) with e = exp(-2 v).
// grid: n invocations, folded.
// Source: final_logit_softcapping of Gemma 2, arXiv 2408.00118.
struct Params {
    n: u32,
    cap: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // [n]

// Beyond this, tanh is 1 in f32.
const SATURATED: f32 = 12.0;
// Below this, the approximant is used.
const SMALL: f32 = 0.55;

@compute @workgroup_size(256)
fn softcap(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i >= p.n {
        return;
    }
    let v = clamp(x[i] / p.cap, -SATURATED, SATURATED);
    let u = v * v;
    let near = v * (135135.0 + u * (17325.0 + u * (378.0 + u))) / (135135.0 + u * (62370.0 + u * (3150.0 + 28.0 * u)));
    let e = exp(-2.0 * abs(v));
    let far = sign(v) * (1.0 - e) / (1.0 + e);
    x[i] = p.cap * select(far, near, abs(v) < SMALL);
}
