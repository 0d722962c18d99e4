//! Text in: tokenizers, datasets, packing.

pub mod decode_stream;
pub mod gguf_tokenizer;
pub mod pre_tokenizer;
pub mod tokenizer;

#[cfg(test)]
mod test_tokenizers;
