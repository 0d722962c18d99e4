//! Runs of queries and of keys that the attention kernels work on at a time, as the shaders read them.

/// Lanes of an attention workgroup; a query tile has at most this many (query, head of the group) pairs.
pub(super) const LANES: usize = 64;

/// One run of queries and the keys they see, as the shaders read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct QueryTile {
    /// First query row.
    pub query: u32,
    /// Queries.
    pub n_queries: u32,
    /// First sink row among the raw keys.
    pub sink: u32,
    /// Sink keys.
    pub n_sink: u32,
    /// First packed row.
    pub packed: u32,
    /// Packed keys.
    pub n_packed: u32,
    /// First window row among the raw keys.
    pub window: u32,
    /// Window keys that the first query sees; each later query sees one more.
    pub n_window: u32,
}

/// One run of keys and the queries that see them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct KeyTile {
    /// First key row.
    pub key: u32,
    /// Keys.
    pub n_keys: u32,
    /// First query row that sees the first key.
    pub query: u32,
    /// End of the query rows.
    pub query_end: u32,
    /// Keys in a row that are seen from the same query on: 1 of raw keys, those of a partition of packed ones.
    pub run: u32,
    /// Queries that a run is seen later than the one before: key i from query + i / run · step on.
    pub step: u32,
}

impl KeyTile {
    /// How many of the keys, from the first on, query `later` of those that see the first key sees.
    pub(super) fn n_seen(&self, later: usize) -> usize {
        (self.n_keys as usize).min((later / self.step as usize + 1) * self.run as usize)
    }
}
