//! The compressions of initramfs images and tars; a bomb is cut off.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    use stagegraph::formats::compression::Compression;
    use std::io::Read;
    if let Some(compression) = Compression::detect(bytes) {
        for decoder in [compression.decoder(bytes), compression.decoder_to_end(bytes)].into_iter().flatten() {
            let _ = std::io::copy(&mut decoder.take(16 << 20), &mut std::io::sink());
        }
    }
});
