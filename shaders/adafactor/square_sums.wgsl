// Adafactor: sums of squares of one piece of a tensor, two partial sums per workgroup.
//
// partials[2 (first + g)] = sum of scaled(i)^2, partials[2 (first + g) + 1] = sum of values[i]^2
// over the 256-element blocks with index ≡ g (mod n_groups)
// grid: [n_groups].
// Source: torch.optim.Adafactor.
struct Params {
    n: u32,           // elements of the piece
    cols: u32,
    first_row: u32,   // of the piece within the tensor
    is_factored: u32, // 1 for a matrix, 0 for a vector
    floor: f32,       // eps1^2
    n_groups: u32,    // workgroups of the piece
    first: u32,       // workgroups of earlier pieces
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> clipping: array<f32>;       // [norm, factor]
@group(0) @binding(2) var<storage, read> grads: array<f32>;          // [n]
@group(0) @binding(3) var<storage, read> values: array<f32>;         // [n]
@group(0) @binding(4) var<storage, read> row_var: array<f32>;        // [rows]; not read of a vector
@group(0) @binding(5) var<storage, read> col_var: array<f32>;        // [cols]
@group(0) @binding(6) var<storage, read> divisor: array<f32>;        // [1]; not read of a vector
@group(0) @binding(7) var<storage, read_write> partials: array<f32>; // [workgroups of all pieces, 2]

@compute @workgroup_size(256)
fn square_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var updates = 0.0;
    var squares = 0.0;
    for (var i = group.x * TREE_LANES + lane; i < p.n; i += p.n_groups * TREE_LANES) {
        let u = scaled(i);
        updates += u * u;
        squares += values[i] * values[i];
    }
    updates = tree_sum(updates, lane);
    squares = tree_sum(squares, lane);
    if lane == 0u {
        partials[2u * (p.first + group.x)] = updates;
        partials[2u * (p.first + group.x) + 1u] = squares;
    }
}
