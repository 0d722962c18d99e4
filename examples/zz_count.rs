use std::collections::BTreeMap;
fn main() {
    let mut a: BTreeMap<&str, usize> = BTreeMap::new();
    let mut b: BTreeMap<&str, usize> = BTreeMap::new();
    for m in longreach::conformance::mutation::mutants() {
        *a.entry(m.path).or_default() += 1;
        *b.entry(m.operator).or_default() += 1;
        if std::env::args().count() > 1 {
            println!("{} {} {} [{}] {} → {}", m.index, m.path, m.line, m.operator, m.before, m.after);
        }
    }
    for (k, v) in a {
        println!("{v:5} {k}");
    }
    for (k, v) in b {
        println!("{v:5} {k}");
    }
}
