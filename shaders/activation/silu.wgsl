// silu(g) = g / (1 + exp(-g))
// slope = s * (1 + g * (1 - s)) with s = 1 / (1 + exp(-g))
// Clamping at 80 does not change the f32 result and keeps exp finite.
fn activation(g: f32) -> f32 {
    return g / (1.0 + exp(-clamp(g, -80.0, 80.0)));
}

fn activation_and_slope(g: f32) -> vec2<f32> {
    let s = 1.0 / (1.0 + exp(-clamp(g, -80.0, 80.0)));
    return vec2<f32>(g * s, s * (1.0 + g * (1.0 - s)));
}
