//! Tars, with all that PAX and GNU add.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = cache::ingest::tar(bytes, std::io::sink());
});
