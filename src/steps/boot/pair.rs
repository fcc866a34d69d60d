//! Which initrds a kernel is booted with: what a menu says, what is inside both, their names, in this order.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;

use cache::name::RelPath;
use graph::StepError;

use super::folder::{Candidate, Folder, Image};
use crate::formats::cpio;
use crate::formats::initramfs::{self, Initramfs};
use crate::formats::kernel::Format;

/// What says which initrds a kernel is booted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A menu, or the spec.
    Menu,
    /// Names that people agreed on.
    Names,
    /// What was found in them, or nothing else.
    Guess,
}

/// A kernel and its initrds, in the order in which they are loaded.
pub(super) struct Pair<'f> {
    pub(super) image: &'f Image,
    /// Who says so.
    pub(super) by: By,
    pub(super) initrds: Vec<Candidate>,
    /// What is in them, unpacked one behind the other.
    pub(super) initramfs: Rc<Initramfs>,
}

/// Pairs kernels with initrds; an initrd is read once.
pub(super) struct Pairing<'f> {
    folder: &'f Folder<'f>,
    read: BTreeMap<Vec<RelPath>, Result<Rc<Initramfs>, String>>,
    /// What is said of choices that were made.
    pub(super) remarks: Vec<String>,
}

impl<'f> Pairing<'f> {
    pub(super) fn new(folder: &'f Folder<'f>) -> Self {
        Self { folder, read: BTreeMap::new(), remarks: Vec::new() }
    }

    /// Returns the pair of a kernel; the inner error says why it has none.
    pub(super) fn of(&mut self, image: &'f Image) -> Result<Result<Pair<'f>, StepError>, StepError> {
        match self.choose(image)? {
            Some((by, initrds)) => self.join(image, by, initrds),
            None => Ok(Err(self.nothing_for(image))),
        }
    }

    /// Reads the initrds that go with a kernel; the inner error says why they cannot be used.
    pub(super) fn join(
        &mut self,
        image: &'f Image,
        by: By,
        initrds: Vec<Candidate>,
    ) -> Result<Result<Pair<'f>, StepError>, StepError> {
        if let Some(what) = image.kernel.as_ref().and_then(|kernel| kernel.damage(image.file.blob.size)) {
            return Ok(Err(StepError::action(format!("the kernel {} {what}", image.path()))));
        }
        if let Some(what) = self.folder.flaw(image)? {
            return Ok(Err(StepError::action(format!("the kernel {} {what}", image.path()))
                .with_hint("its name alone says that it is one; make the medium again")));
        }
        let names: Vec<String> = initrds.iter().map(|initrd| initrd.path.to_string()).collect();
        Ok(match self.initramfs(&initrds)? {
            Ok(initramfs) => Ok(Pair { image, by, initrds, initramfs }),
            Err(why) => Err(StepError::action(format!("the initrd {}: {why}", names.join(" with ")))),
        })
    }

    fn nothing_for(&self, image: &Image) -> StepError {
        let path = image.path();
        if matches!(image.kernel.as_ref().map(|kernel| &kernel.format), Some(Format::Unified(_))) {
            let what =
                format!("{path} is a unified kernel image: its initrd and its command line are inside");
            return StepError::action(what)
                .with_hint("put the kernel and its initrd into the boot folder as two files");
        }
        let listing = self.folder.listing();
        StepError::action(format!("no initrd goes with the kernel {path}; there are {listing}")).with_hint(
            "name it like the kernel: vmlinuz-VERSION and initrd.img-VERSION, or LABEL and LABEL.igz; or say in the spec \
             which one is meant: [image.kernels.LABEL] kernel = \"…\", initrd = \"…\"",
        )
    }

    fn choose(&mut self, image: &Image) -> Result<Option<(By, Vec<Candidate>)>, StepError> {
        let in_menus = self.by_menu(image);
        // An entry may be stale, or of a crash kernel: the first that fits the kernel counts.
        for initrds in &in_menus {
            let fits = self.initramfs(initrds)?.is_ok_and(|initramfs| {
                let is_of_kernel = |release: &str| initramfs.kernels.contains(release);
                initramfs.family.is_some()
                    && (initramfs.kernels.is_empty() || image.release().is_none_or(is_of_kernel))
            });
            if fits {
                if in_menus.len() > 1 {
                    let names: Vec<_> = initrds.iter().map(|initrd| initrd.path.to_string()).collect();
                    self.remarks.push(format!(
                        "menus boot {} with several initrds; the first that fit are taken: {}",
                        image.path(),
                        names.join(", ")
                    ));
                }
                return Ok(Some((By::Menu, initrds.clone())));
            }
        }
        let other = self.without_menu(image)?;
        Ok(other.or_else(|| in_menus.into_iter().next().map(|initrds| (By::Menu, initrds))))
    }

