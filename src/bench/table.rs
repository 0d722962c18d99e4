//! A benchmark report, or a comparison of two, as text for the terminal.

use super::compare::{Change, Comparison, Quantity};
use super::report::{Profile, Report};

/// A time in a suitable unit.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A number with about three significant digits.
fn figure(x: f64) -> String {
    match x {
        x if x < 9.995 => format!("{x:.2}"),
        x if x < 99.95 => format!("{x:.1}"),
        x => format!("{x:.0}"),
    }
}

/// Bytes in MiB.
fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Rows as aligned text: the first `n_left` columns left-aligned, the others right-aligned.
fn aligned(rows: &[Vec<String>], n_left: usize) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (c, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[c] - cell.chars().count());
            line += &if c < n_left { format!(" {cell}{space} ") } else { format!(" {space}{cell} ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// The whole report as text.
pub fn table(report: &Report) -> String {
    let mut text = format!("{}\n", report.device);
    if let Some(roofline) = &report.roofline {
        text += &format!(
            "  peak: {} GFLOP/s (multiply-adds in registers), {} GB/s (large copy)\n\n",
            figure(roofline.gflop_per_s),
            figure(roofline.gb_per_s)
        );
        let mut rows = vec![cells(["kernel", "variant", "case", "best", "median", "GFLOP/s", "GB/s", "of roofline"])];
        for r in &report.kernels {
            rows.push(vec![
                r.kernel.clone(),
                r.variant.clone(),
                r.case.clone(),
                duration(r.best_seconds),
                duration(r.median_seconds),
                if r.flops == 0 { "-".to_string() } else { figure(r.gflop_per_s) },
                figure(r.gb_per_s),
                format!("{:.0} %", 100.0 * r.of_roofline),
            ]);
        }
        text += &aligned(&rows, 3);
        text.push('\n');
    }
    if !report.runs.is_empty() {
        text += &format!("{}; {}\n\n", report.model, report.lrsa);
        text += &aligned(&run_rows(report), 2);
    }
    report.profiles.iter().for_each(|p| push_profile(&mut text, p));
    text
}

fn push_profile(text: &mut String, profile: &Profile) {
    let all: f64 = profile.kernels.iter().map(|k| k.seconds).sum();
    let (activity, attention) = (profile.activity.name(), &profile.attention);
    *text += &format!("\n{activity}, {attention}, {} tokens: {} of commands\n\n", profile.length, duration(all));
    let mut rows = vec![cells(["kernel", "runs", "total", "share"])];
    for k in &profile.kernels {
        let share = format!("{:.1} %", 100.0 * k.seconds / all);
        rows.push(vec![k.kernel.clone(), k.dispatches.to_string(), duration(k.seconds), share]);
    }
    *text += &aligned(&rows, 1);
}

fn run_rows(report: &Report) -> Vec<Vec<String>> {
    let head = ["", "attention", "tokens", "first run", "median", "tokens/s", "peak MiB", "KV cache MiB"];
    let mut rows = vec![cells(head)];
    for r in &report.runs {
        rows.push(vec![
            r.name(),
            r.attention.clone(),
            r.length.to_string(),
            r.first_seconds.map_or("-".to_string(), duration),
            r.median_seconds.map_or("-".to_string(), duration),
            r.tokens_per_s.map_or("-".to_string(), figure),
            mib(r.peak_bytes),
            if r.kv_bytes == 0 { "-".to_string() } else { mib(r.kv_bytes) },
        ]);
    }
    rows
}

/// A comparison as text.
pub fn comparison_table(comparison: &Comparison) -> String {
    let [old, new] = &comparison.devices;
    let mut text = format!("old: {old}\nnew: {new}\n\n");
    let mut rows = vec![cells(["", "old", "new", "new / old", ""])];
    for change in &comparison.changes {
        let (show, worse, better): (fn(f64) -> String, _, _) = match change.quantity {
            Quantity::Time => (duration, "SLOWER", "faster"),
            Quantity::Memory => (|bytes| format!("{} MiB", mib(bytes as u64)), "LARGER", "smaller"),
        };
        let mark = match (change.is_worse(), change.is_better()) {
            (true, _) => worse,
            (_, true) => better,
            _ => "",
        };
        rows.push(vec![
            change.name.clone(),
            show(change.old),
            show(change.new),
            figure(change.ratio()),
            mark.to_string(),
        ]);
    }
    text += &aligned(&rows, 1);
    for (names, which) in [(&comparison.only_old, "old"), (&comparison.only_new, "new")] {
        names.iter().for_each(|name| text += &format!("only in the {which} report: {name}\n"));
    }
    let n = |f: fn(&Change) -> bool| comparison.changes.iter().filter(|c| f(c)).count();
    text += &format!(
        "\n{} figures in both, {} more than 10 % slower or larger, {} more than 10 % faster or smaller\n",
        comparison.changes.len(),
        n(Change::is_worse),
        n(Change::is_better)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = [cells(["a", "12.0 µs"]), cells(["long", "1 s"])];
        assert_eq!(aligned(&rows, 1), "  a     12.0 µs\n  long      1 s\n");
    }

    #[test]
    fn figures_have_units_that_suit_them() {
        assert_eq!([duration(2.5e-6), duration(0.0123), duration(2.0)], ["2.5 µs", "12.30 ms", "2.00 s"]);
        assert_eq!([figure(1.234), figure(12.34), figure(1234.5)], ["1.23", "12.3", "1234"]);
    }
}
