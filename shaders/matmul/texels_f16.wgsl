// Reads four f16 weights, two per word, from a texture.
@group(0) @binding(2) var w: texture_storage_2d<rg32uint, read>; // [rows, cols / 4]: texels of two words in the order of the buffer, 1,024 a row

fn texel_w(at: u32) -> vec4<f32> {
    let words = textureLoad(w, texel(at));
    return vec4<f32>(half(words.x), half(words.x >> 16u), half(words.y), half(words.y >> 16u));
}
