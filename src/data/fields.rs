//! The fields that a line of training data may have, and how a table of text holds each of them.
//!
//! One list makes the type that JSON lines are read into and the columns that are read of a table.

use serde::Deserialize;
use serde_json::value::RawValue;

/// How a cell in a table of text holds a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// As it is. An empty cell is an empty text.
    Text,
    /// As it is. An empty cell is an absent value.
    OptionalText,
    /// As JSON. An empty cell is an absent value.
    Json,
    /// As JSON if it is a list of messages, or else as it is. An empty cell is an empty text.
    TextOrMessages,
}

/// A column of a table that a line may have.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub cell: Cell,
}

/// Makes [`Fields`] and [`COLUMNS`] from one list.
macro_rules! fields {
    ($($name:ident $(or $other:literal)?: $cell:ident,)*) => {
        /// The known fields of a line, as raw JSON, so that a long list of ids does not become a
        /// tree of JSON values first. A field that is null is absent.
        #[derive(Deserialize)]
        pub struct Fields<'a> {
            $(#[serde(borrow $(, alias = $other)?)] pub $name: Option<&'a RawValue>,)*
        }

        /// The columns of a table that a line may have.
        pub const COLUMNS: &[Column] = &[$(
            Column { name: stringify!($name), cell: Cell::$cell },
            $(Column { name: $other, cell: Cell::$cell },)?
        )*];
    };
}

fields! {
    input_ids or "ids": Json,
    labels: Json,
    attention_mask: Json,
    completion_mask: Json,
    assistant_masks: Json,
    position_ids: Json,
    seq_lengths: Json,
    messages: Json,
    conversations: Json,
    prompt: TextOrMessages,
    completion: TextOrMessages,
    chosen: TextOrMessages,
    rejected: TextOrMessages,
    instruction: Text,
    input: OptionalText,
    output: Text,
    history: Json,
    system: OptionalText,
    text: Text,
    tools: Json,
    documents: Json,
    functions: Json,
    chat_template_kwargs: Json,
}

/// The column of that name, if a line may have it.
pub fn column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name)
}

/// The names of all columns, for error messages.
pub fn names() -> String {
    COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_read_and_no_other_field() {
        for column in COLUMNS {
            let line = format!("{{\"{}\": [7]}}", column.name);
            let f: Fields = serde_json::from_str(&line).unwrap();
            let tokens = [f.input_ids, f.labels, f.attention_mask, f.completion_mask, f.assistant_masks];
            let packed = [f.position_ids, f.seq_lengths];
            let texts = [f.prompt, f.completion, f.chosen, f.rejected, f.instruction, f.input, f.output, f.text];
            let chats = [f.messages, f.conversations, f.history, f.system, f.tools, f.documents, f.functions];
            let all = tokens.into_iter().chain(packed).chain(texts).chain(chats).chain([f.chat_template_kwargs]);
            let found: Vec<&str> = all.flatten().map(RawValue::get).collect();
            assert_eq!(found, ["[7]"], "{line}");
        }
        let first: Vec<&str> = COLUMNS[..5].iter().map(|column| column.name).collect();
        assert_eq!(first, ["input_ids", "ids", "labels", "attention_mask", "completion_mask"]);
        assert!(column("assistant_masks").is_some_and(|column| column.cell == Cell::Json));
        assert!(column("input_id").is_none() && names().starts_with("input_ids, ids, labels, "));
    }
}
