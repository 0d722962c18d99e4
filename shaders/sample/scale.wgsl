// Copies one row of logits out of its tensor, divided by the temperature.
//
// adjusted[i] = logits[offset + i] / temperature for i < n, else a value below every logit
// The padding completes the last group of four, since readers load whole groups.
// grid: 4 * ceil(n / 4) invocations, folded.
struct Params {
    n: u32,      // vocabulary
    offset: u32, // first element of the row
    temperature: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;         // [rows, n]
@group(0) @binding(2) var<storage, read_write> adjusted: array<f32>; // [4 * ceil(n / 4)]

@compute @workgroup_size(256)
fn scale(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i < (p.n + 3u) / 4u * 4u {
        var value = -3.0e38;
        if i < p.n {
            value = logits[p.offset + i] / p.temperature;
        }
        adjusted[i] = value;
    }
}
