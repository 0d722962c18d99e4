// Row lookup in one slice of a table:
// out[t, c] = scale * w[ids[t] - first_row, c] if the slice holds that row
// For other tokens, the first slice writes 0 and the later slices leave out unchanged.
// grid: tokens * cols invocations, folded.
struct Params {
    tokens: u32,
    cols: u32,
    first_row: u32,   // of the slice within the table
    rows: u32,        // of the slice
    zero_others: u32, // 1 for the first slice
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;       // [tokens]
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [tokens, cols]

@compute @workgroup_size(64)
fn embedding(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    let token = i / p.cols;
    if token >= p.tokens {
        return;
    }
    let row = ids[token] - p.first_row; // wraps to a huge number below the slice
    if row < p.rows {
        out[i] = p.scale * weight(row * p.cols + i % p.cols);
    } else if p.zero_others != 0u {
        out[i] = 0.0;
    }
}
