//! A place in a text of literals, with what the readers of tool calls have in common.

/// Deepest nesting of values, as in JSON.
const MAX_DEPTH: usize = 128;

/// A place in a text.
pub struct Cursor<'a> {
    /// The text from here.
    pub rest: &'a str,
    depth: usize,
}

impl<'a> Cursor<'a> {
    /// The beginning of a text.
    pub fn new(text: &'a str) -> Self {
        Self { rest: text, depth: 0 }
    }

    pub fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a mark and the space before it, if it comes next.
    pub fn take(&mut self, mark: &str) -> bool {
        let after = self.rest.trim_start().strip_prefix(mark);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Reads items with commas between them, and the mark at their end.
    pub fn items(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        while !self.take(end) {
            item(self)?;
            if !self.take(",") && !self.rest.trim_start().starts_with(end) {
                return None;
            }
        }
        Some(())
    }

    /// Reads a value within another one. `None` if it lies too deep.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let value = if self.depth > MAX_DEPTH { None } else { read(self) };
        self.depth -= 1;
        value
    }
}
