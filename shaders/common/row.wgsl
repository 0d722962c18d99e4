// Maps an invocation to a matrix row: LANES invocations share a row, and a workgroup of GROUP
// invocations holds GROUP / LANES rows. The host generates both constants.
// grid: rows * LANES invocations, folded.
struct RowLane {
    row: u32,  // may exceed the last row: clamp it for loads, skip the store
    lane: u32, // 0 .. LANES
}

fn row_lane(group: vec3<u32>, n_groups: vec3<u32>, local: u32) -> RowLane {
    let index = group.x + group.y * n_groups.x;
    return RowLane(index * (GROUP / LANES) + local / LANES, local % LANES);
}
