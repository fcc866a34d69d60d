//! Reads a tar in one pass: a tree, and where in the archive the bytes of its files are.
//!
//! The `tar` crate decodes the header blocks. The extension records are read here, because the crate
//! splits PAX records at line ends while their values (`SCHILY.xattr.security.capability`) are
//! binary. Formats: POSIX.1-2001 `pax` with the records of star, GNU tar and libarchive; GNU tar's own members; ustar, and what
//! was before it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use base64::Engine;
use tar::{EntryType, Header};

use crate::digest::{BlobDigest, BlobHasher};
use crate::name::{NameError, RelPath};
use crate::source::Slices;
use crate::tree::{Entry, Inode, Meta, Node, Tree, TreeBuilder, TreeError};

const BLOCK: u64 = 512;

/// The longest extension record that is read: names and xattrs are far shorter.
const EXTENSION_MAX: u64 = 1 << 20;

/// No file is larger, and sums of such sizes do not overflow.
const SIZE_MAX: u64 = 1 << 60;

/// The longest path, and the longest target of a symbolic link, that Linux has (`PATH_MAX`, without the NUL).
const PATH_MAX: usize = 4095;

/// Linux numbers devices with 12 and 20 bits.
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

/// GNU tar's members that are about the archive and not in it: a label, and folders of an incremental one with the names in
/// them; and Solaris's extended header, which is like PAX's.
const LABEL: u8 = b'V';
const DUMPED_FOLDER: u8 = b'D';
const SOLARIS_HEADER: u8 = b'X';

/// Members and records that no squashfs has room for: what they are, for people.
const LEFT_OUT: [(&[u8], &str); 5] = [
    (b"SCHILY.acl.", "access lists"),
    (b"SCHILY.fflags", "flags of files"),
    (b"LIBARCHIVE.xattr.", "attributes that cannot be read"),
    (b"SUN.", "attributes of Solaris"),
    (b"RHT.security.", "security attributes"),
];

/// Tells whether a file begins with the header of a tar's first member.
pub fn is_tar(head: &[u8]) -> bool {
    head.first_chunk::<{ BLOCK as usize }>().is_some_and(|block| has_right_sum(block) && block[0] != 0)
}

/// Tells whether a block has the checksum of a header: the sum of all bytes, those of the checksum itself taken as blanks.
fn has_right_sum(block: &[u8; BLOCK as usize]) -> bool {
    let sum = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
    Header::from_byte_slice(block).cksum().is_ok_and(|stored| stored == sum)
}

/// What was read of an archive.
#[derive(Debug)]
pub struct Tar {
    /// What is in it.
    pub tree: Tree,
    /// Where the bytes of its files are.
    pub slices: Slices,
    /// What is in it and not in the tree, in words.
    pub left_out: Vec<String>,
}

