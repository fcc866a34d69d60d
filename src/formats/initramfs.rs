//! Looks into an initramfs: who made it, what it can do, how it is packed.
//!
//! The kernel reads an initramfs as a row of cpio archives, each bare or compressed, with zeros between
//! them (`init/initramfs.c`): early microcode in front, files a boot loader appended behind. All of them
//! are walked.

mod copy;
mod counting;
mod files;
mod newc;
mod programs;
mod verity;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read};

use cache::name::RelPath;
use serde::{Deserialize, Serialize};

pub use self::copy::{Copied, contents, copy};
use self::counting::{Counting, MAX_UNPACKED, skip_zeros};
pub use self::files::{Files, Made, Node, plain_name};
pub use self::programs::Program;
use self::programs::Programs;
pub use self::verity::Verity;
use super::compression::{Compression, kernels_refusal};

/// What every header of an archive begins with.
const MAGIC: &[u8] = b"07070";

/// Entries that are looked at before the file counts as hostile.
const MAX_ENTRIES: usize = 1_000_000;

/// Bytes of all names.
const MAX_NAMES: usize = 256 << 20;

/// Texts in an initramfs, and targets of its links, are read up to here.
const MAX_TEXT: u64 = 64 << 10;

/// Bytes of a file that tell what program it is, or what program a script is for.
const PROGRAM_HEAD: u64 = 128;

/// What `mount` needs for NFS: its helper, and the number of a protocol's name (`nfs-utils`; without it, `Protocol not supported`).
const NFS_NEEDS: [&str; 2] = ["usr/sbin/mount.nfs", "etc/protocols"];

/// dracut's list of its modules is read up to here.
const MAX_MODULES: u64 = 1 << 20;

/// Who made an initramfs; it decides the kernel command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// dracut or dracut-ng.
    Dracut,
    /// Gentoo's genkernel.
    Genkernel,
}

impl Family {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Family::Dracut => "dracut",
            Family::Genkernel => "genkernel",
        }
    }
}

/// One cpio archive of an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How it is compressed; nothing where it is bare.
    pub compression: Option<String>,
    /// How many entries it has.
    pub entries: usize,
    /// Whether it carries microcode and nothing else.
    pub microcode: bool,
}

/// What an initramfs is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initramfs {
    /// Who made it; nothing where nobody known did.
    pub family: Option<Family>,
    /// dracut's modules.
    pub modules: BTreeSet<String>,
    /// Releases of the kernels it has modules for.
    pub kernels: BTreeSet<String>,
    /// Its archives.
    pub segments: Vec<Segment>,
    /// Bytes of all files in it: what it takes in memory when unpacked.
    pub unpacked: u64,
    /// The program that the kernel starts, else the first one in it, and whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Words of a command line that are in it, by the file they are in: dracut's `etc/cmdline.d/*.conf` and `etc/cmdline`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cmdline: BTreeMap<String, Vec<String>>,
    /// What it lacks to mount a root over NFS, if it has dracut's module for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nfs_lacks: Vec<String>,
    /// What it has to have its squashfs checked block by block.
    #[serde(default, skip_serializing_if = "Verity::is_none")]
    pub verity: Verity,
    /// What is there once it is unpacked.
    #[serde(skip)]
    pub files: Files,
}

/// Whether the kernel can run a program of an initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Runs {
    /// There is none.
    Missing,
    /// Nobody may run it.
    NotExecutable,
    /// It is a folder or a device.
    NoFile,
    /// It is a link to nothing.
    LinkToNothing,
    /// It can.
    Yes,
}

impl Initramfs {
    /// Returns the words of a command line that are in it, in the order in which dracut reads them, before the kernel's.
    pub fn baked(&self) -> impl Iterator<Item = (&str, &str)> {
        let (last, first): (Vec<_>, Vec<_>) =
            self.cmdline.iter().partition(|(file, _)| *file == "etc/cmdline");
        let all = first.into_iter().chain(last);
        all.flat_map(|(file, words)| words.iter().map(move |word| (file.as_str(), word.as_str())))
    }

    /// Tells whether it carries microcode for the processor and nothing else.
    pub fn is_microcode(&self) -> bool {
        self.segments.iter().all(|segment| segment.microcode)
    }

