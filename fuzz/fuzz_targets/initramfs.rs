//! cpio archives and the sniffing of initramfs images.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = stagegraph::formats::initramfs::read_with(bytes, &mut |_, content| {
        std::io::copy(content, &mut std::io::sink()).map(drop)
    });
});