/// Why an archive did not become a tree. `at` counts bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Reading failed, or the archive ends in the middle of something.
    #[error("read the archive at byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The copy could not be written.
    #[error("copy the archive")]
    Copy(#[source] io::Error),
    /// A header that is none.
    #[error("the archive has no tar header at byte {at}: {why}")]
    Header {
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// A member that would climb out, or has no name.
    #[error("the archive's member at byte {at} has a name that cannot be used")]
    Name {
        /// Where.
        at: u64,
        /// What is wrong with it.
        source: NameError,
    },
    /// Members that contradict each other.
    #[error("the archive's members do not make a tree")]
    Tree(#[from] TreeError),
    /// A kind of member nobody can put into a root.
    #[error("{path:?} at byte {at} is a {kind}; write the archive without it ({hint})")]
    Kind {
        /// Where.
        at: u64,
        /// The member.
        path: String,
        /// What it is.
        kind: &'static str,
        /// How to.
        hint: &'static str,
    },
}

/// Reads the uncompressed archive in `input` and copies all of it to `copy`.
///
/// A later member takes the place of an earlier one of the same name, as when the archive is unpacked; slashes in front of
/// names are left away, as tar does.
///
/// # Errors
/// [`TarError`], which says where in the archive.
pub fn tar(input: impl Read, copy: impl Write) -> Result<Tar, TarError> {
    let mut archive = Archive { input, copy, at: 0 };
    let mut builder = TreeBuilder::new(Meta::plain(0o755));
    let mut slices = Slices::default();
    let mut global = Extensions::default();
    let mut next = Extensions::default();
    // What is left out, of which member first, and of how many.
    let mut left_out: BTreeMap<&'static str, (String, usize)> = BTreeMap::new();
    while let Some((header, at)) = archive.header()? {
        match header.entry_type() {
            EntryType::XGlobalHeader => global.read_pax(&archive.extension(&header, at)?, at)?,
            EntryType::XHeader => next.read_pax(&archive.extension(&header, at)?, at)?,
            kind if kind.as_byte() == SOLARIS_HEADER => {
                next.read_pax(&archive.extension(&header, at)?, at)?;
            }
            kind if kind.as_byte() == LABEL => {
                // Its size is blank, and nothing follows it.
                next = Extensions::default();
            }
            EntryType::GNULongName => next.path = Some(until_nul(archive.extension(&header, at)?)),
            EntryType::GNULongLink => next.link = Some(until_nul(archive.extension(&header, at)?)),
            _ => {
                let extensions = global.overlaid(std::mem::take(&mut next));
                for what in &extensions.left_out {
                    let name = extensions.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
                    let first = || (String::from_utf8_lossy(&name).into_owned(), 0);
                    left_out.entry(what).or_insert_with(first).1 += 1;
                }
                archive.member(&header, at, extensions, &mut builder, &mut slices)?;
            }
        }
    }
    archive.finish()?;
    let said = left_out.into_iter().map(|(what, (first, members))| match members - 1 {
        0 => format!("{what} of {first} are left out"),
        more => format!("{what} of {first} and {more} more are left out"),
    });
    Ok(Tar { tree: builder.finish()?, slices, left_out: said.collect() })
}

/// What extension records say of the next member, or of all.
#[derive(Debug, Default, Clone)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    sparse: bool,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    left_out: BTreeSet<&'static str>,
}

impl Extensions {
    /// Reads `LENGTH KEY=VALUE\n` records; LENGTH counts the whole record.
    fn read_pax(&mut self, mut records: &[u8], at: u64) -> Result<(), TarError> {
        let bad = |why: &str| TarError::Header { at, why: format!("PAX record: {why}") };
        while !records.is_empty() {
            let blank = records.iter().position(|b| *b == b' ').ok_or_else(|| bad("no length"))?;
            let length: usize = std::str::from_utf8(&records[..blank])
                .ok()
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| bad("no length"))?;
            if length <= blank + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(bad("its length does not fit"));
            }
            let record = &records[blank + 1..length - 1];
            records = &records[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(|| bad("no '='"))?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let text = || std::str::from_utf8(value).map_err(|_| bad("not a number"));
            let number = || text()?.parse::<u64>().map_err(|_| bad("not a number"));
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => {
                    // Seconds with an optional fraction; a time before 1970 rounds down like stat's.
                    let (whole, fraction) = text()?.split_once('.').unwrap_or((text()?, ""));
                    let seconds: i64 = whole.parse().map_err(|_| bad("not a time"))?;
                    let below = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
                    self.mtime = Some(seconds - i64::from(below));
                }
                _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.insert(name.to_vec(), value.to_vec());
                    } else if key == b"RHT.security.selinux" {
                        // As the kernel has it, a zero is at its end.
                        let label = [value, b"\0"].concat();
                        self.xattrs.entry(b"security.selinux".to_vec()).or_insert(label);
                    } else if let Some((name, value)) = libarchive(key, value) {
                        // The same attribute stands there in SCHILY's form as well, if it can.
                        self.xattrs.entry(name).or_insert(value);
                    } else {
                        let lost = LEFT_OUT.iter().find(|(start, _)| key.starts_with(start));
                        self.left_out.extend(lost.map(|(_, what)| what));
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns these with what the member's own records say on top.
    fn overlaid(&self, own: Extensions) -> Extensions {
        let mut xattrs = self.xattrs.clone();
        xattrs.extend(own.xattrs);
        let mut left_out = self.left_out.clone();
        left_out.extend(own.left_out);
        Extensions {
            left_out,
            path: own.path.or_else(|| self.path.clone()),
            link: own.link.or_else(|| self.link.clone()),
            size: own.size.or(self.size),
            uid: own.uid.or(self.uid),
            gid: own.gid.or(self.gid),
            mtime: own.mtime.or(self.mtime),
            sparse: own.sparse || self.sparse,
            xattrs,
        }
    }
}

/// Reads an extended attribute as libarchive writes it: the name with `%XX` for what is no letter, the value in base64.
fn libarchive(key: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut rest = key.strip_prefix(b"LIBARCHIVE.xattr.")?;
    let mut name = Vec::new();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            name.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        name.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    // libarchive writes no padding.
    let text: Vec<u8> = value.iter().copied().filter(|byte| *byte != b'=').collect();
    Some((name, base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).ok()?))
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    bytes
}

/// An archive being read, all of which is copied.
struct Archive<R, W> {
    input: R,
    copy: W,
    at: u64,
}

impl<R: Read, W: Write> Archive<R, W> {
    fn failed(&self) -> impl FnOnce(io::Error) -> TarError {
        let at = self.at;
        move |source| TarError::Read { at, source }
    }

    /// Reads the next header and where it was; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<(Header, u64)>, TarError> {
        let at = self.at;
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]).map_err(self.failed())? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(self.failed()(io::ErrorKind::UnexpectedEof.into())),
                read => filled += read,
            }
        }
        self.copy.write_all(&block).map_err(TarError::Copy)?;
        self.at += BLOCK;
        if block == [0; BLOCK as usize] {
            return Ok(None);
        }
        if !has_right_sum(&block) {
            return Err(TarError::Header { at, why: "the checksum is wrong".to_owned() });
        }
        Ok(Some((Header::from_byte_slice(&block).clone(), at)))
    }

    /// Reads the bytes of an extension record.
    fn extension(&mut self, header: &Header, at: u64) -> Result<Vec<u8>, TarError> {
        let size = field(header.entry_size(), at)?;
        if size > EXTENSION_MAX {
            return Err(TarError::Header { at, why: format!("an extension of {size} bytes") });
        }
        let mut bytes = Vec::new();
        self.bytes(size, |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Reads `size` bytes and the padding behind them.
    fn bytes(&mut self, size: u64, mut each: impl FnMut(&[u8])) -> Result<(), TarError> {
        let mut buffer = vec![0; 1 << 16];
        let mut content = size;
        let mut left = size.next_multiple_of(BLOCK);
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.input.read(&mut buffer[..wanted]).map_err(self.failed())?;
            if read == 0 {
                return Err(self.failed()(io::ErrorKind::UnexpectedEof.into()));
            }
            self.copy.write_all(&buffer[..read]).map_err(TarError::Copy)?;
            let own = read.min(usize::try_from(content).unwrap_or(usize::MAX));
            each(&buffer[..own]);
            content -= own as u64;
            left -= read as u64;
            self.at += read as u64;
        }
        Ok(())
    }

    /// Copies what follows the end mark.
    fn finish(&mut self) -> Result<(), TarError> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = match self.input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(self.failed())?,
            };
            if read == 0 {
                return Ok(());
            }
            self.copy.write_all(&buffer[..read]).map_err(TarError::Copy)?;
            self.at += read as u64;
        }
    }

    fn member(
        &mut self,
        header: &Header,
        at: u64,
        extensions: Extensions,
        builder: &mut TreeBuilder,
        slices: &mut Slices,
    ) -> Result<(), TarError> {
        let name = extensions.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        if name.len() > PATH_MAX {
            let why = format!("a path of {} bytes; Linux opens none of more than {PATH_MAX}", name.len());
            return Err(TarError::Header { at, why });
        }
        let kind = header.entry_type();
        let refuse = |kind, hint| {
            Err(TarError::Kind { at, path: String::from_utf8_lossy(&name).into_owned(), kind, hint })
        };
        if kind == EntryType::GNUSparse || extensions.sparse {
            return refuse("sparse member", "tar without --sparse; zero blocks become holes again anyway");
        }
        let size = match extensions.size {
            Some(size) => size,
            None => field(header.entry_size(), at)?,
        };
        if size > SIZE_MAX {
            return Err(TarError::Header { at, why: format!("a member of {size} bytes") });
        }
        let link = extensions.link.clone();
        let meta = meta(header, extensions, at)?;
        let Some(path) = member_path(&name, at)? else {
            builder.set_root(meta);
            return self.bytes(size, |_| {});
        };
        let link = link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        if link.as_ref().is_some_and(|target| target.len() > PATH_MAX) {
            return Err(TarError::Header { at, why: "the target of a link is too long".to_owned() });
        }
        let node = match kind {
            // Before ustar, a folder was a file whose name ends in a slash.
            EntryType::Regular if name.ends_with(b"/") && size == 0 => Node::Dir,
            EntryType::Regular | EntryType::Continuous => {
                let start = self.at;
                let mut hasher = BlobHasher::default();
                self.bytes(size, |piece| hasher.update(piece))?;
                let digest: BlobDigest = hasher.finish();
                slices.0.entry(digest).or_insert(start);
                Node::File { digest, size }
            }
            EntryType::Directory => Node::Dir,
            kind if kind.as_byte() == DUMPED_FOLDER => Node::Dir,
            EntryType::Symlink => Node::Symlink(link.unwrap_or_default()),
            EntryType::Char => {
                let (major, minor) = device(header, at)?;
                Node::CharDevice { major, minor }
            }
            EntryType::Block => {
                let (major, minor) = device(header, at)?;
                Node::BlockDevice { major, minor }
            }
            EntryType::Fifo => Node::Fifo,
            EntryType::Link => {
                let to = member_path(&link.unwrap_or_default(), at)?.ok_or_else(|| TarError::Header {
                    at,
                    why: "a hard link to the top folder".to_owned(),
                })?;
                self.bytes(size, |_| {})?;
                builder.insert_parents(&path);
                builder.remove(&path);
                return Ok(builder.link(path, to)?);
            }
            kind if kind.as_byte() == b'M' => {
                return refuse(
                    "part of a file that another volume begins",
                    "give all volumes as one archive",
                );
            }
            _ => return refuse("member of an unknown kind", "repack it with GNU tar"),
        };
        if !matches!(node, Node::File { .. }) {
            self.bytes(size, |_| {})?;
        }
        builder.insert_parents(&path);
        let replaces_folder = matches!(builder.get(&path), Some(Entry::Inode(Inode { node: Node::Dir, .. })));
        if replaces_folder && node != Node::Dir {
            return Err(TarError::Tree(TreeError::Twice(path)));
        }
        builder.remove(&path);
        Ok(builder.insert(path, meta, node)?)
    }
}