    /// Tells whether the kernel can run a program of it.
    pub fn runs(&self, program: &str) -> Runs {
        let path = program.trim_start_matches('/');
        let is_there = RelPath::new(path.as_bytes()).is_ok_and(|path| self.files.get(&path).is_some());
        match self.files.resolve(path).and_then(|path| self.files.get(&path)) {
            None if is_there => Runs::LinkToNothing,
            None => Runs::Missing,
            Some(Made { node: Node::File, is_executable: true, .. }) => Runs::Yes,
            Some(Made { node: Node::File, .. }) => Runs::NotExecutable,
            Some(_) => Runs::NoFile,
        }
    }

    /// Returns what it lacks to mount a root over NFS, if it has dracut's module for that.
    fn lacks_for_nfs(&self) -> Vec<String> {
        let lacks = NFS_NEEDS.into_iter().filter(|path| self.has_nfs() && !self.has_file(path));
        lacks.map(str::to_owned).collect()
    }

    /// Tells whether a path leads to a file.
    fn has_file(&self, path: &str) -> bool {
        let found = self.files.resolve(path).and_then(|path| self.files.get(&path));
        found.is_some_and(|made| made.node == Node::File)
    }

    /// Tells whether it can fetch its root over HTTP.
    pub fn has_livenet(&self) -> bool {
        self.modules.contains("livenet")
    }

    /// Tells whether it has dracut's module for a root over NFS.
    pub fn has_nfs(&self) -> bool {
        self.modules.contains("nfs")
    }
}

/// An entry of an initramfs, as a visitor sees it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its name, as it is written.
    pub name: &'a str,
    /// Bytes of its content.
    pub size: u64,
    /// Which of the archives it is in, counted from 0.
    pub segment: usize,
    /// Whether that archive is bare, as those that hold a squashfs are.
    pub bare: bool,
    /// Whether it is a regular file.
    pub is_file: bool,
    /// What it is, and who may do what with it: kind and permissions, user and group, and which device it is.
    pub meta: Meta,
    /// What ties it to other names of the same file: the archive, counted as the kernel unpacks them, and the numbers of the file there.
    pub shared: Option<(usize, (u32, u32, u32))>,
    /// Where it is once everything is unpacked, if a later entry does not take its place; nothing where the kernel does not
    /// make it.
    pub path: Option<&'a RelPath>,
}

/// What an entry says of itself beside its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// Kind and permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Which device it is.
    pub special: (u32, u32),
}

/// Sees every entry and may read its content.
pub type Visitor<'v> = dyn FnMut(Entry<'_>, &mut dyn Read) -> io::Result<()> + 'v;

/// Tells whether a file begins with a cpio archive, bare or compressed, by its first bytes; nothing where they are too few to tell, or
/// nothing here unpacks them.
pub fn begins(head: &[u8]) -> Option<bool> {
    if head.starts_with(MAGIC) {
        return Some(true);
    }
    let Some(compression) = Compression::detect(head) else { return Some(false) };
    let mut magic = Vec::new();
    match compression
        .decoder(head)
        .and_then(|decoder| decoder.take(MAGIC.len() as u64).read_to_end(&mut magic))
    {
        Ok(_) => Some(magic == MAGIC),
        // Blocks may be larger than what was read of it.
        Err(_) if magic.is_empty() => None,
        Err(_) => Some(false),
    }
}

/// Reads a whole initramfs.
///
/// # Errors
/// It is cut off, damaged, no initramfs at all, or unpacks to more than any machine holds.
pub fn read(input: impl Read) -> io::Result<Initramfs> {
    read_with(input, &mut |_, _| Ok(()))
}

