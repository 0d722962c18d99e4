// Gradient of the magnitudes, summed over blocks of rows:
// dm[b, c] = sum over the rows r of block b of dy[r, c] * x[r, c], over norms[c]
// reduce/column_sum adds the blocks. The norms are constants (section 4.3 of the paper).
// grid: blocks * cols invocations, folded.
// Source: Liu et al., arXiv 2402.09353.
struct Params {
    rows: u32,
    cols: u32,
    block: u32, // rows per block
}

const SMALLEST: f32 = 1e-30;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<f32>;       // [rows, cols]
@group(0) @binding(2) var<storage, read> x: array<f32>;        // [rows, cols]
@group(0) @binding(3) var<storage, read> norms: array<f32>;    // [cols]
@group(0) @binding(4) var<storage, read_write> dm: array<f32>; // [rows / block, cols]

@compute @workgroup_size(64)
fn scale_columns_backward_dm(@builtin(global_invocation_id) id: vec3<u32>,
                             @builtin(num_workgroups) n_groups: vec3<u32>) {
    let i = linear_index(id, n_groups, 64u);
    let first = i / p.cols * p.block;
    if first >= p.rows {
        return;
    }
    let col = i % p.cols;
    let end = min(first + p.block, p.rows);
    var sum = 0.0;
    for (var r = first; r < end; r++) {
        sum += dy[r * p.cols + col] * x[r * p.cols + col];
    }
    dm[i] = sum / max(norms[col], SMALLEST);
}