fn meta(header: &Header, extensions: Extensions, at: u64) -> Result<Meta, TarError> {
    Ok(Meta {
        mode: (field(header.mode(), at)? & 0o7777) as u16,
        uid: id(extensions.uid.map_or_else(|| field(header.uid(), at), Ok)?, at)?,
        gid: id(extensions.gid.map_or_else(|| field(header.gid(), at), Ok)?, at)?,
        mtime: match extensions.mtime {
            Some(mtime) => mtime,
            None => field(header.mtime(), at)? as i64,
        },
        xattrs: extensions.xattrs,
    })
}

/// Returns the numbers of a device.
fn device(header: &Header, at: u64) -> Result<(u32, u32), TarError> {
    let major = field(header.device_major(), at)?.unwrap_or(0);
    let minor = field(header.device_minor(), at)?.unwrap_or(0);
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return Err(TarError::Header { at, why: format!("a device {major}:{minor}") });
    }
    Ok((major, minor))
}

fn field<T>(value: io::Result<T>, at: u64) -> Result<T, TarError> {
    value.map_err(|error| TarError::Header { at, why: error.to_string() })
}

fn id(value: u64, at: u64) -> Result<u32, TarError> {
    u32::try_from(value).map_err(|_| TarError::Header { at, why: format!("owner {value} is beyond 32 bits") })
}

