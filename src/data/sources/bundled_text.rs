//! The bundled text as training data under the name `moby-dick`: passages of Moby Dick.

use super::record::{Content, Each, Place};
use crate::checkpoint::bundled::MOBY_DICK;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// The name of the data, unless a file or folder has that name.
pub const NAME: &str = "moby-dick";
/// Bytes of a passage: with the bundled model, fewer than its 512 positions and enough for LRSA to
/// compress.
const PASSAGE: usize = 700;
/// One passage in so many, the last ones of the text, is for validation.
const HELD_OUT: usize = 10;

const TRAIN: &str = "moby-dick/train";
const VALID: &str = "moby-dick/valid";

/// Whether a path is the name of the bundled data.
pub fn is_named(path: &Path) -> bool {
    path == Path::new(NAME) && !path.exists()
}

/// Names for the parts of the bundled data: training and validation.
pub fn parts() -> [PathBuf; 2] {
    [TRAIN, VALID].map(PathBuf::from)
}

/// Whether a path is one of [`parts`].
pub fn is_part(path: &Path) -> bool {
    parts().iter().any(|part| part == path) && !path.exists()
}

/// The passages of a part.
pub fn read(part: &Path, each: Each<'_>) -> Result<()> {
    let all = passages(MOBY_DICK);
    let (train, valid) = all.split_at(all.len() - all.len() / HELD_OUT);
    let passages = if part == Path::new(VALID) { valid } else { train };
    passages
        .iter()
        .zip(1..)
        .try_for_each(|(passage, n)| each(Place::Passage(n), Content::Document(passage.to_string())))
}

/// Cuts a text into passages of at most [`PASSAGE`] bytes, after the end of a sentence where there is
/// one in the second half.
fn passages(text: &str) -> Vec<&str> {
    let (mut rest, mut passages) = (text.trim(), Vec::new());
    while rest.len() > PASSAGE {
        let window = &rest[..rest.floor_char_boundary(PASSAGE)];
        let ends = [". ", "! ", "? ", "\n"].map(|end| window.rfind(end).map(|at| at + 1));
        let end = ends.into_iter().flatten().max().filter(|&end| end > PASSAGE / 2);
        let end = end.or(window.rfind(' ')).unwrap_or(window.len());
        passages.push(rest[..end].trim_end());
        rest = rest[end..].trim_start();
    }
    passages.push(rest);
    passages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_are_whole_sentences_and_lose_nothing() {
        let all = passages(MOBY_DICK);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(all.iter().flat_map(|passage| words(passage)).collect::<Vec<_>>(), words(MOBY_DICK));
        assert!(all.iter().all(|passage| !passage.is_empty() && passage.len() <= PASSAGE));
        let ends = all.iter().filter(|passage| passage.ends_with(['.', '!', '?', '"'])).count();
        assert!(ends * 10 > all.len() * 9, "{ends} of {}", all.len());
        assert_eq!(passages("short"), ["short"]);
        let long = "x".repeat(2 * PASSAGE);
        assert_eq!(passages(&long).len(), 2);
    }
}
