//! The counter-based random generator of dropout and noise.

/// One mixing round of the four-word PCG hash (Jarzynski and Olano, JCGT 9(3), 2020).
fn mixed([mut x, mut y, mut z, mut w]: [u32; 4]) -> [u32; 4] {
    x = x.wrapping_add(y.wrapping_mul(w));
    y = y.wrapping_add(z.wrapping_mul(x));
    z = z.wrapping_add(x.wrapping_mul(y));
    w = w.wrapping_add(y.wrapping_mul(z));
    [x, y, z, w]
}

/// The hash of an element under a key of seed, step and site; bit for bit equal to that of
/// `common/hash.wgsl`.
pub fn hash(i: u32, [seed, step, site]: [u32; 3]) -> u32 {
    let seeded = [i, seed, step, site].map(|v| v.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    mixed(mixed(seeded).map(|v| v ^ (v >> 16)))[0]
}
