//! What was found out about an ISO and a netboot set: all that the checks look at.

use std::collections::{BTreeMap, BTreeSet};

use cache::BlobDigest;
use serde::Serialize;
use trust::cms::CodeJudgement;
use trust::openpgp::{Claim, Verdict};

use super::loaders::LoaderFacts;
use super::pass::{Span, TreeFacts};
use super::programs::ProgramFacts;
use super::walk::Walk;
use crate::formats::authenticode::{Image, Unread};
use crate::formats::checksums::{Algorithm, Checksum};
use crate::formats::cpio;
use crate::formats::initramfs::Family;
use crate::formats::iso9660::BootImage;
use crate::formats::kernel::Kernel;
use crate::formats::menus::{Problem, Role, Searched};
use crate::formats::squashfs::Superblock;
use crate::manifest::{Manifest, ManifestError};

/// What a file is, by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A Linux kernel.
    Kernel,
    /// An initramfs, with or without a squashfs in it.
    Initramfs,
    /// A squashfs image.
    Squashfs,
    /// A script or menu of a boot loader.
    Menu,
    /// A list of checksums.
    Checksums,
    /// What `stagegraph build` says of an image.
    Manifest,
    /// An ISO 9660 image.
    Iso,
    /// A signature of another file.
    Signature,
    /// Anything else.
    Other,
}

/// Says what a file of a kind is.
pub(super) fn article(kind: Kind) -> &'static str {
    match kind {
        Kind::Kernel => "a kernel",
        Kind::Initramfs => "an initrd",
        Kind::Squashfs => "a squashfs",
        _ => "a file",
    }
}

/// The initrds of the ISO that one of the set begins with, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Their names on the ISO, in order.
    pub initrds: Vec<String>,
    /// Bytes of the set's initrd that they take.
    pub length: u64,
}

impl Beginning {
    /// Tells whether a file of so many bytes has nothing behind them: boot loaders put no more than zeros up to a multiple of
    /// four there.
    pub fn is_all_of(&self, size: u64) -> bool {
        cpio::aligned(self.length) >= size
    }
}

/// A file of the ISO or of the set.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its path on the ISO, with a slash in front, or in the set, without.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Number of bytes.
    pub size: u64,
    /// What is the same for two names of one file.
    pub identity: Option<(u64, u64)>,
    /// Hashes of the whole, in hex.
    pub hashes: BTreeMap<Algorithm, String>,
    /// Digests of parts of it, by their start and their length, where they mattered.
    pub spans: BTreeMap<(u64, u64), BlobDigest>,
    /// The ISO's initrds that it begins with, or is.
    pub begins: Option<Beginning>,
    /// What the kernel says of itself.
    pub kernel: Option<Kernel>,
    /// What it says to firmware that verifies it, if it is a program of UEFI.
    pub image: Option<Result<Image, Unread>>,
    /// What is in the initramfs, or why that cannot be told.
    pub walk: Option<Result<Walk, String>>,
    /// What the squashfs says of itself, or what is wrong with it.
    pub superblock: Option<Result<Superblock, String>>,
    /// The first bytes of a squashfs: a server may tell its size only by sending it.
    pub head: Vec<u8>,
}

impl Part {
    /// A file of which only name, kind and size are known.
    pub fn new(name: impl Into<String>, kind: Kind, size: u64) -> Self {
        Self {
            name: name.into(),
            kind,
            size,
            identity: None,
            hashes: BTreeMap::new(),
            spans: BTreeMap::new(),
            begins: None,
            kernel: None,
            image: None,
            walk: None,
            superblock: None,
            head: Vec::new(),
        }
    }

    /// Returns its digest, where it was read.
    pub fn digest(&self) -> Option<BlobDigest> {
        self.hashes.get(&Algorithm::Blake3)?.parse().ok()
    }

    /// Returns what is in the initramfs, where that could be read.
    pub fn contents(&self) -> Option<&Walk> {
        self.walk.as_ref()?.as_ref().ok()
    }

