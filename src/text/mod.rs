//! Floor 7: text to token ids and back: tokenizers, chat templates and stop tokens.

mod chat_answers;
mod chat_fit;
pub mod chat_template;
pub mod conversation;
pub mod decode_stream;
pub mod gguf_tokenizer;
pub mod gguf_tokenizer_write;
pub(crate) mod jinja;
pub mod pre_tokenizer;
pub mod question_start;
pub mod special_tokens;
pub mod stop;
pub mod stop_text;
#[cfg(test)]
pub(crate) mod test_tokenizers;
pub mod token_bytes;
pub mod tokenizer;
pub(crate) mod tokenizer_check;
pub mod tokenizer_config;
