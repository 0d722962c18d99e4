#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        longreach_fuzz::write_seeds("parquet");
        longreach_fuzz::let_caught_panics_pass();
    },
    |bytes: &[u8]| longreach_fuzz::run(longreach_fuzz::readers::parquet, bytes)
);
