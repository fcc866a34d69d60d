//! Reads ISO 9660 images with Rock Ridge names.
//!
//! ECMA-119 for the volume descriptor and directory records, IEEE P1281 and P1282 (SUSP and Rock Ridge) for the
//! names as they were written, and symbolic links. Only what live media have is read: folders, files, links.

mod eltorito;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cache::name::{FileName, RelPath, follow};

pub use self::eltorito::{BootImage, Platform};
use self::volume::{FIRST_DESCRIPTOR, MAX_DESCRIPTORS, SECTOR};
use super::little;
use super::{ReadAt, Window};

/// Entries and folder bytes that are read before the image counts as hostile.
const MAX_ENTRIES: usize = 1_000_000;
const MAX_FOLDER: u64 = 64 << 20;

/// Folders inside folders. ISO 9660 allows eight, Rock Ridge relocates deeper ones.
const MAX_DEPTH: usize = 64;

/// Bytes that [`is_iso`] looks at.
pub const HEAD: usize = 16 * 2048 + 6;

/// Tells by its first bytes whether a file is an ISO 9660 image: by the name of the standard in its first volume descriptor.
pub fn is_iso(head: &[u8]) -> bool {
    head.get(HEAD - 5..HEAD) == Some(b"CD001")
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IsoError {
    /// Reading failed, or the image ends too early.
    #[error("read {path} at byte {at}")]
    Read {
        /// The image.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// There is no primary volume descriptor.
    #[error("{path} is no ISO 9660 image: {why}")]
    NotAnIso {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// The image contradicts itself or is beyond any reason.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A file in an image: one or more extents, each at most 4 GiB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IsoFile {
    /// Where the pieces are: start and length in bytes.
    pub extents: Vec<(u64, u64)>,
}

impl IsoFile {
    /// Returns the number of bytes.
    pub fn size(&self) -> u64 {
        self.extents.iter().map(|(_, length)| length).sum()
    }
}

/// An open image.
#[derive(Debug)]
pub struct Iso {
    path: PathBuf,
    file: Box<dyn ReadAt>,
    size: u64,
    /// The volume id, without the blanks behind it.
    pub volume_id: String,
    /// What boot loaders and Linux call its UUID: the time of its last change, `YYYY-MM-DD-HH-MM-SS-hh`; empty where it says none.
    pub uuid: String,
    /// Bytes of the volume, by its descriptor. The file may be longer: hybrid images have partitions behind.
    pub volume_size: u64,
    /// What El Torito offers the firmware; `Err` says why its catalog cannot be used.
    pub boot_images: Result<Vec<BootImage>, &'static str>,
    /// All files by path.
    pub files: BTreeMap<RelPath, IsoFile>,
    /// All symbolic links by path, and what they lead to.
    pub links: BTreeMap<RelPath, Vec<u8>>,
    /// Paths that several records have: the first counts, to Linux and to GRUB.
    pub repeated: Vec<RelPath>,
}

/// A directory record, as far as it is needed.
struct Record {
    start: u64,
    length: u64,
    is_folder: bool,
    continues: bool,
    name: Vec<u8>,
    link: Option<Vec<u8>>,
}

/// Returns the UUID that GRUB and libblkid make of the sixteen digits of a time (ECMA-119, 8.4.26.1).
fn uuid(time: &[u8]) -> String {
    if !time.iter().all(u8::is_ascii_digit) || time.iter().all(|digit| *digit == b'0') {
        return String::new();
    }
    let text = String::from_utf8_lossy(time);
    let parts = [0..4, 4..6, 6..8, 8..10, 10..12, 12..14, 14..16].map(|range| &text[range]);
    parts.join("-")
}

impl Iso {
    /// Opens the image at `path` and reads all of its folders.
    ///
    /// # Errors
    /// [`IsoError`].
    pub fn open(path: &Path) -> Result<Iso, IsoError> {
        let read = |source| IsoError::Read { path: path.to_owned(), at: 0, source };
        Self::read(Box::new(File::open(path).map_err(read)?), path)
    }

    /// Reads all folders of an image; `path` names it in errors.
    ///
    /// # Errors
    /// [`IsoError`].
    pub fn read(file: Box<dyn ReadAt>, path: &Path) -> Result<Iso, IsoError> {
        let size = file.size().map_err(|source| IsoError::Read { path: path.to_owned(), at: 0, source })?;
        let mut iso = Iso {
            path: path.to_owned(),
            file,
            size,
            volume_id: String::new(),
            uuid: String::new(),
            volume_size: 0,
            boot_images: Ok(Vec::new()),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            repeated: Vec::new(),
        };
        let descriptor = iso.primary_descriptor()?;
        let blocks = descriptor[80..84].try_into().map(u32::from_le_bytes).unwrap_or_default();
        iso.volume_size = u64::from(blocks) * SECTOR;
        iso.boot_images = eltorito::read(iso.size, |at, length| iso.bytes(at, length))?;
        let volume_id = &descriptor[40..72];
        iso.volume_id = String::from_utf8_lossy(volume_id).trim_end_matches([' ', '\0']).to_owned();
        iso.uuid = uuid(&descriptor[830..846]);
        let Some(root) = iso.record(&descriptor[156..190])? else {
            return Err(iso.damaged("its top folder has no record"));
        };
        iso.read_folders(root)?;
        Ok(iso)
    }

    fn read_folders(&mut self, root: Record) -> Result<(), IsoError> {
        let mut seen = BTreeSet::new();
        let mut folders = vec![(None::<RelPath>, root, 0)];
        let mut entries = 0;
        while let Some((folder, record, depth)) = folders.pop() {
            if depth > MAX_DEPTH {
                return Err(self.damaged("its folders go deeper than any real image's"));
            }
            if !seen.insert(record.start) {
                return Err(self.damaged("two of its folders are the same"));
            }
            let mut names = BTreeSet::new();
            let mut continued: Option<(RelPath, IsoFile)> = None;
            for record in self.folder(&record)? {
                entries += 1;
                if entries > MAX_ENTRIES {
                    return Err(self.damaged("it has more entries than any real image"));
                }
                let name = FileName::new(&record.name).map_err(|error| self.damaged(error.to_string()))?;
                let path = folder.as_ref().map_or_else(|| name.clone().into(), |folder| folder.join(&name));
                let mut file = match continued.take() {
                    Some((same, file)) if same == path => file,
                    _ if !names.insert(name) => {
                        self.repeated.push(path);
                        continue;
                    }
                    _ => IsoFile::default(),
                };
                if record.is_folder {
                    folders.push((Some(path), record, depth + 1));
                    continue;
                }
                if let Some(target) = record.link {
                    self.links.insert(path, target);
                    continue;
                }
                if record.start.checked_add(record.length).is_none_or(|end| end > self.size) {
                    return Err(self.damaged(format!("{path} goes beyond its end; it is cut off")));
                }
                file.extents.push((record.start, record.length));
                if record.continues {
                    continued = Some((path, file));
                } else {
                    self.files.insert(path, file);
                }
            }
        }
        Ok(())
    }

    /// Returns where a path leads, through links; a link that leads nowhere leads to no file.
    pub fn resolve(&self, path: &str) -> Option<RelPath> {
        follow(path.as_bytes(), |path| self.links.get(path).cloned())
    }

    /// Returns the file that a path leads to, through links.
    pub fn file(&self, path: &str) -> Option<&IsoFile> {
        self.files.get(&self.resolve(path)?)
    }

    /// Reads a file of the image.
    pub fn reader<'a>(&'a self, file: &'a IsoFile) -> IsoReader<'a> {
        IsoReader { image: &*self.file, extents: &file.extents, at: 0 }
    }

    /// Tells whether a link leads to nothing, neither file nor folder.
    pub fn leads_nowhere(&self, link: &RelPath) -> bool {
        let Some(target) = follow(link.as_bytes(), |path| self.links.get(path).cloned()) else { return true };
        let is_below = |path: &RelPath| path.as_bytes().starts_with(target.as_bytes());
        // Whatever is in a folder comes right behind where the folder would be.
        let next = self.files.range(target.clone()..).next().map(|(path, _)| path);
        !next.is_some_and(is_below)
    }

    /// Fills `buffer` with bytes of a file from `at` on.
    ///
    /// # Errors
    /// Reading failed, or the file has fewer.
    pub fn read_exact_at(&self, file: &IsoFile, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
        for (start, length) in &file.extents {
            if at >= *length {
                at -= length;
                continue;
            }
            let here = buffer.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
            let (now, later) = buffer.split_at_mut(here);
            self.file.read_exact_at(now, start + at)?;
            buffer = later;
            at = 0;
        }
        if buffer.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Returns all that follows from a place of the image on.
    pub fn window(&self, start: u64) -> Window<'_> {
        Window::new(&*self.file, start, self.size.saturating_sub(start))
    }

    /// Returns the number of bytes of the image's file.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn damaged(&self, why: impl Into<String>) -> IsoError {
        IsoError::Damaged { path: self.path.clone(), why: why.into() }
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, IsoError> {
        if at.checked_add(length).is_none_or(|end| end > self.size) {
            let source = io::ErrorKind::UnexpectedEof.into();
            return Err(IsoError::Read { path: self.path.clone(), at, source });
        }
        let mut bytes = vec![0; length as usize];
        let read = |source| IsoError::Read { path: self.path.clone(), at, source };
        self.file.read_exact_at(&mut bytes, at).map_err(read)?;
        Ok(bytes)
    }

    fn primary_descriptor(&self) -> Result<Vec<u8>, IsoError> {
        let none = |why| IsoError::NotAnIso { path: self.path.clone(), why };
        for sector in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
            let Ok(descriptor) = self.bytes(sector * SECTOR, SECTOR) else {
                return Err(none("it is too short for a volume descriptor"));
            };
            if &descriptor[1..6] != b"CD001" {
                return Err(none("there is no volume descriptor at sector 16"));
            }
            match descriptor[0] {
                1 if descriptor[128..130] != 2048u16.to_le_bytes() => {
                    return Err(none("its blocks do not have 2048 bytes"));
                }
                1 => return Ok(descriptor),
                255 => break,
                _ => {}
            }
        }
        Err(none("it has no primary volume descriptor"))
    }

    /// Reads the records of a folder, without those of itself and the one above.
    fn folder(&self, folder: &Record) -> Result<Vec<Record>, IsoError> {
        if folder.length > MAX_FOLDER {
            return Err(self.damaged("a folder is larger than any real image's"));
        }
        let bytes = self.bytes(folder.start, folder.length)?;
        let mut records = Vec::new();
        for sector in bytes.chunks(SECTOR as usize) {
            let mut rest = sector;
            // A record never crosses a sector; a zero ends the records of one.
            while let Some(length) = rest.first().map(|length| usize::from(*length)).filter(|l| *l > 0) {
                let Some((record, next)) = rest.split_at_checked(length) else {
                    return Err(self.damaged("a directory record crosses its sector"));
                };
                rest = next;
                if let Some(record) = self.record(record)?
                    && !matches!(record.name[..], [0] | [1])
                {
                    records.push(record);
                }
            }
        }
        Ok(records)
    }

    /// Reads a directory record; `None` for a folder that Rock Ridge moved elsewhere.
    fn record(&self, bytes: &[u8]) -> Result<Option<Record>, IsoError> {
        let short = || self.damaged("a directory record is cut off");
        let word = |at: usize| little::word(bytes, at).map(u64::from).ok_or_else(short);
        let (start, length) = (word(2)? * SECTOR, word(10)?);
        let flags = *bytes.get(25).ok_or_else(short)?;
        let name_length = usize::from(*bytes.get(32).ok_or_else(short)?);
        let name = bytes.get(33..33 + name_length).ok_or_else(short)?;
        let system_use = bytes.get((33 + name_length).next_multiple_of(2)..).unwrap_or_default();
        let mut rock_ridge = RockRidge::default();
        if !matches!(name, [0] | [1]) {
            self.system_use(system_use.to_vec(), &mut rock_ridge)?;
        }
        if rock_ridge.relocated {
            return Ok(None);
        }
        let name = match rock_ridge.name {
            Some(name) => name,
            None => plain_name(name),
        };
        let (is_folder, continues) = (flags & 2 != 0, flags & 0x80 != 0);
        Ok(Some(Record { start, length, is_folder, continues, name, link: rock_ridge.link.finish() }))
    }

    /// Reads the system use entries of a record and of its continuations.
    fn system_use(&self, mut area: Vec<u8>, found: &mut RockRidge) -> Result<(), IsoError> {
        // Real records continue once or twice; a circle would go on for ever.
        for _ in 0..16 {
            let mut rest = &area[..];
            let mut next = None;
            while let [a, b, length, _version, ..] = *rest {
                let Some(entry) = rest.get(..usize::from(length)).filter(|entry| entry.len() >= 4) else {
                    break;
                };
                let content = &entry[4..];
                match [a, b] {
                    [b'N', b'M'] => {
                        if let Some((_flags, name)) = content.split_first() {
                            found.name.get_or_insert_default().extend_from_slice(name);
                        }
                    }
                    [b'S', b'L'] => found.link.add(content),
                    [b'R', b'E'] => found.relocated = true,
                    [b'C', b'E'] => {
                        let word = |at: usize| little::word(content, at).map(u64::from);
                        next = (|| Some((word(0)? * SECTOR + word(8)?, word(16)?)))();
                    }
                    [b'S', b'T'] => break,
                    _ => {}
                }
                rest = &rest[usize::from(length)..];
            }
            match next {
                Some((at, length)) if length <= SECTOR => area = self.bytes(at, length)?,
                _ => return Ok(()),
            }
        }
        Err(self.damaged("a record continues for ever"))
    }
}

#[derive(Default)]
struct RockRidge {
    name: Option<Vec<u8>>,
    link: Link,
    relocated: bool,
}

/// A symbolic link's target, as its entries `SL` give it piece by piece (IEEE P1282, 4.1.3).
#[derive(Default)]
struct Link {
    text: Vec<u8>,
    is_there: bool,
    /// Whether the next piece goes on with the name before it.
    goes_on: bool,
}

impl Link {
    fn add(&mut self, entry: &[u8]) {
        self.is_there = true;
        let mut rest = entry.get(1..).unwrap_or_default();
        while let [flags, length, text @ ..] = rest {
            let Some((text, next)) = text.split_at_checked(usize::from(*length)) else { return };
            rest = next;
            if !self.goes_on && !self.text.is_empty() && !self.text.ends_with(b"/") {
                self.text.push(b'/');
            }
            self.goes_on = flags & 1 != 0;
            match flags & 0b1110 {
                2 => self.text.extend_from_slice(b"."),
                4 => self.text.extend_from_slice(b".."),
                8 => self.text.splice(.., *b"/").for_each(drop),
                _ => self.text.extend_from_slice(text),
            }
        }
    }

    fn finish(self) -> Option<Vec<u8>> {
        self.is_there.then_some(self.text)
    }
}

/// Returns a name without Rock Ridge: no version, no dot at the end, lower case as Linux shows it.
fn plain_name(name: &[u8]) -> Vec<u8> {
    if matches!(name, [0] | [1]) {
        return name.to_vec();
    }
    let name = name.split(|byte| *byte == b';').next().unwrap_or(name);
    name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase()
}

/// Reads the bytes of one file.
pub struct IsoReader<'a> {
    image: &'a dyn ReadAt,
    extents: &'a [(u64, u64)],
    at: u64,
}

impl io::Read for IsoReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((start, length)) = self.extents.first() {
            let left = length - self.at;
            if left == 0 {
                self.extents = &self.extents[1..];
                self.at = 0;
                continue;
            }
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if wanted == 0 {
                return Ok(0);
            }
            self.image.read_exact_at(&mut buffer[..wanted], start + self.at)?;
            self.at += wanted as u64;
            return Ok(wanted);
        }
        Ok(0)
    }
}
