// Repetition penalty on previous tokens, from the original logits, then the temperature.
//
// adjusted[t] = (x > 0 ? x / penalty : x * penalty) / temperature with x = logits[offset + t]
// for each previous token t. Repeated tokens write the same value.
// grid: n_previous invocations, folded.
// Source: arXiv 1909.05858.
struct Params {
    n: u32,          // vocabulary
    offset: u32,     // first element of the row
    n_previous: u32, // previous tokens
    penalty: f32,
    temperature: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;         // [rows, n]
@group(0) @binding(2) var<storage, read> previous: array<u32>;       // [n_previous]
@group(0) @binding(3) var<storage, read_write> adjusted: array<f32>; // [4 * ceil(n / 4)]

@compute @workgroup_size(256)
fn penalise(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i >= p.n_previous {
        return;
    }
    let token = previous[i];
    if token < p.n {
        let x = logits[p.offset + token];
        adjusted[token] = select(x * p.penalty, x / p.penalty, x > 0.0) / p.temperature;
    }
}
