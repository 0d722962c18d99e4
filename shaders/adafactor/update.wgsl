// Adafactor: the update of one piece of a tensor.
//
// value -= decay * (value - origin)       decay = lr * weight decay, or 0; origin: mostly 0
// value -= step * scaled(i)
// grid: n invocations, folded.
// Source: torch.optim.Adafactor.
struct Params {
    n: u32, // elements of the piece
    cols: u32,
    first_row: u32,   // of the piece within the tensor
    is_factored: u32, // 1 for a matrix, 0 for a vector
    floor: f32,       // eps1^2
    decay: f32,
    origin: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;     // [norm, factor]; factor 0 skips the step
@group(0) @binding(2) var<storage, read> grads: array<f32>;        // [n]
@group(0) @binding(3) var<storage, read_write> values: array<f32>; // [n]
@group(0) @binding(4) var<storage, read> row_var: array<f32>;      // [rows]; not read of a vector
@group(0) @binding(5) var<storage, read> col_var: array<f32>;      // [cols]
@group(0) @binding(6) var<storage, read> divisor: array<f32>;      // [1]; not read of a vector
@group(0) @binding(7) var<storage, read> step: array<f32>;         // [1]

@compute @workgroup_size(256)
fn update(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 256u);
    if i >= p.n || clipping[1] == 0.0 {
        return;
    }
    let kept = values[i] - p.decay * (values[i] - p.origin);
    values[i] = kept - step[0] * scaled(i);
}
