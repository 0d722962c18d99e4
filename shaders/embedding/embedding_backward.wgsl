// Table gradient for one slice:
// dtable[unique[u] - first_row, c] = scale * sum over the occurrences of unique[u] of dy[token, c]
// The sum is in token order. An earlier command clears the other rows.
// grid: n_unique * cols invocations, folded.
struct Params {
    cols: u32,
    first_row: u32,    // of the slice within the table
    first_unique: u32, // first unique id within the slice
    n_unique: u32,     // unique ids within the slice
    scale: f32,        // factor of the rows in the forward
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;           // [tokens, cols]
@group(0) @binding(2) var<storage, read> unique: array<u32>;       // [unique ids], ascending
@group(0) @binding(3) var<storage, read> offsets: array<u32>;      // [unique ids + 1]
@group(0) @binding(4) var<storage, read> occurrences: array<u32>;  // [tokens], grouped by id
@group(0) @binding(5) var<storage, read_write> dtable: array<f32>; // [rows, cols]

@compute @workgroup_size(64)
fn embedding_backward(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    if i / p.cols >= p.n_unique {
        return;
    }
    let u = p.first_unique + i / p.cols;
    let col = i % p.cols;
    var sum = 0.0;
    for (var k = offsets[u]; k < offsets[u + 1u]; k++) {
        sum += dy[occurrences[k] * p.cols + col];
    }
    dtable[(unique[u] - p.first_row) * p.cols + col] = p.scale * sum;
}
