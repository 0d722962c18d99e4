#![no_main]

libfuzzer_sys::fuzz_target!(
    init: longreach_fuzz::write_seeds("gguf_split"),
    |bytes: &[u8]| longreach_fuzz::run(longreach_fuzz::readers::gguf_split, bytes)
);
