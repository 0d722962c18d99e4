// A counter-based random generator: the same words give the same hash on every device.
// Source: two rounds of the four-word PCG of Jarzynski and Olano, "Hash Functions for GPU
// Rendering", JCGT 9(3), 2020.
fn mixed(words: vec4<u32>) -> vec4<u32> {
    var v = words;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

fn hash(i: u32, seed: u32, step: u32, site: u32) -> u32 {
    let v = mixed(vec4<u32>(i, seed, step, site) * 1664525u + 1013904223u);
    return mixed(v ^ (v >> vec4<u32>(16u))).x;
}
