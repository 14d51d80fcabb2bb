#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pushimg::fuzzing::image_list(data));
