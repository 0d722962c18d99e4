// Sums and maxima over the lanes of a workgroup, through workgroup memory: the portable form. The
// linking kernel declares `const GROUP: u32`, the power of two that is its workgroup size. All
// invocations of the workgroup call a helper together, in uniform flow; each receives the result of
// its segment. The order of the sum depends on nothing but the number of lanes.
var<workgroup> partials: array<f32, GROUP>;

// Sum over each aligned segment of n lanes. n: a power of two up to GROUP, equal for the workgroup.
fn segment_sum(value: f32, lane: u32, n: u32) -> f32 {
    partials[lane] = value;
    workgroupBarrier();
    for (var step = n / 2u; step > 0u; step /= 2u) {
        if (lane & (n - 1u)) < step {
            partials[lane] += partials[lane + step];
        }
        workgroupBarrier();
    }
    let total = partials[lane & ~(n - 1u)];
    workgroupBarrier(); // the next call overwrites what others may still read
    return total;
}

// Maximum over each aligned segment of n lanes.
fn segment_max(value: f32, lane: u32, n: u32) -> f32 {
    partials[lane] = value;
    workgroupBarrier();
    for (var step = n / 2u; step > 0u; step /= 2u) {
        if (lane & (n - 1u)) < step {
            partials[lane] = max(partials[lane], partials[lane + step]);
        }
        workgroupBarrier();
    }
    let largest = partials[lane & ~(n - 1u)];
    workgroupBarrier();
    return largest;
}