    /// Tells whether it is an initrd with a squashfs inside.
    pub fn is_combined(&self) -> bool {
        self.contents().is_some_and(|walk| !walk.images.is_empty())
    }

    /// Returns who made the initramfs.
    pub fn family(&self) -> Option<Family> {
        self.contents()?.initramfs.family
    }
}

/// The boot loader a menu is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loader {
    /// An entry of the Boot Loader Specification, which systemd-boot and GRUB read.
    Bls,
    /// GRUB.
    Grub,
    /// iPXE.
    Ipxe,
    /// PXELINUX, ISOLINUX, SYSLINUX.
    Pxelinux,
}

impl Loader {
    /// Tells whether only the machine knows what a text of its menus is: a variable is in it that may be set elsewhere.
    pub(super) fn leaves_open(self, text: &str) -> bool {
        matches!(self, Loader::Bls | Loader::Grub) && text.contains("${")
    }
}

/// A file that a menu names and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The line.
    pub line: usize,
    /// As it is written.
    pub form: String,
    /// What it is wanted for.
    pub role: Role,
    /// Whether its path climbs out of the set.
    pub climbs: bool,
}

/// A file loaded as initrd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPart {
    /// Its name in the set or on the ISO; nothing where it is not there.
    pub part: Option<String>,
    /// As it is written.
    pub form: String,
    /// The path it gets inside the initrd.
    pub inside: Option<String>,
    /// How many of that path's folders the boot loader makes, counted from the innermost.
    pub makes_folders: usize,
    /// What the boot loader calls it, where that is not its file's name.
    pub called: Option<String>,
}

impl LoadedPart {
    /// Returns the name by which the kernel's line means it.
    pub fn name(&self) -> &str {
        self.called.as_deref().unwrap_or_else(|| self.form.rsplit('/').next().unwrap_or(&self.form))
    }
}

/// A thing that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFacts {
    /// What the menu calls it.
    pub title: String,
    /// The line of its kernel.
    pub line: usize,
    /// The kernel's name in the set or on the ISO; nothing where it is not there.
    pub kernel: Option<String>,
    /// Whether only the machine knows which kernel or which initrds are meant.
    pub is_open: bool,
    /// Whether this is a memory test, not Linux.
    pub is_memtest: bool,
    /// The initrds.
    pub initrds: Vec<LoadedPart>,
    /// The kernel's words, without `initrd=`.
    pub words: Vec<String>,
    /// The values of `initrd=`.
    pub initrd_words: Vec<String>,
    /// Whether it is booted where nobody chooses.
    pub is_default: bool,
}

/// A menu or script.
#[derive(Debug, Clone)]
pub struct MenuFacts {
    /// Its file.
    pub file: String,
    /// The boot loader it is for.
    pub loader: Loader,
    /// Whether it is on the ISO.
    pub on_iso: bool,
    /// What can be booted.
    pub entries: Vec<EntryFacts>,
    /// What it names that is not there.
    pub missing: Vec<Missing>,
    /// What is wrong in it by itself.
    pub problems: Vec<Problem>,
    /// Volumes that it looks for.
    pub searched: Vec<Searched>,
    /// The line that takes in the entries of the Boot Loader Specification.
    pub takes_entries: Option<usize>,
    /// Whether it surely starts nothing: neither a kernel, nor another menu, nor what is not looked into.
    pub is_dead: bool,
    /// For which machine it is, and the line that says so.
    pub machine: Option<(usize, String)>,
}

impl MenuFacts {
    /// Takes in what the same file says where it is read with other variables.
    pub(super) fn join(&mut self, other: Self) {
        fn add<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
            for item in more {
                if !all.contains(&item) {
                    all.push(item);
                }
            }
        }
        add(&mut self.entries, other.entries);
        add(&mut self.missing, other.missing);
        add(&mut self.problems, other.problems);
        add(&mut self.searched, other.searched);
        self.takes_entries = self.takes_entries.or(other.takes_entries);
        self.is_dead &= other.is_dead;
        self.machine = self.machine.take().or(other.machine);
    }
}

