// A run of queries and the keys they see. Query i sees all of sink and packed, and of the window run the rows before
// n_window + i, but of these only the last `width`. n_window is at most `width`, so the first query sees its whole run.
struct QueryTile {
    query: u32,     // first query row
    n_queries: u32,
    sink: u32,      // first row among the raw keys
    n_sink: u32,
    packed: u32,    // first row among the packed keys
    n_packed: u32,
    window: u32,    // first row among the raw keys
    n_window: u32,  // rows that the first query sees
    width: u32,     // most rows of the window run that a query sees; 2^31 where nothing limits them
}
