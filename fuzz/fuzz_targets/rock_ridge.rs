//! Rock Ridge: the input is the system use area of one record of an image that is otherwise sound.
#![no_main]

mod image;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use stagegraph::formats::iso9660::Iso;

use self::image::Image;

/// Returns a directory record of `length` bytes at `sector`.
fn record(sector: u32, length: u32, name: &[u8], area: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2..6].copy_from_slice(&sector.to_le_bytes());
    record[10..14].copy_from_slice(&length.to_le_bytes());
    record[32] = name.len() as u8;
    record.extend_from_slice(name);
    if record.len() % 2 == 1 {
        record.push(0);
    }
    record.extend_from_slice(area);
    record.truncate(254);
    record[0] = record.len() as u8;
    record
}

fuzz_target!(|bytes: &[u8]| {
    let (area, rest) = bytes.split_at(bytes.len().min(200));
    let mut image = vec![0; 20 * 2048];
    image[16 * 2048..16 * 2048 + 6].copy_from_slice(b"\x01CD001");
    image[16 * 2048 + 128..16 * 2048 + 130].copy_from_slice(&2048u16.to_le_bytes());
    let mut root = record(18, 2048, &[0], &[]);
    root.resize(34, 0);
    root[25] = 2;
    image[16 * 2048 + 156..16 * 2048 + 190].copy_from_slice(&root);
    image[17 * 2048..17 * 2048 + 6].copy_from_slice(b"\xffCD001");
    let file = record(19, 10, b"FILE.;1", area);
    image[18 * 2048..18 * 2048 + file.len()].copy_from_slice(&file);
    // Continuation areas may point here.
    image.extend_from_slice(rest);
    let _ = Iso::read(Box::new(Image(image)), Path::new("fuzzed"));
});
