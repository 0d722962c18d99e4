// A run of queries and the keys they see. Query i sees all sink and kept keys. Of the recent run,
// it sees the rows before n_recent + i, limited to the last `width` rows. n_recent is at most
// `width`, so the first query sees its whole run.
struct QueryTile {
    query: u32,    // first query row
    n_queries: u32,
    sink: u32,     // first row in the recent buffer
    n_sink: u32,
    kept: u32,     // first row in the kept buffer
    n_kept: u32,
    recent: u32,   // first row in the recent buffer
    n_recent: u32, // rows visible to the first query
    width: u32,    // maximum rows of the recent run that a query sees; 2^31 for no limit
}
