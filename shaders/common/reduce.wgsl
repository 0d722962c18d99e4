// Sums and maxima over the lanes of a workgroup, through workgroup memory: the portable variant.
// The linking kernel declares `const GROUP: u32`, its workgroup size, a power of two. All
// invocations of the workgroup call a helper together, in uniform control flow. Each receives the
// result of its segment. The order of the sum depends only on the number of lanes.
var<workgroup> partials: array<f32, GROUP>;

// Sum over each aligned segment of n lanes. n is a power of two up to GROUP, and uniform across the
// workgroup.
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
    workgroupBarrier(); // the next call overwrites values that other lanes may still read
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
