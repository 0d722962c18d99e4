// silu(g) = g / (1 + exp(-g)); with s = 1 / (1 + exp(-g)) its slope is s * (1 + g * (1 - s)).
// Beyond 80 nothing changes in f32, and exp stays finite.
fn activation(g: f32) -> f32 {
    return g / (1.0 + exp(-clamp(g, -80.0, 80.0)));
}

fn activation_and_slope(g: f32) -> vec2<f32> {
    let s = 1.0 / (1.0 + exp(-clamp(g, -80.0, 80.0)));
    return vec2<f32>(g * s, s * (1.0 + g * (1.0 - s)));
}
