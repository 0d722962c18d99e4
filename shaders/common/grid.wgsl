// Flattens a grid that groups_for() may have folded over two axes into one linear index.
fn linear_index(id: vec3<u32>, n_groups: vec3<u32>, group_size: u32) -> u32 {
    return id.x + id.y * (n_groups.x * group_size);
}