/// Reads a whole initramfs and shows every entry to `visit`.
///
/// # Errors
/// As [`read`]; or `visit` failed.
pub fn read_with(input: impl Read, visit: &mut Visitor<'_>) -> io::Result<Initramfs> {
    let mut input = Counting::new(input);
    let mut found = Initramfs {
        family: None,
        modules: BTreeSet::new(),
        kernels: BTreeSet::new(),
        segments: Vec::new(),
        unpacked: 0,
        program: None,
        cmdline: BTreeMap::new(),
        nfs_lacks: Vec::new(),
        verity: Verity::default(),
        files: Files::default(),
    };
    let (mut names, mut archives) = (0, 0);
    let mut programs = Programs::default();
    loop {
        skip_zeros(&mut input)?;
        let offset = input.at;
        let start = input.fill_buf()?;
        if start.is_empty() {
            break;
        }
        if start.starts_with(MAGIC) {
            if !offset.is_multiple_of(4) {
                return Err(io::Error::other(format!(
                    "at byte {offset}: an archive must start on a multiple of four, or the kernel stops before it"
                )));
            }
            let place = Place {
                segment: found.segments.len(),
                bare: true,
                names: &mut names,
                programs: &mut programs,
                archives: &mut archives,
            };
            let (entries, microcode) = read_archive(&mut input, &mut found, place, visit)?;
            found.segments.push(Segment { offset, compression: None, entries, microcode });
            continue;
        }
        let compression = Compression::detect(start).ok_or_else(|| unknown(offset))?;
        if let Some(why) = kernels_refusal(start) {
            return Err(io::Error::other(format!("at byte {offset}: {why}")));
        }
        let mut segment = Segment {
            offset,
            compression: Some(compression.name().to_owned()),
            entries: 0,
            microcode: false,
        };
        let mut inner = Counting::new(compression.decoder(&mut input)?);
        loop {
            skip_zeros(&mut inner)?;
            if inner.at > MAX_UNPACKED {
                return Err(io::Error::other(format!("it unpacks to more than {} GiB", MAX_UNPACKED >> 30)));
            }
            if inner.fill_buf()?.is_empty() {
                break;
            }
            let place = Place {
                segment: found.segments.len(),
                bare: false,
                names: &mut names,
                programs: &mut programs,
                archives: &mut archives,
            };
            let (entries, _) = read_archive(&mut inner, &mut found, place, visit)?;
            segment.entries += entries;
        }
        drop(inner);
        found.segments.push(segment);
    }
    if found.segments.is_empty() {
        return Err(io::Error::other("the file holds no cpio archive"));
    }
    found.program = programs.first(&found.files);
    found.nfs_lacks = found.lacks_for_nfs();
    let is_live = found.family == Some(Family::Dracut) && found.modules.contains("dmsquash-live");
    found.verity.judge(&found.files, is_live);
    Ok(found)
}

fn unknown(offset: u64) -> io::Error {
    let what = if offset == 0 { "the file" } else { "what follows" };
    io::Error::other(format!(
        "at byte {offset}: {what} is neither a cpio archive nor compressed in a known way"
    ))
}

/// Which archive is being read, how many bytes of names there were so far, and what programs.
struct Place<'a> {
    segment: usize,
    bare: bool,
    names: &'a mut usize,
    programs: &'a mut Programs,
    /// Archives so far: the kernel forgets which names are those of one file at the end of each.
    archives: &'a mut usize,
}

/// Reads one archive to its trailer; returns the number of entries and whether all is microcode.
fn read_archive<R: BufRead>(
    input: &mut R,
    found: &mut Initramfs,
    mut place: Place<'_>,
    visit: &mut Visitor<'_>,
) -> io::Result<(usize, bool)> {
    let mut entries = 0;
    let mut microcode = true;
    *place.archives += 1;
    loop {
        // To the kernel, the end of the file is the end of the archive as well.
        if entries > 0 && input.fill_buf()?.is_empty() {
            return Ok((entries, microcode));
        }
        let mut reader = newc::Entry::read(&mut *input)?;
        if reader.is_trailer() {
            reader.finish()?;
            return Ok((entries, microcode && entries > 0));
        }
        entries += 1;
        let written = reader.name.clone();
        found.unpacked += u64::from(reader.size);
        *place.names += written.len();
        if entries > MAX_ENTRIES || *place.names > MAX_NAMES || found.unpacked > MAX_UNPACKED {
            return Err(io::Error::other(format!(
                "it unpacks to more than {MAX_ENTRIES} entries, {} MiB of names or {} GiB",
                MAX_NAMES >> 20,
                MAX_UNPACKED >> 30
            )));
        }
        let name = plain_name(&written);
        let firmware = ["kernel", "kernel/x86", "early_cpio", "."];
        microcode &= name.is_empty() || firmware.contains(&name) || name.starts_with("kernel/x86/");
        read_entry(&mut reader, &written, &mut place, found, visit)?;
        reader.finish()?;
    }
}

