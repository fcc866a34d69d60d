//! `medium`: the ISO of a folder that somebody else filled: menu, theme, README, whatever is on it.
//!
//! catalyst's target tree is one. Its menu is kept as it is; boot images, the squashfs and entries for consoles are added.

mod partition;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use blake2::{Blake2b512, Digest};
use cache::file::OnFile;
use cache::name::RelPath;
use cache::{Blob, Node, Output};
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use self::partition::Partition;
use super::boot::{check_loaders, decode};
use super::iso::{BOOTINFO, EFI, ELTORITO, Extra, GRUB, MENU, POWERPC, Volume, XORRISO, paths};
use super::kind::{Inputs, Kind, Made, identity};
use super::menu::{Menu, MenuEntry};
use crate::arch::Arch;
use crate::boot::Kernels;
use crate::cmdline::{self, Choice, SQUASHFS, Token};
use crate::config::Fields;
use crate::formats::checksums::{hex, line_of};
use crate::image::{Image, LEAST_PARTITION_KIB, tokens};

/// Gives `files`, a folder with the ISO under its published name.
///
/// With `verify = true` the ISO carries `isoroot_b2sums`, the checksums of all its files, which genkernel's initramfs
/// compares. `consoles`, a table of kernels, adds entries to the menu. `extra_partition_kib` appends an empty XFS.
pub(super) const KIND: Kind = Kind {
    name: "medium",
    inputs: Inputs::Named { required: &["tree", "facts", "squashfs", GRUB], optional: &["tools"] },
    make,
};

/// The file with the checksums of all others.
const SUMS: &str = "isoroot_b2sums";

#[derive(Serialize)]
struct Medium {
    arch: Arch,
    name: String,
    menu: Menu,
    volume: Volume,
    verify: bool,
    /// More consoles, by the names of kernels.
    consoles: BTreeMap<String, Vec<Token>>,
    partition: Option<Partition>,
}

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let mut consoles = BTreeMap::new();
    for (kernel, item) in fields.entries("consoles") {
        consoles.insert(kernel.to_owned(), fields.check(tokens(item)).unwrap_or_default());
    }
    let step = Medium {
        arch: image.arch,
        name: image.iso_name(),
        menu: Menu::of(fields, image),
        volume: Volume::of(fields, image),
        verify: fields.bool("verify", false),
        consoles,
        partition: fields
            .integer("extra_partition_kib", LEAST_PARTITION_KIB..=partition::MOST_KIB)
            .map(|kib| Partition::new(kib, &image.volume_id(fields), image.timestamp)),
    };
    Some(Made::new(step, &["files/"]))
}

impl Medium {
    /// Returns the menu that the medium has: catalyst's, with `entries` behind it. catalyst writes the volume id that GRUB
    /// looks for without quotes, so that GRUB would look for its first word.
    fn menu_of(&self, menu: &mut impl Read, entries: &str) -> io::Result<Vec<u8>> {
        let mut given = Vec::new();
        menu.read_to_end(&mut given)?;
        let id = &self.volume.volume_id;
        let unquoted = format!("-l {id}\n");
        let mut text = Vec::new();
        for line in given.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(unquoted.as_bytes()).filter(|_| id.contains(' ')) {
                Some(before) => text.extend([before, format!("-l '{id}'\n").as_bytes()].concat()),
                None => text.extend_from_slice(line),
            }
        }
        text.extend_from_slice(entries.as_bytes());
        Ok(text)
    }

    /// Renders the entries that are added to the menu.
    fn console_entries(&self, kernels: &Kernels) -> Result<String, StepError> {
        let volume_id = &self.volume.volume_id;
        let medium = cmdline::Medium::Iso { volume_id: volume_id.clone() };
        let mut text = String::new();
        for (label, consoles) in &self.consoles {
            let kernel = kernels.0.iter().find(|kernel| kernel.label == *label).ok_or_else(|| {
                let known: Vec<_> = kernels.0.iter().map(|kernel| kernel.label.as_str()).collect();
                StepError::spec(format!(
                    "consoles: there is no kernel {label:?}; there are {}",
                    known.join(", ")
                ))
            })?;
            let entries = consoles.iter().map(|console| {
                let line = self.menu.line(kernel, &medium, Choice::Default, Some(console))?;
                Ok(MenuEntry { kernel, choice: Choice::Default, console: Some(console), line })
            });
            let entries = entries.collect::<Result<Vec<_>, StepError>>()?;
            let entries: Vec<&MenuEntry<'_>> = entries.iter().collect();
            text.push_str(&self.menu.grub_consoles(label, &entries, Some(volume_id), &paths));
        }
        Ok(text)
    }
}

