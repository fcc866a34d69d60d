//! Reads the control file of a Debian package (`deb(5)`): an ar archive with a tar in it.

use std::io::{self, Read};

use crate::formats::compression::Compression;

const MAGIC: &[u8] = b"!<arch>\n";

/// An ar member's header, and where it has its name and size.
const HEADER: usize = 60;

/// Control files are a few kilobytes.
const MAX_CONTROL: u64 = 1 << 20;

/// Returns the text of a package's control file.
///
/// # Errors
/// It is no package, or a damaged one.
pub(in crate::steps) fn control(package: &[u8]) -> io::Result<String> {
    control_of_tar(member(package, "control.tar")?)
}

/// Returns the archive of the files that a package has, unpacked.
///
/// # Errors
/// It is no package, or a damaged one.
pub(in crate::steps) fn data(package: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    member(package, "data.tar")
}

/// Returns a member by how its name begins, unpacked.
fn member<'a>(package: &'a [u8], start: &str) -> io::Result<Box<dyn Read + 'a>> {
    let mut rest = package.strip_prefix(MAGIC).ok_or_else(|| io::Error::other("it is not an ar archive"))?;
    while let Some((header, behind)) = rest.split_at_checked(HEADER) {
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let size: usize = text(48..58).parse().map_err(|_| io::Error::other("its ar header is damaged"))?;
        let content = behind.get(..size).ok_or(io::ErrorKind::UnexpectedEof)?;
        if text(0..16).trim_end_matches('/').starts_with(start) {
            return Ok(match Compression::detect(content) {
                Some(compression) => compression.decoder_to_end(content)?,
                None => Box::new(content),
            });
        }
        // Members start on even bytes.
        rest = behind.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    Err(io::Error::other(format!("it has no {start}")))
}

fn control_of_tar(tar: impl Read) -> io::Result<String> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let entry = entry?;
        if entry.path()?.file_name().is_some_and(|name| name == "control") {
            let mut text = String::new();
            entry.take(MAX_CONTROL).read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    Err(io::Error::other("its control.tar has no control file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_package_is_refused() {
        for bad in [&b""[..], b"!<arch>\n", b"!<arch>\ncontrol.tar", b"PK\x03\x04"] {
            assert!(control(bad).is_err());
        }
    }

    #[test]
    fn the_control_file_is_found_behind_other_members() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(11);
        header.set_cksum();
        tar.append_data(&mut header, "./control", &b"Package: x\n"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let member = |name: &str, content: &[u8]| {
            let mut bytes = format!("{name:<16}{:<32}{:<10}`\n", "", content.len()).into_bytes();
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
            bytes
        };
        let package = [MAGIC.to_vec(), member("debian-binary", b"2.0"), member("control.tar", &tar)].concat();
        assert_eq!(control(&package).unwrap(), "Package: x\n");
    }
}
