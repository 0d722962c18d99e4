// Matrices of d channels by four columns (the rows or keys that a lane owns), and their products
// with vectors of d channels. Each lane of a subgroup loads every eighth quad of a vector and
// broadcasts it to the others.
//
// Works with any subgroups of 8 or more lanes. d is a multiple of 32. Call in uniform control flow
// only.
const OWN_QUADS: u32 = D4 / 8u; // quads of a vector that each lane loads: lane % 8, then every eighth
alias Columns = array<mat4x4<f32>, D4>; // [D4, 4 channels, 4 columns]; compilers unroll loops over its quads at any length
alias Own = array<vec4<f32>, OWN_QUADS>;

// Number of columns of a lane that exist. Its columns are rows or keys from `first` on, out of n.
fn count_columns(first: u32, n: u32) -> u32 {
    return min(max(n, first) - first, 4u);
}

// D4 as a value that is no constant expression, so that compilers do not unroll the loop. The
// compile time of llvmpipe grows faster than the number of loads and stores. The loop body accesses
// one fixed quad per column and rotates the quads, because arrays with dynamic indices are not kept
// in registers.
fn count_quads() -> u32 {
    return min(D4, p.n_heads * D4);
}

// Drops the first quad of each column, shifts the others down, and appends a new quad.
fn push(m: ptr<private, Columns>, quads: mat4x4<f32>) {
    for (var c = 0u; c + 1u < D4; c++) {
        m[c] = m[c + 1u];
    }
    m[D4 - 1u] = transpose(quads);
}

// Returns the first quad of each column and moves it to the end.
fn next(m: ptr<private, Columns>) -> mat4x4<f32> {
    let quads = transpose(m[0]);
    push(m, quads);
    return quads;
}

// Replaces the quad of column i. It uses select, since a dynamically indexed matrix may not be kept
// in registers either.
fn with_quad(quads: mat4x4<f32>, i: u32, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        select(quads[0], x, i == 0u), select(quads[1], x, i == 1u), select(quads[2], x, i == 2u), select(quads[3], x, i == 3u),
    );
}

// The quad of column i.
fn quad_of(quads: mat4x4<f32>, i: u32) -> vec4<f32> {
    return select(select(quads[0], quads[1], i == 1u), select(quads[2], quads[3], i == 3u), i > 1u);
}

// Multiplies each column by its own factor.
fn scale_columns(m: ptr<private, Columns>, factor: vec4<f32>) {
    for (var c = 0u; c < D4; c++) {
        m[c] = mat4x4<f32>(m[c][0] * factor, m[c][1] * factor, m[c][2] * factor, m[c][3] * factor);
    }
}

// Adds one quad, multiplied by one weight per column.
fn add_quad(m: ptr<private, Columns>, c: u32, w: vec4<f32>, x: vec4<f32>) {
    m[c] += mat4x4<f32>(w * x.x, w * x.y, w * x.z, w * x.w);
}

// Dot products of the columns with one quad. Mesa 22.3 generates slower code for m[c] * x.
fn quad_products(m: ptr<private, Columns>, c: u32, x: vec4<f32>) -> vec4<f32> {
    return m[c][0] * x.x + m[c][1] * x.y + m[c][2] * x.z + m[c][3] * x.w;
}

// Dot products of the columns with a vector.
fn products(m: ptr<private, Columns>, vector: Own) -> vec4<f32> {
    var own = vector;
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < OWN_QUADS; i++) {
        let x = own[i];
        let c = 8u * i;
        // subgroupBroadcast needs a constant lane.
        sum += quad_products(m, c, subgroupBroadcast(x, 0u));
        sum += quad_products(m, c + 1u, subgroupBroadcast(x, 1u));
        sum += quad_products(m, c + 2u, subgroupBroadcast(x, 2u));
        sum += quad_products(m, c + 3u, subgroupBroadcast(x, 3u));
        sum += quad_products(m, c + 4u, subgroupBroadcast(x, 4u));
        sum += quad_products(m, c + 5u, subgroupBroadcast(x, 5u));
        sum += quad_products(m, c + 6u, subgroupBroadcast(x, 6u));
        sum += quad_products(m, c + 7u, subgroupBroadcast(x, 7u));
    }
    return sum;
}

// Adds a vector, multiplied by one weight per column.
fn add_weighed(m: ptr<private, Columns>, w: vec4<f32>, vector: Own) {
    var own = vector;
    for (var i = 0u; i < OWN_QUADS; i++) {
        let x = own[i];
        let c = 8u * i;
        add_quad(m, c, w, subgroupBroadcast(x, 0u));
        add_quad(m, c + 1u, w, subgroupBroadcast(x, 1u));
        add_quad(m, c + 2u, w, subgroupBroadcast(x, 2u));
        add_quad(m, c + 3u, w, subgroupBroadcast(x, 3u));
        add_quad(m, c + 4u, w, subgroupBroadcast(x, 4u));
        add_quad(m, c + 5u, w, subgroupBroadcast(x, 5u));
        add_quad(m, c + 6u, w, subgroupBroadcast(x, 6u));
        add_quad(m, c + 7u, w, subgroupBroadcast(x, 7u));
    }
}