    /// As [`Pairing::choose`], where no menu says it.
    fn without_menu(&mut self, image: &Image) -> Result<Option<(By, Vec<Candidate>)>, StepError> {
        let folder = self.folder;
        let is_beside = |initrd: &&Candidate| image.path().parent() == initrd.path.parent();
        let is_named = |initrd: &&Candidate| is_beside(initrd) && stem(image.path()) == stem(&initrd.path);
        let named = folder.initrds.iter().find(is_named);
        // catalyst's names are an agreement, not a guess.
        if let Some(named) = named.filter(|initrd| is_igz(initrd)) {
            return Ok(Some((By::Names, vec![named.clone()])));
        }
        if let Some(release) = image.release() {
            let mut fitting = Vec::new();
            for initrd in &folder.initrds {
                let read = self.initramfs(std::slice::from_ref(initrd))?;
                if read.is_ok_and(|initramfs| initramfs.kernels.contains(release)) {
                    fitting.push(initrd);
                }
            }
            let best = fitting.iter().copied().find(is_named);
            let beside: Vec<&Candidate> = fitting.iter().copied().filter(is_beside).collect();
            // Of several that fit, one whose maker is known is for a live system.
            let best = best.or_else(|| {
                let among = if beside.is_empty() { &fitting } else { &beside };
                let is_known = |initrd: &&&Candidate| {
                    let read = self.read.get(&vec![initrd.path.clone()]);
                    read.is_some_and(|read| read.as_ref().is_ok_and(|found| found.family.is_some()))
                };
                among.iter().find(is_known).or(among.first()).copied()
            });
            if best.is_some() {
                return Ok(best.map(|initrd| (By::Guess, vec![initrd.clone()])));
            }
        }
        if let Some(named) = named {
            return Ok(Some((By::Guess, vec![named.clone()])));
        }
        // Microcode is no initrd by itself.
        let mut initrds = Vec::new();
        for initrd in &folder.initrds {
            let read = self.initramfs(std::slice::from_ref(initrd))?;
            if !read.is_ok_and(|initramfs| initramfs.is_microcode()) {
                initrds.push(initrd);
            }
        }
        let beside: Vec<&Candidate> = initrds.iter().copied().filter(is_beside).collect();
        let kernels_beside = folder.images.iter().filter(|o| image.path().parent() == o.path().parent());
        let only = match (&beside[..], &initrds[..]) {
            // In a folder of their own.
            ([only], _) if kernels_beside.count() == 1 => Some((*only).clone()),
            (_, [only]) if folder.images.len() == 1 => Some((*only).clone()),
            _ => None,
        };
        Ok(only.map(|initrd| (By::Guess, vec![initrd])))
    }

    /// Returns the initrds that menus boot a kernel with, entry by entry.
    fn by_menu(&self, image: &Image) -> Vec<Vec<Candidate>> {
        let folder = self.folder;
        let is_ours = |name: &str| image.path().as_bytes() == name.trim_start_matches('/').as_bytes();
        let mut found: Vec<Vec<Candidate>> = Vec::new();
        for entry in folder.menus.iter().flat_map(|menu| &menu.entries) {
            if !entry.kernel.as_deref().is_some_and(is_ours) {
                continue;
            }
            let own = entry.initrds.iter().filter(|loaded| loaded.inside.is_none());
            let initrds = own.map(|loaded| {
                let name = loaded.part.as_deref()?.trim_start_matches('/');
                folder.initrds.iter().find(|initrd| initrd.path.as_bytes() == name.as_bytes()).cloned()
            });
            // What a menu names and is not there, it does not boot with.
            if let Some(initrds) = initrds.collect::<Option<Vec<_>>>().filter(|initrds| !initrds.is_empty()) {
                let paths =
                    |all: &[Candidate]| all.iter().map(|initrd| initrd.path.clone()).collect::<Vec<_>>();
                if !found.iter().any(|known| paths(known) == paths(&initrds)) {
                    found.push(initrds);
                }
            }
        }
        found
    }

    /// Reads initrds one behind the other, as the kernel gets them.
    fn initramfs(&mut self, initrds: &[Candidate]) -> Result<Result<Rc<Initramfs>, String>, StepError> {
        let key: Vec<RelPath> = initrds.iter().map(|initrd| initrd.path.clone()).collect();
        if let Some(known) = self.read.get(&key) {
            return Ok(known.clone());
        }
        let mut whole: Box<dyn Read> = Box::new(io::empty());
        let mut at = 0;
        for initrd in initrds {
            let padding = cpio::aligned(at) - at;
            whole = Box::new(whole.chain(io::repeat(0).take(padding)).chain(self.folder.open(initrd)?));
            at += padding + initrd.blob.size;
        }
        let read = initramfs::read(whole).map(Rc::new).map_err(|error| error.to_string());
        self.read.insert(key, read.clone());
        Ok(read)
    }
}

/// Tells whether an initrd is called as catalyst does it: `LABEL.igz`, beside the kernel `LABEL`.
fn is_igz(initrd: &Candidate) -> bool {
    initrd.path.as_bytes().ends_with(b".igz")
}

/// Returns what is left of a kernel's or initrd's name without the usual beginnings and endings; `.old`, which installers of kernels
/// give to those before, stays.
pub(super) fn stem(path: &RelPath) -> String {
    let name = std::str::from_utf8(path.file_name()).unwrap_or_default();
    let starts = [
        "vmlinuz-",
        "vmlinux-",
        "kernel-",
        "linux-",
        "bzImage-",
        "Image-",
        "initrd.img-",
        "initramfs-",
        "initrd-",
    ];
    let ends = [".igz", ".img", ".gz", ".xz", ".initrd", ".efi"];
    let name = starts.iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name);
    let cut = |name: &str| ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned();
    // initramfs-6.1.img.old and initramfs-6.1.old.img are the same.
    match name.strip_suffix(".old") {
        Some(newer) => cut(newer) + ".old",
        None => cut(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_initrds_go_together_by_name() {
        let stems = [
            "boot/vmlinuz-6.1",
            "initrd.img-6.1",
            "initramfs-6.1.img",
            "kernel-6.1",
            "gentoo",
            "gentoo.igz",
            "initramfs-6.1.img.old",
            "vmlinuz-6.1.old",
        ];
        let stems = stems.map(|path| stem(&RelPath::new(path.as_bytes()).unwrap()));
        assert_eq!(stems, ["6.1", "6.1", "6.1", "6.1", "gentoo", "gentoo", "6.1.old", "6.1.old"]);
    }
}
