//! Draws the kept tokens of a text as SVG: each token shaded, in lines of a monospaced font.

use std::fmt::Write as _;

use super::kept::KeptMap;
use crate::error::Result;

/// Characters per line.
const COLUMNS: usize = 100;
/// Width of a character, in SVG units.
const LETTER: f64 = 7.5;
/// Height of a line, in SVG units.
const LINE: f64 = 19.0;
/// Height of title and legend above the text.
const TOP: f64 = 98.0;
const MARGIN: f64 = 18.0;

/// Position of a piece of a token.
struct Place {
    token: usize,
    line: usize,
    column: usize,
    text: String,
}

impl KeptMap {
    /// The text as SVG, each token shaded by the fraction of heads that keep it.
    pub fn to_svg(&self, layer: Option<usize>, head: Option<usize>) -> Result<String> {
        Ok(draw(self, &self.shares(layer, head)?, layer, head))
    }
}

/// Replaces control characters with spaces.
fn shown(piece: &str) -> String {
    piece.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Positions of all tokens, and the number of lines. A line break in a token ends the line after
/// that token.
fn places(tokens: &[String]) -> (Vec<Place>, usize) {
    let (mut places, mut line, mut column) = (Vec::new(), 0, 0);
    for (token, text) in tokens.iter().enumerate() {
        let breaks = text.matches('\n').count();
        let letters: Vec<char> = shown(text.trim_end_matches('\n')).chars().collect();
        let fits = column + letters.len() <= COLUMNS;
        if !fits && column > 0 {
            (line, column) = (line + 1, 0);
        }
        for part in letters.chunks(COLUMNS) {
            places.push(Place { token, line, column, text: part.iter().collect() });
            column += part.len();
            if column >= COLUMNS {
                (line, column) = (line + 1, 0);
            }
        }
        if breaks > 0 {
            if letters.is_empty() {
                places.push(Place { token, line, column, text: "↵".into() });
            }
            (line, column) = (line + breaks.min(2), 0);
        }
    }
    (places, line + 1)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The line below the title.
fn subtitle(map: &KeptMap, layer: Option<usize>, head: Option<usize>) -> String {
    let (n_heads, n_compressed) = (map.n_heads(), map.compressed_layers().count());
    let layers = match map.kept.len() {
        n if n == n_compressed => format!("{n} layers"),
        n => format!("{n_compressed} of {n} layers"),
    };
    let who = match (layer, head) {
        (None, None) => format!("{layers} with {n_heads} heads each"),
        (Some(l), None) => format!("layer {l}, {n_heads} heads"),
        (None, Some(h)) => format!("head {h} of {layers}"),
        (Some(l), Some(h)) => format!("layer {l}, head {h}"),
    };
    let (sink, lag, keep) = (map.sink, map.lag, map.keep);
    format!("{} tokens; {who}; sink {sink}, lag {lag}, keep {keep}", map.tokens.len())
}

/// A shade of blue, deeper the more heads keep a token.
fn fill(share: f64) -> String {
    let mix = |full: f64| (255.0 + (full - 255.0) * share).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(120.0), mix(180.0), mix(235.0))
}

pub(super) fn draw(map: &KeptMap, shares: &[f64], layer: Option<usize>, head: Option<usize>) -> String {
    let (places, lines) = places(&map.tokens);
    let width = 2.0 * MARGIN + COLUMNS as f64 * LETTER;
    let height = TOP + lines as f64 * LINE + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <g font-family=\"sans-serif\" fill=\"#222\">\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"17\">What the cache keeps</text>\n\
         <text x=\"{MARGIN}\" y=\"42\" font-size=\"12\">{}</text>\n",
        escaped(&subtitle(map, layer, head))
    );
    legend(&mut svg);
    svg.push_str("</g>\n<g font-family=\"monospace\" font-size=\"12.5\" fill=\"#222\">\n");
    for place in &places {
        let (x, y) = (MARGIN + place.column as f64 * LETTER, TOP + place.line as f64 * LINE);
        let (w, share) = (place.text.chars().count() as f64 * LETTER, shares[place.token]);
        let is_whole = place.token < map.sink || place.token >= map.recent_start;
        let state = if is_whole { "sink or recent".to_string() } else { format!("{:.0} % of heads", 100.0 * share) };
        let (fill, ink) = match (is_whole, share == 0.0) {
            (true, _) => ("#fff6d6".to_string(), "#222"),
            (false, true) => ("none".to_string(), "#767676"),
            (false, false) => (fill(share), "#222"),
        };
        let _ = write!(
            svg,
            "<g><title>token {}: {state}</title><rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{w:.1}\" height=\"{LINE}\" fill=\"{fill}\"/>",
            place.token,
            y - 14.0
        );
        // SVG drops spaces at the ends of a text, so draw the text without them.
        let (bare, n_before) = (place.text.trim(), place.text.chars().take_while(|c| c.is_whitespace()).count());
        if !bare.is_empty() {
            let (x, w) = (x + n_before as f64 * LETTER, bare.chars().count() as f64 * LETTER);
            let text = escaped(bare);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{w:.1}\" fill=\"{ink}\">{text}</text>");
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let whole = "#fff6d6".to_string();
    let entries = [
        ("kept by no head", fill(0.0), 132.0),
        ("by some", fill(0.25), 84.0),
        ("by half", fill(0.5), 78.0),
        ("by all", fill(1.0), 72.0),
        ("sink and recent part: always kept", whole, 0.0),
    ];
    let mut x = MARGIN;
    for (label, fill, width) in entries {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"54\" width=\"14\" height=\"14\" fill=\"{fill}\" stroke=\"#999\"/>\
             <text x=\"{}\" y=\"66\" font-size=\"12\">{label}</text>",
            x + 19.0
        );
        x += width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_a_place_within_the_line() {
        let tokens: Vec<String> =
            ["Call", " me", "\n\n", " <b>", &"x".repeat(250), "\n"].iter().map(|s| s.to_string()).collect();
        let (places, lines) = places(&tokens);
        for token in 0..tokens.len() {
            assert!(places.iter().any(|p| p.token == token), "token {token}");
        }
        assert!(places.iter().all(|p| p.column + p.text.chars().count() <= COLUMNS && p.line < lines));
        let map = KeptMap {
            tokens,
            sink: 1,
            lag: 2,
            keep: 0.5,
            recent_start: 5,
            kept: vec![vec![vec![1, 3], vec![2, 3]], vec![vec![1, 4], vec![2, 3]]],
        };
        assert_eq!(map.shares(None, None).unwrap(), [1.0, 0.5, 0.5, 0.75, 0.25, 1.0]);
        assert_eq!(map.shares(Some(1), Some(0)).unwrap(), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        assert!(map.shares(Some(2), None).is_err() && map.shares(None, Some(2)).is_err());
        let svg = map.to_svg(None, Some(1)).unwrap();
        assert!(
            svg.contains("&lt;b&gt;") && svg.contains("head 1 of 2 layers") && svg.contains("token 3: 100 % of heads")
        );
    }

    #[test]
    fn layers_that_are_not_compressed_are_left_out() {
        let map = KeptMap {
            tokens: ["a", "b", "c", "d"].map(String::from).to_vec(),
            sink: 1,
            lag: 2,
            keep: 0.5,
            recent_start: 3,
            kept: vec![vec![], vec![vec![1], vec![2]], vec![]],
        };
        assert_eq!(map.compressed_layers().collect::<Vec<_>>(), [1]);
        assert_eq!(map.shares(None, None).unwrap(), [1.0, 0.5, 0.5, 1.0]);
        assert_eq!(map.shares(Some(1), Some(0)).unwrap(), [1.0, 1.0, 0.0, 1.0]);
        let e = map.shares(Some(2), None).unwrap_err().to_string();
        assert!(e.contains("layer 2 has a sliding window"), "{e}");
        assert!(map.to_svg(None, None).unwrap().contains("1 of 3 layers with 2 heads each"));
    }
}
