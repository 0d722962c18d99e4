//! Text in: tokenizers, datasets, packing.

pub mod batch;
pub mod bundled;
pub mod dataset;
pub mod decode_stream;
mod example;
pub mod gguf_tokenizer;
pub mod model_files;
pub mod pre_tokenizer;
pub mod rng;
pub mod stop;
pub mod tokenizer;
mod tokenizer_check;

#[cfg(test)]
mod test_tokenizers;
