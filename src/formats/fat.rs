//! Reads what is in a FAT file system: the EFI system partition of an ISO.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use hadris_fat::sync::{FatDir, FatVolume, FatVolumeReadExt};

/// Entries and folders inside folders that are read before the image counts as hostile.
const MAX_ENTRIES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// Bytes of all beginnings that are kept.
const MAX_KEPT: u64 = 64 << 20;

/// A file of a FAT file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatFile {
    /// Number of bytes.
    pub size: u64,
    /// Its first bytes, as many as were wanted.
    pub start: Vec<u8>,
}

/// Reads a file system; `wanted` says how many bytes of a file's start are kept, by its path and its size.
///
/// # Errors
/// It is none, is damaged, or is beyond any reason.
pub fn read<D: Read + Seek>(
    image: D,
    wanted: impl Fn(&str, u64) -> u64,
) -> io::Result<BTreeMap<String, FatFile>> {
    let volume = FatVolume::open(image).map_err(io::Error::other)?;
    let mut reader = Reader { volume: &volume, wanted: &wanted, files: BTreeMap::new(), entries: 0, kept: 0 };
    reader.folder(&volume.root_dir(), "", 0)?;
    Ok(reader.files)
}

struct Reader<'a, D: Read + Seek> {
    volume: &'a FatVolume<D>,
    wanted: &'a dyn Fn(&str, u64) -> u64,
    files: BTreeMap<String, FatFile>,
    entries: usize,
    kept: u64,
}

impl<D: Read + Seek> Reader<'_, D> {
    fn folder(&mut self, folder: &FatDir<'_, D>, above: &str, depth: usize) -> io::Result<()> {
        let mut entries = folder.entries();
        while let Some(entry) = entries.next_entry() {
            let entry = entry.map_err(io::Error::other)?;
            let Some(entry) = entry.as_entry() else { continue };
            let name = entry.name();
            let is_label = !entry.is_directory() && !entry.is_file();
            if is_label || matches!(&*name, "." | "..") {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES || depth > MAX_DEPTH {
                return Err(io::Error::other("it has more or deeper folders than any real one"));
            }
            let path = format!("{above}{name}");
            if entry.is_directory() {
                let below = self.volume.open_dir_entry(entry).map_err(io::Error::other)?;
                self.folder(&below, &format!("{path}/"), depth + 1)?;
                continue;
            }
            let size = entry.len();
            let wanted = (self.wanted)(&path, size).min(size);
            self.kept += wanted;
            if self.kept > MAX_KEPT {
                return Err(io::Error::other("it has more programs than any real one"));
            }
            let mut start = vec![0; wanted as usize];
            let mut reader = self.volume.read_file(entry).map_err(io::Error::other)?;
            let mut filled = 0;
            while filled < start.len() {
                match reader.read(&mut start[filled..]).map_err(io::Error::other)? {
                    0 => return Err(io::Error::other(format!("{path} is cut off"))),
                    read => filled += read,
                }
            }
            self.files.insert(path, FatFile { size, start });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn image(script: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(dir.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(dir.path().join("fat")).unwrap()
    }

    #[test]
    fn file_systems_of_all_widths_made_by_others_are_read() {
        for make in ["mkfs.fat -C fat 1440", "mkfs.fat -F 16 -C fat 20480", "mkfs.fat -F 32 -C fat 40960"] {
            let image = image(&format!(
                "{make} >/dev/null; mmd -i fat EFI EFI/BOOT; head -c 70000 /dev/zero | tr '\\0' x >long; echo hello >grub.cfg;
                 mcopy -i fat long ::EFI/BOOT/BOOTX64.EFI; mcopy -i fat grub.cfg '::EFI/BOOT/A name that is long.cfg'"
            ));
            let files =
                read(io::Cursor::new(image), |path, _| if path.ends_with(".cfg") { 100 } else { 3 }).unwrap();
            let expected = BTreeMap::from([
                (
                    "EFI/BOOT/A name that is long.cfg".to_owned(),
                    FatFile { size: 6, start: b"hello\n".to_vec() },
                ),
                ("EFI/BOOT/BOOTX64.EFI".to_owned(), FatFile { size: 70_000, start: b"xxx".to_vec() }),
            ]);
            assert_eq!(files, expected, "{make}");
        }
    }

    #[test]
    fn what_is_none_or_is_damaged_is_refused_without_a_panic() {
        let whole = image("mkfs.fat -C fat 1440 >/dev/null; echo hello >a; mcopy -i fat a ::a");
        let all = |_: &str, _: u64| 100;
        assert!(read(io::Cursor::new(vec![0; 4096]), all).is_err());
        assert!(read(io::Cursor::new(Vec::new()), all).is_err());
        // Whatever one byte of its first sectors says, it ends.
        for at in (0..90).chain(512..520) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = read(io::Cursor::new(damaged), all);
            }
        }
    }
}
