// Sums and maximum over a workgroup of 256 invocations, by a binary tree in workgroup memory, in a
// fixed order: the portable variant. Call in uniform control flow only.
const TREE_LANES: u32 = 256u;

var<workgroup> tree_values: array<f32, 256>;
var<workgroup> tree_quads: array<vec4<f32>, 256>;

fn tree_sum(value: f32, lane: u32) -> f32 {
    workgroupBarrier(); // all lanes have read the previous result
    tree_values[lane] = value;
    workgroupBarrier();
    for (var half = TREE_LANES / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            tree_values[lane] += tree_values[lane + half];
        }
        workgroupBarrier();
    }
    return tree_values[0];
}

// Four sums, each in the order of tree_sum.
fn tree_sum4(values: vec4<f32>, lane: u32) -> vec4<f32> {
    workgroupBarrier(); // all lanes have read the previous result
    tree_quads[lane] = values;
    workgroupBarrier();
    for (var half = TREE_LANES / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            tree_quads[lane] += tree_quads[lane + half];
        }
        workgroupBarrier();
    }
    return tree_quads[0];
}

fn tree_max(value: f32, lane: u32) -> f32 {
    workgroupBarrier(); // all lanes have read the previous result
    tree_values[lane] = value;
    workgroupBarrier();
    for (var half = TREE_LANES / 2u; half > 0u; half >>= 1u) {
        if lane < half {
            tree_values[lane] = max(tree_values[lane], tree_values[lane + half]);
        }
        workgroupBarrier();
    }
    return tree_values[0];
}
