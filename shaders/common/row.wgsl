// Which row of a matrix an invocation works on where LANES invocations share a row and a workgroup
// of GROUP holds GROUP / LANES rows. Grid: rows * LANES invocations, folded. Both constants are
// generated.
struct RowLane {
    row: u32,  // may lie beyond the last row: clamp it for loads, do not store
    lane: u32, // 0 .. LANES
}

fn row_lane(group: vec3<u32>, n_groups: vec3<u32>, local: u32) -> RowLane {
    let index = group.x + group.y * n_groups.x;
    return RowLane(index * (GROUP / LANES) + local / LANES, local % LANES);
}