/// Makes one entry, takes from its name and its content what they tell, and shows it to `visit`.
fn read_entry<R: BufRead>(
    reader: &mut newc::Entry<'_, R>,
    written: &str,
    place: &mut Place<'_>,
    found: &mut Initramfs,
    visit: &mut Visitor<'_>,
) -> io::Result<()> {
    let size = u64::from(reader.size);
    let mut node = Node::of_mode(reader.mode);
    if let Some(Node::Link(target)) = &mut node {
        reader.by_ref().take(MAX_TEXT).read_to_end(target)?;
    }
    let is_file = node == Some(Node::File);
    let is_executable = reader.mode & 0o111 != 0;
    let path = node.and_then(|node| found.files.add(written, node, is_executable, place.segment));
    // What its first bytes tell is put in front of the others again.
    let mut head = Vec::new();
    reader.by_ref().take(PROGRAM_HEAD).read_to_end(&mut head)?;
    let inode = (reader.nlink > 1 && is_file).then_some((reader.device.0, reader.device.1, reader.ino));
    if let Some(path) = path.as_ref() {
        place.programs.made(path, if is_file { &head } else { &[] }, inode);
    }
    let meta = Meta { mode: reader.mode, owner: reader.owner, special: reader.special };
    let mut content = head.chain(reader);
    let name = plain_name(written);
    look_at(name, &mut content, found)?;
    let text = match path.as_ref().filter(|_| is_file).map(ToString::to_string) {
        Some(path) => take_text(&path, &mut content, found)?,
        None => Vec::new(),
    };
    let mut content = text.as_slice().chain(content);
    let shared = inode.map(|inode| (*place.archives, inode));
    let (Place { segment, bare, .. }, path) = (place, path.as_ref());
    let entry = Entry { name: written, size, segment: *segment, bare: *bare, is_file, meta, shared, path };
    visit(entry, &mut content)
}

/// Takes from a file's text what it says, by its path once all is unpacked; returns what was read of it.
fn take_text(path: &str, content: &mut impl Read, found: &mut Initramfs) -> io::Result<Vec<u8>> {
    let is_conf = path.strip_prefix("etc/cmdline.d/").is_some_and(|file| file.ends_with(".conf"));
    let is_words = is_conf || path == "etc/cmdline";
    let mut text = Vec::new();
    if !is_words && !Verity::is_told_by(path) {
        return Ok(text);
    }
    content.take(MAX_TEXT).read_to_end(&mut text)?;
    let plain = String::from_utf8_lossy(&text);
    if is_words {
        found.cmdline.insert(path.to_owned(), plain.split_whitespace().map(str::to_owned).collect());
    } else {
        found.verity.take(path, &plain);
    }
    Ok(text)
}

