// Sums and maximum over a workgroup of 256 invocations, by subgroups, in a fixed order: the variant
// of common/tree.wgsl for devices with subgroups. Call in uniform control flow only.
//
// Each subgroup covers an aligned run of lanes and reduces it. Every lane adds the results of the
// runs in the same order. subgroupAdd(1u) is the size of the subgroup.
const TREE_LANES: u32 = 256u;

var<workgroup> tree_values: array<f32, 256>;
var<workgroup> tree_quads: array<vec4<f32>, 256>;

fn tree_sum(value: f32, lane: u32) -> f32 {
    workgroupBarrier(); // all lanes have read the previous result, and reconverged
    let run = subgroupAdd(1u);
    tree_values[lane] = subgroupAdd(value);
    workgroupBarrier();
    var total = tree_values[0];
    for (var i = run; i < TREE_LANES; i += run) {
        total += tree_values[i];
    }
    return total;
}

// Four sums, each in the order of tree_sum.
fn tree_sum4(values: vec4<f32>, lane: u32) -> vec4<f32> {
    workgroupBarrier();
    let run = subgroupAdd(1u);
    tree_quads[lane] = subgroupAdd(values);
    workgroupBarrier();
    var total = tree_quads[0];
    for (var i = run; i < TREE_LANES; i += run) {
        total += tree_quads[i];
    }
    return total;
}

fn tree_max(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    let run = subgroupAdd(1u);
    tree_values[lane] = subgroupMax(value);
    workgroupBarrier();
    var largest = tree_values[0];
    for (var i = run; i < TREE_LANES; i += run) {
        largest = max(largest, tree_values[i]);
    }
    return largest;
}
