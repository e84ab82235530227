#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    sessile_tests::fuzz::check(sessile_tests::fuzz::target("database_file"), input);
});
