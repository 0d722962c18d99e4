// Matrices of d channels by four columns, the rows or keys of a lane, and their products with vectors of d channels of which each lane
// of a subgroup has loaded one quad out of eight and hands it round.
//
// Subgroups of 8 lanes or more will do, whatever lanes they are made of. d is a multiple of 32. Call in uniform flow only.
const CHANNELS: u32 = 4u * D4;
const OWN_QUADS: u32 = D4 / 8u; // quads of a vector that each lane loads: its place in eight, and so on in steps of eight
alias Columns = array<vec4<f32>, CHANNELS>; // [d, 4]
alias Own = array<vec4<f32>, OWN_QUADS>;

fn set_quad(m: ptr<private, Columns>, c: u32, i: u32, x: vec4<f32>) {
    for (var e = 0u; e < 4u; e++) {
        m[4u * c + e][i] = x[e];
    }
}

fn quad_of(m: ptr<private, Columns>, c: u32, i: u32) -> vec4<f32> {
    return vec4<f32>(m[4u * c][i], m[4u * c + 1u][i], m[4u * c + 2u][i], m[4u * c + 3u][i]);
}

fn clear(m: ptr<private, Columns>) {
    for (var c = 0u; c < CHANNELS; c++) {
        m[c] = vec4<f32>(0.0);
    }
}

// Products of the columns with one quad.
fn quad_products(m: ptr<private, Columns>, c: u32, x: vec4<f32>) -> vec4<f32> {
    return m[4u * c] * x.x + m[4u * c + 1u] * x.y + m[4u * c + 2u] * x.z + m[4u * c + 3u] * x.w;
}

// Adds one quad, weighed for each column.
fn add_quad(m: ptr<private, Columns>, c: u32, w: vec4<f32>, x: vec4<f32>) {
    m[4u * c] += w * x.x;
    m[4u * c + 1u] += w * x.y;
    m[4u * c + 2u] += w * x.z;
    m[4u * c + 3u] += w * x.w;
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