/// A boot image that El Torito offers.
#[derive(Debug, Clone)]
pub struct BootFacts {
    /// Whom it is for, and where it is.
    pub image: BootImage,
    /// The file that begins there.
    pub file: Option<String>,
    /// Why firmware cannot start it.
    pub damage: Option<String>,
}

/// The checksums on an ISO: the line, and what the file hashes to.
pub(super) type OwnChecksums = Vec<(Checksum, Option<String>)>;

/// The ISO.
#[derive(Debug, Clone)]
pub struct IsoFacts {
    /// Its file name.
    pub name: String,
    /// The volume id.
    pub volume_id: String,
    /// What boot loaders call its UUID.
    pub uuid: String,
    /// Whether a system of Gentoo's is on it, told by a file, or by the name of its volume.
    pub is_gentoos: bool,
    /// Bytes of the volume by its descriptor, and of the file.
    pub volume_size: u64,
    /// Bytes of the file.
    pub size: u64,
    /// What it offers the firmware by El Torito.
    pub boot_images: Result<Vec<BootFacts>, &'static str>,
    /// What is wrong with the EFI system partitions that it has as a stick.
    pub wrong_partitions: Vec<String>,
    /// Whether BIOS is to start it from a stick as well, where nothing but zeros is.
    pub has_empty_boot_code: bool,
    /// Paths that several records of a folder have.
    pub repeated: Vec<String>,
    /// Links that lead to nothing.
    pub dangling: Vec<String>,
    /// What is wrong with the tables of its squashfs.
    pub tables: Option<String>,
    /// Kernels, initrds and the squashfs, by path.
    pub parts: BTreeMap<String, Part>,
    /// Images of other file systems, by path: where a squashfs is missing, one of them stands for it.
    pub other_images: Vec<(String, &'static str)>,
    /// The path of the squashfs.
    pub squashfs: Option<String>,
    /// The hash tree of it, where an initrd has it checked by one.
    pub tree: Option<TreeFacts>,
    /// Hashes of the whole file.
    pub hashes: BTreeMap<Algorithm, String>,
    /// The checksums on the ISO itself: the line, and what the file hashes to (nothing where it is missing).
    pub own_checksums: Option<Result<OwnChecksums, String>>,
}

impl IsoFacts {
    /// Returns the parts of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Part> {
        self.parts.values().filter(move |part| part.kind == kind)
    }

    /// Returns the digest of the whole ISO, where it was wanted.
    pub fn digest(&self) -> Option<BlobDigest> {
        self.hashes.get(&Algorithm::Blake3)?.parse().ok()
    }

    /// Returns the squashfs.
    pub fn squashfs(&self) -> Option<&Part> {
        self.parts.get(self.squashfs.as_ref()?)
    }
}

/// What a line of a list of checksums is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The ISO.
    Iso,
    /// A file of the set.
    Part(String),
    /// Nothing that is here.
    Missing,
    /// A path that climbs out.
    Climbs,
}

/// A list of checksums.
#[derive(Debug, Clone)]
pub struct ChecksumFacts {
    /// Its file.
    pub file: String,
    /// Whether it is beside an ISO that is elsewhere than the set: then files it names may be missing.
    pub beside_iso: bool,
    /// Its lines and what they are about, or why it cannot be read.
    pub lines: Result<Vec<(Checksum, Target)>, String>,
    /// Its text.
    pub text: String,
    /// Algorithms that cannot be checked.
    pub unknown: Vec<String>,
}

/// What was found out about the signatures in one file.
#[derive(Debug, Clone)]
pub enum Found {
    /// They were judged.
    Judged(Vec<Verdict>),
    /// There is no keyring to judge them by: this is what they say of themselves.
    Claimed(Vec<Claim>),
    /// It is no signature, and why.
    Unusable(String),
}

