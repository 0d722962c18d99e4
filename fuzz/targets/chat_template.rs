#![no_main]

libfuzzer_sys::fuzz_target!(
    init: longreach_fuzz::write_seeds("chat_template"),
    |bytes: &[u8]| longreach_fuzz::run(longreach_fuzz::readers::chat_template, bytes)
);
