// The first operand of a matrix product, in a buffer.
@group(0) @binding(1) var<storage, read> a: array<f32>; // [m, a_stride], or [k, a_stride] in tn