impl Step for Medium {
    identity!(version 5);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let mut tools = vec![XORRISO];
        tools.extend(self.partition.as_ref().map(|_| partition::MKFS));
        tools.extend(self.partition.as_ref().map(|_| partition::XFS_DB));
        Ok(Resolved::with_tools(resolving, &tools)?)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let kernels = decode(job)?;
        check_loaders(&kernels, self.arch)?;
        let entries = self.console_entries(&kernels)?;
        let work = job.objects.work_dir()?;
        let tree = job.tree("tree")?;
        let mut files: BTreeMap<OsString, String> = BTreeMap::new();
        let mut objects: BTreeMap<String, Blob> = BTreeMap::new();
        let mut sums: BTreeMap<OsString, String> = BTreeMap::new();
        let filled: BTreeSet<RelPath> = tree.tree.entries().filter_map(|(path, _)| path.parent()).collect();
        for path in tree.tree.entries().map(|(path, _)| path) {
            let name = OsStr::from_bytes(path.as_bytes()).to_owned();
            // What an earlier run left there is made anew.
            if [SQUASHFS, SUMS, ELTORITO, EFI, POWERPC, BOOTINFO].iter().any(|made| name == **made) {
                continue;
            }
            let here = format!("tree-{}", files.len());
            let place = work.path().join(&here);
            let Some(inode) = tree.tree.inode(path) else { continue };
            let (digest, size) = match &inode.node {
                Node::File { digest, size } => (*digest, *size),
                Node::Symlink(target) => {
                    symlink(OsStr::from_bytes(target), &place).on_file("make", &place)?;
                    files.insert(name, here);
                    continue;
                }
                Node::Dir => {
                    if !filled.contains(path) {
                        fs::create_dir(&place).on_file("make", &place)?;
                        files.insert(name, here);
                    }
                    continue;
                }
                Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo | Node::Socket => {
                    job.remark(format!("{path} is a device, a pipe or a socket: it is not on the ISO"));
                    continue;
                }
            };
            let mut reader: Box<dyn Read> = Box::new(tree.open_file(job.objects, path, &digest, size)?);
            if name == *MENU && (!entries.is_empty() || self.volume.volume_id.contains(' ')) {
                let text = self.menu_of(&mut reader, &entries).on_file("read", &name)?;
                reader = Box::new(io::Cursor::new(text));
            } else if let Some(name) = name.to_str() {
                objects.insert(name.to_owned(), Blob { digest, size });
            }
            let mut file = fs::File::create(&place).on_file("make", &place)?;
            let sum = copy(&mut reader, &mut file, self.verify).on_file("copy", &place)?;
            // For everybody or nobody, as the ISO has it.
            let mode = if inode.meta.mode & 0o111 == 0 { 0o644 } else { 0o755 };
            file.set_permissions(fs::Permissions::from_mode(mode)).on_file("chmod", &place)?;
            sums.extend(sum.map(|sum| (name.clone(), sum)));
            files.insert(name, here);
        }
        if !files.contains_key(OsStr::new(MENU)) {
            return Err(StepError::action(format!("the medium's folder has no {MENU}"))
                .with_hint("catalyst's bootloader action writes it; run it again without autoresume"));
        }
        if self.verify {
            let path = job.path("squashfs")?;
            let mut image = fs::File::open(&path).on_file("open", &path)?;
            let sum = copy(&mut image, &mut io::sink(), true).on_file("read", &path)?;
            sums.extend(sum.map(|sum| (SQUASHFS.into(), sum)));
            // As `find -type f -exec b2sum {} +` writes them, in a fixed order.
            let line = |(name, hex): (&OsString, &String)| line_of(hex, &[b"./", name.as_bytes()].concat());
            let text: Vec<u8> = sums.iter().flat_map(line).collect();
            fs::write(work.path().join("sums"), text).on_file("write", work.path().join("sums"))?;
            files.insert(SUMS.into(), "sums".to_owned());
        }
        let partition = self.partition.as_ref().map(|partition| partition.make(job, &work)).transpose()?;
        let extra = Extra { inputs: BTreeMap::new(), objects, partition };
        self.volume.write(job, &self.name, &work, files, extra)
    }
}

/// Copies a file; returns its BLAKE2b if that is wanted.
fn copy(from: &mut impl Read, to: &mut impl Write, is_summed: bool) -> io::Result<Option<String>> {
    let mut hasher = is_summed.then(Blake2b512::new);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.map(|hasher| hex(&hasher.finalize())));
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..read]);
        }
        to.write_all(&buffer[..read])?;
    }
}
