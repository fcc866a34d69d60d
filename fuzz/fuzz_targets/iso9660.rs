//! ISO 9660: descriptors, directories, El Torito.
#![no_main]

use std::io::{self, Read};
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stagegraph::formats::{ReadAt, iso9660::Iso};

#[derive(Debug)]
struct Image(Vec<u8>);

impl ReadAt for Image {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let bytes = usize::try_from(at).ok().and_then(|at| self.0.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    // The first 32 KiB are the system's and never read: the input begins behind them.
    let image = [&[0; 0x8000], bytes].concat();
    let Ok(iso) = Iso::read(Box::new(Image(image)), Path::new("fuzzed")) else { return };
    for file in iso.files.values().take(64) {
        let _ = io::copy(&mut iso.reader(file).take(1 << 16), &mut io::sink());
    }
    let _ = stagegraph::audit::iso_menus(&iso);
});
