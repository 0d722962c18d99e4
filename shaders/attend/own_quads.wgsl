// What the broadcasting kernels over query tiles load of a key or value; see attend/tiles.wgsl and
// attend/quads.wgsl.

// The lane's quads of a vector of which `at` is the first of them.
fn own(run: u32, at: u32) -> Own {
    var x: Own;
    for (var i = 0u; i < OWN_QUADS; i++) {
        x[i] = load(run, at + 8u * i);
    }
    return x;
}