/// Returns the path of a member, `None` for the top folder itself (`./`). As tar does it, slashes in front do not count, nor do
/// doubled ones, nor `.`.
fn member_path(name: &[u8], at: u64) -> Result<Option<RelPath>, TarError> {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(part, [] | [b'.']));
    let inner = parts.collect::<Vec<_>>().join(&b'/');
    if inner.is_empty() && !name.is_empty() {
        return Ok(None);
    }
    RelPath::new(&inner).map(Some).map_err(|source| TarError::Name { at, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Writer(Vec<u8>);

    impl Writer {
        fn add(&mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> &mut Self {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(0o640);
            header.set_uid(7);
            header.set_gid(8);
            header.set_mtime(99);
            header.set_size(content.len() as u64);
            header.set_cksum();
            self.0.extend_from_slice(header.as_bytes());
            self.0.extend_from_slice(content);
            self.0.resize(self.0.len().next_multiple_of(512), 0);
            self
        }
    }

    impl Writer {
        /// Adds a label as GNU tar writes it: most fields are blank.
        fn label(&mut self) -> &mut Self {
            self.add(EntryType::new(LABEL), "a label", "", b"");
            let header = self.0.last_chunk_mut::<512>().unwrap();
            header[100..136].fill(0);
            let mut header = Header::from_byte_slice(header).clone();
            header.set_cksum();
            let at = self.0.len() - 512;
            self.0[at..].copy_from_slice(header.as_bytes());
            self
        }
    }

    fn read(writer: &Writer) -> Result<(Tree, Slices), TarError> {
        let mut copy = Vec::new();
        let read = tar(&writer.0[..], &mut copy);
        if read.is_ok() {
            assert_eq!(copy, writer.0);
        }
        read.map(|tar| (tar.tree, tar.slices))
    }

    /// Returns a PAX record.
    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn what_gnu_tar_star_and_libarchive_write_beside_files_is_read_or_said() {
        let mut writer = Writer(Vec::new());
        let label =
            [record("RHT.security.selinux", b"system_u:object_r:etc_t:s0"), record("comment", b"x")].concat();
        let others = [
            record("LIBARCHIVE.xattr.user.a%20b", b"AQIK/w"),
            record("SCHILY.acl.access", b"user::rw-"),
            record("SCHILY.fflags", b"immutable"),
            record("SCHILY.dev", b"7"),
        ]
        .concat();
        writer
            .label()
            .add(EntryType::Directory, "/", "", b"")
            .add(EntryType::new(DUMPED_FOLDER), "etc/", "", b"Ymotd\0\0")
            .add(EntryType::XHeader, "pax", "", &label)
            .add(EntryType::Regular, "/etc//motd", "", b"x")
            .add(EntryType::new(SOLARIS_HEADER), "x", "", &others)
            .add(EntryType::Regular, "./etc/./issue", "", b"y");
        assert!(is_tar(&writer.0) && !is_tar(&[0; 512]) && !is_tar(&writer.0[1..]));
        let Tar { tree, left_out, .. } = tar(&writer.0[..], io::sink()).unwrap();
        let meta = |name: &str| tree.inode(&path(name)).unwrap().meta.xattrs.clone();
        let xattr = |name: &str, value: &[u8]| BTreeMap::from([(name.as_bytes().to_vec(), value.to_vec())]);
        assert_eq!(meta("etc/motd"), xattr("security.selinux", b"system_u:object_r:etc_t:s0\0"));
        assert_eq!(meta("etc/issue"), xattr("user.a b", &[1, 2, 10, 255]));
        let expected =
            ["access lists of ./etc/./issue are left out", "flags of files of ./etc/./issue are left out"];
        assert_eq!(left_out, expected);
        assert_eq!(tree.root().uid, 7);
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn files_are_slices_and_a_later_member_replaces_an_earlier_one() {
        let mut writer = Writer(Vec::new());
        writer
            .add(EntryType::Directory, "./", "", b"")
            .add(EntryType::Regular, "./etc/a", "", b"old")
            .add(EntryType::Regular, "./etc/a", "", b"new")
            .add(EntryType::Link, "./etc/b", "./etc/a", b"");
        let (tree, slices) = read(&writer).unwrap();
        assert_eq!((tree.root().mode, tree.root().uid, tree.root().mtime), (0o640, 7, 99));
        let digest = BlobDigest::of(b"new");
        assert_eq!(tree.inode(&path("etc/b")).unwrap().node, Node::File { digest, size: 3 });
        let start = slices.0[&digest] as usize;
        assert_eq!(&writer.0[start..start + 3], b"new");
        assert_eq!(tree.inode(&path("etc")).unwrap().meta, Meta::plain(0o755));
    }

    #[test]
    fn a_hard_link_keeps_its_content_when_the_first_name_is_replaced() {
        let mut writer = Writer(Vec::new());
        writer
            .add(EntryType::Regular, "a", "", b"one")
            .add(EntryType::Link, "b", "a", b"")
            .add(EntryType::Link, "c", "a", b"")
            .add(EntryType::Regular, "a", "", b"two");
        let (tree, _) = read(&writer).unwrap();
        let content = |name: &str| tree.inode(&path(name)).unwrap().node.clone();
        let file = |bytes: &[u8]| Node::File { digest: BlobDigest::of(bytes), size: 3 };
        assert_eq!((content("a"), content("b"), content("c")), (file(b"two"), file(b"one"), file(b"one")));
    }

    #[test]
    fn sizes_and_numbers_beyond_reason_are_refused() {
        let records = b"29 size=18446744073709551615\n";
        let mut writer = Writer(Vec::new());
        writer.add(EntryType::XHeader, "pax", "", records).add(EntryType::Regular, "x", "", b"");
        assert!(matches!(read(&writer).unwrap_err(), TarError::Header { .. }));
    }

    #[test]
    fn pax_records_with_line_ends_in_their_values_are_read_whole() {
        let value = b"\x01\n\x02\n";
        let mut records = b"43 SCHILY.xattr.security.capability=".to_vec();
        records.truncate(0);
        for (key, value) in [(&b"SCHILY.xattr.security.capability"[..], &value[..]), (b"mtime", b"-1.5")] {
            let rest = key.len() + value.len() + 3;
            let length = if rest + 2 > 99 {
                rest + 3
            } else if rest + 1 > 9 {
                rest + 2
            } else {
                rest + 1
            };
            records.extend_from_slice(format!("{length} ").as_bytes());
            records.extend_from_slice(key);
            records.push(b'=');
            records.extend_from_slice(value);
            records.push(b'\n');
        }
        let mut writer = Writer(Vec::new());
        writer.add(EntryType::XHeader, "pax", "", &records).add(EntryType::Regular, "ping", "", b"elf");
        let (tree, _) = read(&writer).unwrap();
        let meta = &tree.inode(&path("ping")).unwrap().meta;
        assert_eq!(meta.xattrs[&b"security.capability"[..]], value);
        assert_eq!(meta.mtime, -2);
    }

    #[test]
    fn long_names_of_gnu_tar_are_read() {
        let long = "d/".repeat(90) + "f";
        let mut writer = Writer(Vec::new());
        writer.add(EntryType::GNULongName, "././@LongLink", "", format!("{long}\0").as_bytes()).add(
            EntryType::Regular,
            "short",
            "",
            b"x",
        );
        let (tree, _) = read(&writer).unwrap();
        assert!(tree.inode(&path(&long)).is_some());
        // Longer than Linux opens: each folder of it is a path of its own in memory.
        let long = "d/".repeat(30_000) + "f\0";
        let mut writer = Writer(Vec::new());
        writer.add(EntryType::GNULongName, "././@LongLink", "", long.as_bytes()).add(
            EntryType::Regular,
            "short",
            "",
            b"x",
        );
        assert!(read(&writer).unwrap_err().to_string().contains("a path of 60001 bytes"));
    }

    #[test]
    fn hostile_members_are_refused_by_name_and_place() {
        for name in ["../etc/passwd", "/../passwd", "a/../../b", "a/.."] {
            let mut writer = Writer(Vec::new());
            let error = read(writer.add(EntryType::Regular, name, "", b"x")).unwrap_err();
            assert!(matches!(error, TarError::Name { at: 0, .. }), "{name}: {error}");
        }
        let mut writer = Writer(Vec::new());
        writer.add(EntryType::Regular, "f", "", b"x").add(EntryType::Link, "l", "../../shadow", b"");
        assert!(matches!(read(&writer).unwrap_err(), TarError::Name { at: 1024, .. }));
        let mut writer = Writer(Vec::new());
        writer.add(EntryType::Symlink, "l", "/etc", b"").add(EntryType::Regular, "l/passwd", "", b"x");
        assert!(matches!(read(&writer).unwrap_err(), TarError::Tree(TreeError::NotInFolder(_))));
        let mut writer = Writer(Vec::new());
        assert!(matches!(read(writer.add(EntryType::GNUSparse, "s", "", b"")), Err(TarError::Kind { .. })));
    }

    #[test]
    fn an_archive_cut_off_or_overwritten_is_an_error_with_its_place() {
        let mut writer = Writer(Vec::new());
        writer.add(EntryType::Regular, "f", "", &[7; 2000]);
        let cut = Writer(writer.0[..1000].to_vec());
        assert!(matches!(read(&cut).unwrap_err(), TarError::Read { at: 1000, .. }));
        writer.0[0] ^= 1;
        assert!(matches!(read(&writer).unwrap_err(), TarError::Header { at: 0, .. }));
    }
}
