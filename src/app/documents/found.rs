//! What reading a file gives: its text, or why it is refused.

/// Largest text of a document in bytes.
pub const MAX_TEXT: usize = 16 << 20;

/// What a file says, or what is wrong with it and what to do, as the rest of a sentence that begins
/// with the name of the file.
pub type Found = std::result::Result<Text, String>;

/// The text of a file.
#[derive(Debug, Default, PartialEq)]
pub struct Text {
    pub text: String,
    /// What the user should know about it; may be empty.
    pub note: String,
}

/// Why a document with too much text is refused.
pub fn too_long() -> String {
    format!("has more than {} MiB of text: split it into smaller files", MAX_TEXT >> 20)
}
