//! Step 5: generates a text with the dense and with the compressed cache, and compares the cache
//! sizes.
//!
//! The blocks are those of training, on an inference tape. Prefill runs in chunks. Whenever the
//! recent part of the cache holds two partitions, the older one is scored against the newer and
//! only its best pairs are kept.
//!
//!     cargo run --release --example 05_generate -- [DEVICE] [PROMPT]

use std::io::Write;
use std::ops::ControlFlow;

use longreach::Result;
use longreach::attention::{Attention, Lrsa};
use longreach::checkpoint::load::{Train, load};
use longreach::checkpoint::model_files::ModelFiles;
use longreach::generate::{DEFAULT_CHUNK, GenerateRequest, generate};
use longreach::gpu::open_device;
use longreach::kernels::sample::Sampling;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut device = open_device(&args.next().unwrap_or_else(|| "cpu".into()))?;
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".into());
    let files = ModelFiles::bundled(None)?;
    let mut loaded = load(device.as_mut(), &files.source, None, Train::Nothing)?;
    let prompt_ids = files.tokenizer()?.encode_prompt(&prompt)?;

    for attention in [Attention::Dense, Attention::Lrsa(Lrsa::new(4, 16, 0.25)?)] {
        let request = GenerateRequest {
            prompt_ids: &prompt_ids,
            max_tokens: 120,
            sampling: Sampling::default(), // greedy
            attention,
            chunk: DEFAULT_CHUNK,
            stop: files.stop.ids(),
            stop_texts: &[],
            shown: &[],
            seed: 0,
        };
        println!("--- {attention}");
        print!("{prompt}");
        let done = generate(device.as_mut(), &mut loaded.model, Some(files.tokenizer()?), &request, &mut |token| {
            print!("{}", token.text);
            let _ = std::io::stdout().flush(); // a failed flush only delays the text
            ControlFlow::Continue(())
        })?;
        let n_fed = done.prompt_tokens + done.generated_tokens - 1;
        println!("\n[{n_fed} tokens fed, {} entries kept a head, {} bytes in all]", done.kv_entries, done.kv_bytes);
        assert_eq!(done.kv_entries, attention.cache_length(n_fed), "the cache has the length that LagKV says");
    }
    Ok(())
}
