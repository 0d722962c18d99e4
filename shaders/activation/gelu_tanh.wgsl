// gelu_tanh(g) = g / 2 * (1 + tanh(v)) with v = sqrt(2 / pi) * (g + 0.044715 * g^3)
// = g / (1 + exp(-2 v)), which avoids cancellation for negative g
// 2 v = g * (A + B * g^2)
// slope = s * (1 + g * (e * s) * (A + 3 * B * g^2)) with e = exp(-2 v), s = 1 / (1 + e)
// Clamping at 9.5 does not change the f32 result and keeps the cube and exp finite.
// Source: Hendrycks and Gimpel, arXiv 1606.08415.
const A: f32 = 1.5957691216; // 2 * sqrt(2 / pi)
const B: f32 = 0.0713548163; // 0.044715 * A

fn activation(g: f32) -> f32 {
    let c = clamp(g, -9.5, 9.5);
    return max(g, -9.5) / (1.0 + exp(-c * (A + B * (c * c))));
}

fn activation_and_slope(g: f32) -> vec2<f32> {
    let c = clamp(g, -9.5, 9.5);
    let e = exp(-c * (A + B * (c * c)));
    let s = 1.0 / (1.0 + e);
    return vec2<f32>(max(g, -9.5) * s, s * (1.0 + c * (e * s) * (A + 3.0 * B * (c * c))));
}
