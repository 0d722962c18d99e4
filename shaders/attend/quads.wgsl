// Matrices of d channels by four columns, the rows or keys of a lane, and their products with
// vectors of d channels of which each lane of a subgroup has loaded one quad out of eight and hands
// it round.
//
// Subgroups of 8 lanes or more will do, whatever lanes they are made of. d is a multiple of 32.
// Call in uniform flow only.
const OWN_QUADS: u32 = D4 / 8u; // quads of a vector that each lane loads: its place in eight, and so on in steps of eight
alias Columns = array<mat4x4<f32>, D4>; // [D4, 4 channels, 4 columns]; loops over its quads are unrolled at any length
alias Own = array<vec4<f32>, OWN_QUADS>;

// How many of a lane's four columns exist: they are rows or keys from `first` on, of which there
// are n.
fn count_columns(first: u32, n: u32) -> u32 {
    return min(max(n, first) - first, 4u);
}

// D4, in a form that no compiler unrolls by: the time that llvmpipe takes to compile a kernel grows
// faster than the number of its loads and stores. So columns are read and written in a loop that
// has one of them and moves the quads on, since what a loop indexes is kept out of registers.
fn count_quads() -> u32 {
    return min(D4, p.n_heads * D4);
}

// Drops the first quad of each column, moves the others on, and puts a quad behind them.
fn push(m: ptr<private, Columns>, quads: mat4x4<f32>) {
    for (var c = 0u; c + 1u < D4; c++) {
        m[c] = m[c + 1u];
    }
    m[D4 - 1u] = transpose(quads);
}

// The first quad of each column, which moves behind the others.
fn next(m: ptr<private, Columns>) -> mat4x4<f32> {
    let quads = transpose(m[0]);
    push(m, quads);
    return quads;
}

// With another quad for column i: a selection, since an indexed matrix may be kept out of
// registers, too.
fn with_quad(quads: mat4x4<f32>, i: u32, x: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        select(quads[0], x, i == 0u), select(quads[1], x, i == 1u), select(quads[2], x, i == 2u), select(quads[3], x, i == 3u),
    );
}

// That of column i.
fn quad_of(quads: mat4x4<f32>, i: u32) -> vec4<f32> {
    return select(select(quads[0], quads[1], i == 1u), select(quads[2], quads[3], i == 3u), i > 1u);
}

// Multiplies each column by its own factor.
fn scale_columns(m: ptr<private, Columns>, factor: vec4<f32>) {
    for (var c = 0u; c < D4; c++) {
        m[c] = mat4x4<f32>(m[c][0] * factor, m[c][1] * factor, m[c][2] * factor, m[c][3] * factor);
    }
}

// Adds one quad, weighed for each column.
fn add_quad(m: ptr<private, Columns>, c: u32, w: vec4<f32>, x: vec4<f32>) {
    m[c] += mat4x4<f32>(w * x.x, w * x.y, w * x.z, w * x.w);
}

// Products of the columns with one quad. Mesa 22.3 makes something slower of m[c] * x.
fn quad_products(m: ptr<private, Columns>, c: u32, x: vec4<f32>) -> vec4<f32> {
    return m[c][0] * x.x + m[c][1] * x.y + m[c][2] * x.z + m[c][3] * x.w;
}

// Products of the columns with a vector.
fn products(m: ptr<private, Columns>, vector: Own) -> vec4<f32> {
    var own = vector;
    var sum = vec4<f32>(0.0);
    for (var i = 0u; i < OWN_QUADS; i++) {
        let x = own[i];
        let c = 8u * i;
        // The lane must be a constant.
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

// Adds a vector, weighed for each column.
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