/// A file with signatures: a detached one, or a clear-signed list.
#[derive(Debug, Clone)]
pub struct SignatureFacts {
    /// The file.
    pub file: String,
    /// What is signed; a clear-signed list itself.
    pub of: Target,
    /// What was found out.
    pub found: Found,
}

/// What a builder says of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementFacts {
    /// The file.
    pub file: String,
    /// The line in it.
    pub line: usize,
    /// Who says it, as it says.
    pub builder: Option<String>,
    /// The trusted keys that signed it.
    pub keys: Vec<String>,
    /// The files that it is about, with their SHA-256; or why it does not count.
    pub found: Result<Vec<(Target, String)>, String>,
}

/// A signature by CMS, and how it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeSignatureFacts {
    /// The file.
    pub file: String,
    /// What is signed.
    pub of: Target,
    /// Who signed, as the certificate says.
    pub signer: Option<String>,
    /// Whether that is so.
    pub judgement: CodeJudgement,
}

/// A manifest of `stagegraph build`.
#[derive(Debug, Clone)]
pub struct ManifestFacts {
    /// Its file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// What it says, or why it cannot be read.
    pub document: Result<Manifest, ManifestError>,
    /// The files it names: their names there, and in the set.
    pub files: BTreeMap<String, Target>,
}

/// Everything.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The ISO.
    pub iso: IsoFacts,
    /// What the set was called.
    pub set: String,
    /// The files of the set.
    pub parts: BTreeMap<String, Part>,
    /// Links that lead out of the set.
    pub escapes: Vec<(String, String)>,
    /// Whether the set was listed whole, so that what nothing names is told.
    pub is_listed: bool,
    /// The menus of both.
    pub menus: Vec<MenuFacts>,
    /// The boot loaders of both.
    pub loaders: Vec<LoaderFacts>,
    /// The programs of UEFI of both.
    pub programs: Vec<ProgramFacts>,
    /// Lists of checksums.
    pub checksums: Vec<ChecksumFacts>,
    /// Manifests.
    pub manifests: Vec<ManifestFacts>,
    /// Names of files beside the ISO, in its folder.
    pub beside: BTreeSet<String>,
    /// Files with signatures.
    pub signatures: Vec<SignatureFacts>,
    /// Signatures by CMS.
    pub code_signatures: Vec<CodeSignatureFacts>,
    /// What builders say of the set.
    pub statements: Vec<StatementFacts>,
    /// How many trusted builders have to say so; nothing where nobody named any.
    pub threshold: Option<usize>,
    /// Whether it was said who may sign code: then everything that iPXE loads has to be signed.
    pub has_authorities: bool,
    /// Whether nothing can be signed yet.
    pub is_before_signing: bool,
    /// Whether there is a keyring: then everything that boots has to be signed.
    pub has_keyring: bool,
    /// Files of the set that are no plain files, or have no name in UTF-8.
    pub odd: Vec<String>,
    /// What could not be read, and why.
    pub unreadable: Vec<(String, String)>,
}

impl Facts {
    /// Returns the parts of the set of a kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Part> {
        self.parts.values().filter(move |part| part.kind == kind)
    }

    /// Returns all names of the file that one of these names has: links count as one file.
    pub fn with_same_file<'a>(&'a self, names: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let identity = |name: &&str| self.parts.get(*name)?.identity;
        let identities: BTreeSet<(u64, u64)> = names.iter().filter_map(identity).collect();
        let same =
            self.parts.values().filter(|part| part.identity.is_some_and(|id| identities.contains(&id)));
        names.iter().copied().chain(same.map(|part| part.name.as_str())).collect()
    }

    /// Returns a part by the menu that names it.
    pub fn part(&self, menu: &MenuFacts, name: &str) -> Option<&Part> {
        if menu.on_iso { self.iso.parts.get(name) } else { self.parts.get(name) }
    }
}

/// Returns the span of a file of an ISO.
pub(super) fn span_of(extents: &[(u64, u64)]) -> Span {
    Span(extents.to_vec())
}
