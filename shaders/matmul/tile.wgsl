// Common part of the matmul family: parameters, the register tile and its store.
//
// out[i, j] = alpha * sum_k A(i, k) B(k, j) + beta * out[i, j],  i < m, j < n
// Each invocation computes ROWS x COLS elements; its columns lie GROUP_X apart so that neighbours load neighbours.
struct Params {
    m: u32,        // rows of the output
    n: u32,        // columns of the product
    k: u32,        // length of the sum
    a_stride: u32, // elements between rows of a
    a_offset: u32, // first element of a
    w_offset: u32, // first element of w
    c_stride: u32, // elements between rows of out
    c_offset: u32, // first element of out
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;        // [m, a_stride], or [k, a_stride] in tn
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [m, c_stride]

const GROUP_X: u32 = 16u;
const GROUP_Y: u32 = 8u;
const ROWS: u32 = 4u;
const COLS: u32 = 4u;

fn first_row(id: vec3<u32>) -> u32 {
    return id.y * ROWS;
}

fn first_col(group: vec3<u32>, local: vec3<u32>) -> u32 {
    return group.x * (GROUP_X * COLS) + local.x;
}

fn store(row: u32, col: u32, sum: array<vec4<f32>, 4>) {
    for (var r = 0u; r < ROWS; r++) {
        let i = row + r;
        if i >= p.m {
            return;
        }
        for (var c = 0u; c < COLS; c++) {
            let j = col + c * GROUP_X;
            if j < p.n {
                let at = i * p.c_stride + p.c_offset + j;
                var value = p.alpha * sum[r][c];
                if p.beta != 0.0 {
                    value += p.beta * out[at];
                }
                out[at] = value;
            }
        }
    }
}
