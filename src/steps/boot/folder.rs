//! What is in a boot folder: kernels and initrds, told by their content, and menus.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use cache::file::OnFile;
use cache::name::RelPath;
use cache::{Blob, Objects, RootTree};
use graph::StepError;

use crate::audit::{MenuFacts, folder_menus, may_be_menu};
use crate::formats::initramfs;
use crate::formats::kernel::{self, Format, Kernel};
use crate::formats::program;

/// Menus longer than this are none.
const MAX_MENU: u64 = 1 << 20;

/// Tells whether a file of so many bytes may be a menu.
pub(in crate::steps) fn is_menu(path: &RelPath, size: u64) -> bool {
    size <= MAX_MENU && may_be_menu(&path.to_string())
}

/// Bytes by which a text is told from a kernel.
const LOOKED_AT: u64 = 512;

/// A file of the boot folder.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) path: RelPath,
    pub(super) blob: Blob,
}

/// A kernel.
pub(super) struct Image {
    pub(super) file: Candidate,
    /// What it says of itself; nothing where only its name says that it is one.
    pub(super) kernel: Option<Kernel>,
}

impl Image {
    pub(super) fn path(&self) -> &RelPath {
        &self.file.path
    }

    pub(super) fn release(&self) -> Option<&str> {
        self.kernel.as_ref()?.release.as_deref()
    }
}

/// A boot folder.
pub(super) struct Folder<'a> {
    objects: &'a Objects,
    boot: &'a RootTree,
    /// Kernels, in the order of their names.
    pub(super) images: Vec<Image>,
    pub(super) initrds: Vec<Candidate>,
    pub(super) menus: Vec<MenuFacts>,
}

impl<'a> Folder<'a> {
    /// Reads a boot folder; `named` are the initrds that the spec names.
    pub(super) fn read(
        objects: &'a Objects,
        boot: &'a RootTree,
        mut named: BTreeSet<String>,
    ) -> Result<Self, StepError> {
        let mut folder = Self { objects, boot, images: Vec::new(), initrds: Vec::new(), menus: Vec::new() };
        let mut texts = BTreeMap::new();
        let mut others = Vec::new();
        for (path, digest, size) in boot.tree.files() {
            let candidate = Candidate { path: path.clone(), blob: Blob { digest, size } };
            let mut head = Vec::new();
            // A head is not the whole file, so its digest is not compared here; the readers below do that.
            let reader = folder.open(&candidate)?.take(kernel::HEAD as u64).read_to_end(&mut head);
            reader.on_file("read", path.to_string())?;
            if is_memtest(path) {
                continue;
            }
            if is_menu(path, size) {
                let mut text = Vec::new();
                folder.open(&candidate)?.read_to_end(&mut text).on_file("read", path.to_string())?;
                texts.insert(path.to_string(), String::from_utf8_lossy(&text).into_owned());
                continue;
            }
            let is_named = is_kernel_by_name(path, |name| boot.tree.inode(name).is_some());
            if let Some(found) = folder.kernel(&candidate, &head, is_named)? {
                folder.images.push(Image { file: candidate, kernel: found });
            } else if initramfs::begins(&head).unwrap_or_else(|| !is_text_like(path)) {
                folder.initrds.push(candidate);
            } else {
                others.push(candidate);
            }
        }
        let names: BTreeSet<String> = boot.tree.files().map(|(path, ..)| path.to_string()).collect();
        folder.menus = folder_menus(&names, &texts);
        // What a menu or the spec says is an initrd, is one, whatever it looks like.
        let entries = folder.menus.iter().flat_map(|menu| &menu.entries);
        let loaded = entries.flat_map(|entry| entry.initrds.iter().filter(|loaded| loaded.inside.is_none()));
        named.extend(
            loaded.filter_map(|loaded| Some(loaded.part.as_deref()?.trim_start_matches('/').to_owned())),
        );
        folder.initrds.extend(others.into_iter().filter(|other| named.contains(&other.path.to_string())));
        folder.initrds.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(folder)
    }

    /// Opens a file.
    pub(super) fn open(&self, file: &Candidate) -> Result<impl Read + use<'a>, StepError> {
        Ok(self.boot.open_file(self.objects, &file.path, &file.blob.digest, file.blob.size)?)
    }

    /// Tells whether a file is a kernel: the outer nothing says no, the inner one that it does not say so itself.
    fn kernel(
        &self,
        file: &Candidate,
        head: &[u8],
        is_named: bool,
    ) -> Result<Option<Option<Kernel>>, StepError> {
        // An ELF program may be anything: it is a kernel if a kernel's first words are in it.
        let is_elf = program::elf(head).is_some_and(|elf| elf.is_program);
        let Some(mut kernel) = kernel::detect_named(head) else { return Ok(is_named.then_some(None)) };
        if kernel.hides_more() {
            let reader = self.open(file)?;
            kernel.learn(kernel.look_inside(reader).on_file("read", file.path.to_string())?);
        }
        let is_one = !is_elf || kernel.format != Format::Elf || kernel.release.is_some() || is_named;
        Ok(is_one.then_some(Some(kernel)))
    }

    /// Says why a file is no kernel of any architecture, though its name says that it is one.
    pub(super) fn flaw(&self, image: &Image) -> Result<Option<&'static str>, StepError> {
        if image.kernel.is_some() {
            return Ok(None);
        }
        let mut head = Vec::new();
        let reader = self.open(&image.file)?;
        reader.take(LOOKED_AT).read_to_end(&mut head).on_file("read", image.path().to_string())?;
        let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
        Ok(match head.is_empty() {
            true => Some("is empty"),
            false => head.iter().all(is_text).then_some("is a text"),
        })
    }

    /// Returns the names of all files, for errors.
    pub(super) fn listing(&self) -> String {
        let names: Vec<_> = self.boot.tree.files().map(|(path, ..)| path.to_string()).collect();
        if names.is_empty() { "no files at all".to_owned() } else { names.join(", ") }
    }
}

/// Tells whether a file is a memory test: those have a kernel's header, but no initrd.
pub(in crate::steps) fn is_memtest(path: &RelPath) -> bool {
    String::from_utf8_lossy(path.file_name()).to_lowercase().contains("memtest")
}

/// Tells whether a file is a kernel by catalyst's layout, whatever its architecture: `LABEL`, with `LABEL.igz` beside it.
pub(in crate::steps) fn is_kernel_by_name(path: &RelPath, exists: impl Fn(&RelPath) -> bool) -> bool {
    RelPath::new(&[path.as_bytes(), b".igz"].concat()).is_ok_and(|initrd| exists(&initrd))
}

/// Tells of compressed files whether their names are those of what lies in boot folders and is no initrd.
fn is_text_like(path: &RelPath) -> bool {
    let name = String::from_utf8_lossy(path.file_name()).into_owned();
    [".gz", ".svgz", ".map", ".mod", ".pf2", ".png", ".jpg"].iter().any(|end| name.ends_with(end))
        && !name.starts_with("init")
}
