// Sums and maxima over the lanes of a workgroup, by subgroups: the variant of common/reduce.wgsl
// for devices with subgroups. The linking kernel declares `const GROUP: u32`, its workgroup size, a
// power of two. All invocations of the workgroup call a helper together, in uniform control flow.
// Each receives the result of its segment.
//
// Each subgroup covers an aligned run of lanes and reduces it. The results of the runs go to
// workgroup memory, and every lane adds them in the same order. subgroupAdd(1u) is the size of the
// subgroup, which may be larger or smaller than n. The order of the sum depends on the number of
// lanes and the subgroup size, which is fixed per device.
var<workgroup> partials: array<f32, GROUP>;

// No partner lane is further away than this.
const MAX_SUBGROUP: u32 = 128u;

// Sum over each aligned segment of n lanes. n is a power of two up to GROUP, and uniform across the
// workgroup.
fn segment_sum(value: f32, lane: u32, n: u32) -> f32 {
    if n == GROUP {
        return workgroup_sum(value, lane);
    }
    workgroupBarrier(); // all lanes have read the previous result, and reconverged
    let run = min(subgroupAdd(1u), n);
    var total = value;
    for (var step = 1u; step < min(n, MAX_SUBGROUP); step *= 2u) {
        let partner = subgroupShuffleXor(total, step);
        total += select(0.0, partner, step < run);
    }
    partials[lane] = total;
    workgroupBarrier();
    let first = lane & ~(n - 1u);
    total = partials[first];
    for (var i = run; i < n; i += run) {
        total += partials[first + i];
    }
    return total;
}

// Maximum over each aligned segment of n lanes.
fn segment_max(value: f32, lane: u32, n: u32) -> f32 {
    if n == GROUP {
        return workgroup_max(value, lane);
    }
    workgroupBarrier();
    let run = min(subgroupAdd(1u), n);
    var largest = value;
    for (var step = 1u; step < min(n, MAX_SUBGROUP); step *= 2u) {
        let partner = subgroupShuffleXor(largest, step);
        largest = select(largest, max(largest, partner), step < run);
    }
    partials[lane] = largest;
    workgroupBarrier();
    let first = lane & ~(n - 1u);
    largest = partials[first];
    for (var i = run; i < n; i += run) {
        largest = max(largest, partials[first + i]);
    }
    return largest;
}

// Sum over the whole workgroup.
fn workgroup_sum(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    let run = subgroupAdd(1u);
    partials[lane] = subgroupAdd(value);
    workgroupBarrier();
    var total = partials[0];
    for (var i = run; i < GROUP; i += run) {
        total += partials[i];
    }
    return total;
}

// Maximum over the whole workgroup.
fn workgroup_max(value: f32, lane: u32) -> f32 {
    workgroupBarrier();
    let run = subgroupAdd(1u);
    partials[lane] = subgroupMax(value);
    workgroupBarrier();
    var largest = partials[0];
    for (var i = run; i < GROUP; i += run) {
        largest = max(largest, partials[i]);
    }
    return largest;
}
