// Loads of keys and values for the broadcast kernels over query tiles; see attend/tiles.wgsl and
// attend/quads.wgsl.

// The quads of a vector that this lane loads; `at` is the first quad of the vector.
fn own(run: u32, at: u32) -> Own {
    var x: Own;
    for (var i = 0u; i < OWN_QUADS; i++) {
        x[i] = load(run, at + 8u * i);
    }
    return x;
}
