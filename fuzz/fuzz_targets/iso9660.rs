//! ISO 9660: descriptors, directories, El Torito.
#![no_main]

mod image;

use std::io::{self, Read};
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stagegraph::formats::iso9660::Iso;

use self::image::Image;

fuzz_target!(|bytes: &[u8]| {
    // The first 32 KiB are the system's and never read: the input begins behind them.
    let image = [&[0; 0x8000], bytes].concat();
    let Ok(iso) = Iso::read(Box::new(Image(image)), Path::new("fuzzed")) else { return };
    for file in iso.files.values().take(64) {
        let _ = io::copy(&mut iso.reader(file).take(1 << 16), &mut io::sink());
    }
    let _ = stagegraph::audit::iso_menus(&iso);
});
