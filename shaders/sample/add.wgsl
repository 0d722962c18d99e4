// Adds a number to each logit of a row after the temperature, or excludes the token.
//
// adjusted[i] = added[i] > -1.5e38 ? adjusted[i] + added[i] / temperature : -3.0e38 for i < n
// grid: n invocations, folded.
struct Params {
    n: u32, // vocabulary
    temperature: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> added: array<f32>;          // [n]
@group(0) @binding(2) var<storage, read_write> adjusted: array<f32>; // [4 * ceil(n / 4)]

@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i < p.n {
        adjusted[i] = select(-3.0e38, adjusted[i] + added[i] / p.temperature, added[i] > -1.5e38);
    }
}