/// Takes from an entry's name, and for dracut's list from its content, what it tells.
fn look_at(name: &str, content: &mut impl Read, found: &mut Initramfs) -> io::Result<()> {
    let inner = name.strip_prefix("usr/").unwrap_or(name);
    if inner == "lib/dracut/modules.txt" {
        let mut text = String::new();
        content.take(MAX_MODULES).read_to_string(&mut text)?;
        found.modules = text.split_whitespace().map(str::to_owned).collect();
    }
    if inner == "lib/dracut" || inner.starts_with("lib/dracut/") || inner.starts_with("lib/dracut-") {
        found.family = Some(Family::Dracut);
    }
    if matches!(name, "etc/initrd.scripts" | "etc/initrd.defaults") && found.family.is_none() {
        found.family = Some(Family::Genkernel);
    }
    if let Some(release) = inner.strip_prefix("lib/modules/").and_then(|rest| rest.split('/').next())
        && !release.is_empty()
    {
        found.kernels.insert(release.to_owned());
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    pub(super) fn archive(names: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, content) in names {
            let mut writer =
                cpio::newc::Builder::new(name).mode(0o100_644).write(&mut out, content.len() as u32);
            writer.write_all(content.as_bytes()).unwrap();
            writer.finish().unwrap();
        }
        cpio::newc::trailer(&mut out).unwrap();
        out
    }

    pub(super) fn compressed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let stream = xz2::stream::Stream::new_easy_encoder(1, xz2::stream::Check::Crc32).unwrap();
                let mut encoder = xz2::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Lz4 => {
                let block = lz4_flex::block::compress(bytes);
                [&b"\x02\x21\x4c\x18"[..], &(block.len() as u32).to_le_bytes(), &block].concat()
            }
            Compression::Lzma => {
                let options = xz2::stream::LzmaOptions::new_preset(1).unwrap();
                let stream = xz2::stream::Stream::new_lzma_encoder(&options).unwrap();
                let mut encoder = xz2::write::XzEncoder::new_stream(Vec::new(), stream);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Lzo => b"\x89LZO".to_vec(),
        }
    }

    const DRACUT: &[(&str, &str)] = &[
        ("usr/lib/dracut/modules.txt", "base\nlivenet\nnfs\n"),
        ("usr/lib/modules/6.1.0-9/modules.dep", ""),
    ];

    #[test]
    fn microcode_main_archive_and_appended_ones_are_walked_whatever_the_compression() {
        use Compression::{Bzip2, Gzip, Lz4, Lzma, Xz, Zstd};
        for compression in [Gzip, Xz, Lzma, Zstd, Bzip2, Lz4] {
            let mut file = archive(&[("early_cpio", "1"), ("kernel/x86/microcode/GenuineIntel.bin", "code")]);
            file.resize(file.len().next_multiple_of(512), 0);
            let main = file.len() as u64;
            file.extend(compressed(compression, &archive(DRACUT)));
            file.resize(file.len().next_multiple_of(4), 0);
            file.extend(archive(&[("image.squashfs.img", "squashfs")]));
            let found = read(&file[..]).unwrap_or_else(|error| panic!("{compression:?}: {error}"));
            assert_eq!(found.family, Some(Family::Dracut));
            assert!(found.has_livenet() && found.has_nfs());
            assert_eq!(found.kernels, BTreeSet::from(["6.1.0-9".to_owned()]));
            assert_eq!(found.segments.len(), 3, "{compression:?}");
            assert!(found.segments[0].microcode && !found.segments[1].microcode);
            assert_eq!(found.segments[1].offset, main);
            assert_eq!(found.segments[1].compression.as_deref(), Some(compression.name()));
        }
    }

    #[test]
    fn what_the_kernel_does_not_unpack_is_refused_and_what_it_does_is_not() {
        use xz2::stream::{Check, Filters, LzmaOptions, Stream};
        let bytes = archive(DRACUT);
        let xz = |stream: Stream| {
            let mut encoder = xz2::write::XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap()
        };
        let easy = |check| xz(Stream::new_easy_encoder(1, check).unwrap());
        let options = LzmaOptions::new_preset(1).unwrap();
        let mut delta = easy(Check::Crc32);
        // The filter's number stands behind the header of the stream, and the size and the flags of the block.
        assert_eq!(delta[14], 0x21);
        delta[14] = 0x03;
        let frame = [b"\x04\x22\x4d\x18", &bytes[..]].concat();
        for (file, why) in [
            (easy(Check::Crc64), "CRC64"),
            (easy(Check::Sha256), "SHA-256"),
            (delta, "delta"),
            (frame, "lz4 -l"),
            ([archive(&[("a", "b")]), easy(Check::Crc64)].concat(), "CRC64"),
        ] {
            let error = read(&file[..]).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        let mut x86 = Filters::new();
        x86.x86().lzma2(&options);
        let x86 = xz(Stream::new_stream_encoder(&x86, Check::Crc32).unwrap());
        // Up to its trailer: a header of 110 bytes, the name, padding.
        let open = bytes[..bytes.len() - 124].to_vec();
        for file in [easy(Check::Crc32), easy(Check::None), x86, open] {
            assert_eq!(read(&file[..]).unwrap().family, Some(Family::Dracut));
        }
    }

    #[test]
    fn genkernel_is_told_from_dracut_and_neither_from_nothing() {
        let genkernel = compressed(Compression::Xz, &archive(&[("etc/initrd.scripts", ""), ("init", "")]));
        assert_eq!(read(&genkernel[..]).unwrap().family, Some(Family::Genkernel));
        let unknown = archive(&[("init", "")]);
        assert_eq!(read(&unknown[..]).unwrap().family, None);
    }

    #[test]
    fn what_is_no_initramfs_is_refused_with_the_place() {
        assert!(read(&b""[..]).is_err());
        let error = read(&b"\x7fELF and so on"[..]).unwrap_err();
        assert!(error.to_string().contains("at byte 0"), "{error}");
        let mut file = archive(DRACUT);
        let end = file.len();
        file.extend(b"rubbish");
        let error = read(&file[..]).unwrap_err();
        assert!(error.to_string().contains(&format!("at byte {end}")), "{error}");
        assert!(read(&compressed(Compression::Lzo, b"")[..]).unwrap_err().to_string().contains("LZO"));
        let cut = compressed(Compression::Xz, &archive(DRACUT));
        assert!(read(&cut[..cut.len() - 9]).is_err());
    }
}
