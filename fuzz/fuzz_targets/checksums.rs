//! Lists of checksums, bare and clear-signed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (name, text) = text.split_once('\n').unwrap_or(("DIGESTS", text));
    let _ = stagegraph::formats::checksums::is_named_like_checksums(name);
    let _ = stagegraph::formats::checksums::parse(name, text);
});
