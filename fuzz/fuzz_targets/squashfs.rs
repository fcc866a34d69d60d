//! Superblocks.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = stagegraph::formats::squashfs::superblock(bytes, bytes.len() as u64);
});
