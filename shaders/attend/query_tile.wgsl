// A run of queries and the keys they see. Query i sees all of sink and kept, and of the recent run
// the rows before n_recent + i, but of these only the last `width`. n_recent is at most `width`, so
// the first query sees its whole run.
struct QueryTile {
    query: u32,    // first query row
    n_queries: u32,
    sink: u32,     // first row among the recent keys
    n_sink: u32,
    kept: u32,     // first row among the kept keys
    n_kept: u32,
    recent: u32,   // first row among the recent keys
    n_recent: u32, // rows that the first query sees
    width: u32,    // most rows of the recent run that a query sees; 2^31 where nothing limits them
}
