// Reads four f32 weights, from a texture.
@group(0) @binding(2) var w: texture_storage_2d<rgba32float, read>; // [rows, cols / 4]: texels in the order of the buffer, 1,024 a row

fn texel_w(at: u32) -> vec4<f32> {
    return textureLoad(w, texel(at));
}
