//! Compares a command line that somebody wrote with the model, word by word.
//!
//! What dracut and genkernel make of each word is in `dracut.cmdline(7)`, dracut's `parse-dmsquash-live.sh`,
//! `dmsquash-live-root.sh` and `parse-livenet.sh`, and genkernel's `defaults/linuxrc`.

use crate::formats::initramfs::{Family, Initramfs};

/// Where a command line's squashfs really is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Squashfs<'a> {
    /// On the medium with this volume id, at this path.
    Iso {
        /// The volume id.
        volume_id: &'a str,
        /// The path, without a slash in front.
        path: &'a str,
        /// Whether the system is Gentoo's, whose scripts look for `cdroot`.
        is_gentoos: bool,
    },
    /// In the initramfs, at this path.
    InInitrd {
        /// The path, with a slash in front.
        path: &'a str,
        /// Whether the system is Gentoo's.
        is_gentoos: bool,
        /// Where it is on the ISO, if the ISO itself is what lies there.
        on_iso: Option<&'a str>,
    },
    /// Neither: the initramfs has to fetch it.
    Fetched {
        /// Whether the system is Gentoo's.
        is_gentoos: bool,
        /// Where it is on the ISO, if the ISO itself is fetched.
        on_iso: Option<&'a str>,
    },
}

/// A word that says something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The word; nothing where it is a word that is not there, whose default is wrong.
    pub word: Option<String>,
    /// What is said of it.
    pub what: String,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Words that are missing, and what for.
    pub missing: Vec<String>,
    /// Words that say something else, and what is right.
    pub contradicting: Vec<Contradiction>,
    /// Words of which only the machine, or a server that is not here, knows what they lead to, and why.
    pub not_judged: Vec<String>,
    /// What works without it, but not as it should.
    pub advised: Vec<String>,
    /// Words beyond the model's: the image's own arguments, consoles.
    pub harmless: Vec<String>,
}

impl Comparison {
    /// Tells whether the system boots with this line, as far as words decide it.
    pub fn is_right(&self) -> bool {
        self.missing.is_empty() && self.contradicting.is_empty()
    }

    fn missing(&mut self, word: &str, why: &str) {
        self.missing.push(format!("{word} is missing: {why}"));
    }

    /// Notes a word of the line that is wrong.
    fn wrong(&mut self, word: &str, why: impl Into<String>) {
        let what = format!("{word}: {}", why.into());
        self.contradicting.push(Contradiction { word: Some(word.to_owned()), what });
    }

    /// Notes what is wrong though no single word says so: what is meant without one, or what no word can mend.
    fn wrong_by_itself(&mut self, what: impl Into<String>) {
        self.contradicting.push(Contradiction { word: None, what: what.into() });
    }
}

/// Words by which only genkernel's initramfs finds its root.
const GENKERNEL: [&str; 6] = ["looptype", "loop", "docache", "real_root", "subdir", "doslowusb"];

/// Tells whether a word means yes to dracut's `getargbool`: alone, or with one of these values.
fn is_yes(value: Option<&str>) -> bool {
    value.is_none_or(|value| matches!(value, "1" | "yes" | "on" | "true"))
}

/// Compares `words` with what an initramfs of that family needs to find its squashfs.
pub fn compare(
    initramfs: &Initramfs,
    family: Family,
    squashfs: &Squashfs<'_>,
    words: &[String],
) -> Comparison {
    let mut found = Comparison::default();
    let mut line = Line { words, used: vec![false; words.len()] };
    match family {
        Family::Dracut => dracut(initramfs, squashfs, &mut line, &mut found),
        Family::Genkernel => genkernel(squashfs, &mut line, &mut found),
    }
    let rest = words.iter().zip(&line.used).filter(|(_, used)| !**used);
    found.harmless = rest.map(|(word, _)| word.clone()).collect();
    found
}

/// A command line, and which of its words have been looked at.
struct Line<'a> {
    words: &'a [String],
    used: Vec<bool>,
}

impl<'a> Line<'a> {
    /// Takes all words with that key: the words and their values.
    fn take(&mut self, key: &str) -> Vec<(&'a str, Option<&'a str>)> {
        let mut taken = Vec::new();
        for (word, used) in self.words.iter().zip(&mut self.used) {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(k, v)| (k, Some(v)));
            // dracut and the kernel take a dash for an underscore.
            if name.replace('-', "_") == key.replace('-', "_") {
                *used = true;
                taken.push((word.as_str(), value));
            }
        }
        taken
    }

    fn has(&self, key: &str) -> bool {
        self.words.iter().any(|word| word.split('=').next() == Some(key))
    }
}

/// dracut's network roots: how `root=` or `netroot=` begins, and the module that mounts it (`parse-nfsroot.sh`,
/// `parse-nbdroot.sh`, `parse-iscsiroot.sh`, `parse-cifsroot.sh`, `parse-fcoe.sh`, `parse-virtiofs.sh`).
const NETWORK_ROOTS: [(&str, &str); 9] = [
    ("nfs:", "nfs"),
    ("nfs4:", "nfs"),
    ("/dev/nfs", "nfs"),
    ("nbd:", "nbd"),
    ("iscsi:", "iscsi"),
    ("cifs:", "cifs"),
    ("fcoe:", "fcoe"),
    ("virtiofs:", "virtiofs"),
    ("dhcp", "network"),
];

/// Returns the module of dracut's that mounts a root which is neither local nor live.
pub fn network_root(value: &str) -> Option<&'static str> {
    let found = NETWORK_ROOTS.iter().find(|(start, _)| value.starts_with(start));
    found.map(|(_, module)| *module)
}

/// What dracut takes for an address, so that livenet fetches it (`url-lib.sh`, `nfs-lib.sh`, `parse-livenet.sh`).
const ADDRESSES: [&str; 8] =
    ["http://", "https://", "ftp://", "tftp://", "nfs://", "torrent://", "nfs:", "${"];

fn ends_with(path: &str, end: &str) -> bool {
    let start = path.len().checked_sub(end.len()).and_then(|at| path.get(at..));
    start.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

fn dracut(initramfs: &Initramfs, squashfs: &Squashfs<'_>, line: &mut Line<'_>, found: &mut Comparison) {
    for key in GENKERNEL {
        for (word, _) in line.take(key) {
            found.wrong(word, "this is genkernel's; the initrd was made by dracut, which does not know it");
        }
    }
    let of_installer = INSTALLER.map(|key| Some((key, line.take(key).last()?.1?)));
    if let Some((key, value)) = of_installer.into_iter().flatten().next() {
        return anaconda(key, value, squashfs, found);
    }
    let roots = line.take("root");
    let ram: Vec<_> = line.take("rd.live.ram").into_iter().filter(|(_, value)| is_yes(*value)).collect();
    let directory = line.take("rd.live.dir").last().and_then(|(_, value)| *value).unwrap_or("LiveOS");
    let image = line.take("rd.live.squashimg").last().and_then(|(_, value)| *value).unwrap_or("squashfs.img");
    let named = format!("{}/{image}", directory.trim_matches('/'));
    // An older way to say that the root is live.
    let is_live = ["rd.live.image", "liveimg"]
        .map(|key| line.take(key).last().is_some_and(|(_, value)| is_yes(*value)))
        .contains(&true);
    match squashfs {
        Squashfs::Iso { volume_id, path, is_gentoos } => {
            let mut device = None;
            root(&roots, &format!("root=live:CDLABEL={volume_id}"), found, |value| {
                let label = value.strip_prefix("live:").or_else(|| is_live.then_some(value))?;
                // By what is in the volume itself, which is not judged.
                if label.starts_with("UUID=") || label.starts_with("/dev/disk/by-uuid/") {
                    return Some(true);
                }
                if let Some(label) = label.strip_prefix("/dev/disk/by-label/") {
                    return Some(label.replace("\\x20", " ") == *volume_id);
                }
                if label.starts_with("/dev/") {
                    device = Some(label.to_owned());
                    return Some(true);
                }
                let label = label.strip_prefix("CDLABEL=").or_else(|| label.strip_prefix("LABEL="))?;
                // A blank is written \x20 for udev.
                Some(label.replace("\\x20", " ") == *volume_id)
            });
            found
                .not_judged
                .extend(device.map(|device| format!("only the machine knows whether {device} is this ISO")));
            on_medium(&named, path, found);
            if line.take("cdroot").is_empty() && *is_gentoos {
                found.missing("cdroot", "Gentoo's live system looks for it");
            }
        }
        Squashfs::InInitrd { path, on_iso, is_gentoos } => {
            let right = format!("root=live:{path}");
            root(&roots, &right, found, |value| {
                Some(value.strip_prefix("live:").or_else(|| is_live.then_some(value))? == *path)
            });
            match on_iso {
                Some(_) if !ends_with(path, ".iso") => found.wrong_by_itself(format!(
                    "{right}: dracut takes a local file for an ISO only if its name ends in .iso"
                )),
                None if !ends_with(path, ".img") && !ends_with(path, ".iso") => {
                    found.wrong_by_itself(format!(
                        "{right}: dracut takes a local file only if its name ends in .img or .iso; put it there under such a name"
                    ));
                }
                Some(_) | None => {}
            }
            advise_cdroot(line, *is_gentoos, found);
            if let Some(on_iso) = on_iso {
                on_medium(&named, on_iso, found);
            } else {
                for (word, _) in ram {
                    found.wrong(word, "the squashfs is in memory already; this makes a second copy");
                }
            }
        }
        Squashfs::Fetched { on_iso, is_gentoos } => {
            fetched(initramfs, &roots, line, found);
            advise_cdroot(line, *is_gentoos, found);
            if let Some(on_iso) = on_iso {
                on_medium(&named, on_iso, found);
            }
        }
    }
}

/// Where anaconda, Fedora's installer, finds its image, in place of `root=` (its `docs/boot-options.rst`).
pub const INSTALLER: [&str; 2] = ["inst.stage2", "inst.repo"];

fn anaconda(key: &str, value: &str, squashfs: &Squashfs<'_>, found: &mut Comparison) {
    match (squashfs, value.strip_prefix("hd:LABEL=").and_then(|rest| rest.split(':').next())) {
        (Squashfs::Iso { volume_id, .. }, Some(label)) => {
            if label.replace("\\x20", " ") != *volume_id {
                found.wrong(&format!("{key}={value}"), format!("the ISO's volume id is {volume_id:?}"));
            }
        }
        // Its address leads to the set, or it does not.
        (Squashfs::Fetched { .. }, _) if value.contains("://") => {}
        _ => found.not_judged.push(format!("anaconda finds its image itself, by {value}")),
    }
}

/// Asks for the word by which Gentoo's live system knows that it is one.
fn advise_cdroot(line: &mut Line<'_>, is_gentoos: bool, found: &mut Comparison) {
    if line.take("cdroot").is_empty() && is_gentoos {
        found.advised.push(
            "cdroot is missing: without it, Gentoo's live system logs nobody in on its consoles".to_owned(),
        );
    }
}

/// Checks that the words name the squashfs of a medium.
fn on_medium(named: &str, path: &str, found: &mut Comparison) {
    let named = named.trim_start_matches('/');
    if named != path {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        found.wrong_by_itself(format!(
            "rd.live.dir and rd.live.squashimg name /{named}: the squashfs is at /{path}: rd.live.dir=/{folder} \
             rd.live.squashimg={file}"
        ));
    }
}

/// Checks a line by which dracut fetches its root, or mounts it from a server.
fn fetched(
    initramfs: &Initramfs,
    roots: &[(&str, Option<&str>)],
    line: &mut Line<'_>,
    found: &mut Comparison,
) {
    let last = roots.last().and_then(|(_, value)| *value).unwrap_or_default();
    // A network root goes before `netroot=`, and a live root knows none.
    let netroots = line.take("netroot");
    let elsewhere = network_root(last).map(|module| (last, module)).or_else(|| {
        let value = netroots.last().and_then(|(_, value)| *value)?;
        Some((value, network_root(value)?)).filter(|_| !last.starts_with("live:"))
    });
    if let Some((value, module)) = elsewhere {
        if initramfs.modules.contains(module) {
            found.not_judged.push(format!("its root, {value}, is on a server that is not here"));
        } else {
            found.wrong_by_itself(format!(
                "root={value}: the initrd has no {module} module and cannot mount it; make it with dracut's {module}"
            ));
        }
    } else if last.strip_prefix("live:").is_some_and(is_nfs) {
        over_nfs(initramfs, last, found);
    } else {
        root(roots, "root=live:http://HOST/image.squashfs", found, |value| {
            let address = value.strip_prefix("live:")?;
            Some(ADDRESSES.iter().any(|scheme| address.starts_with(scheme)))
        });
        if !initramfs.has_livenet() {
            found.wrong_by_itself(
                "root=live:http: the initrd has no livenet module and cannot fetch it; make it with dracut's livenet, or put \
                 the squashfs into the initrd",
            );
        }
    }
    // Without ip=, dracut asks for an address by DHCP as soon as its root is on the network (`parse-ip-opts.sh`; seen in QEMU
    // with dracut 059).
    for (word, _) in line.take("ip").iter().filter(|(_, value)| matches!(value, Some("off" | "none"))) {
        found.wrong(word, "the initramfs needs the network to fetch its root: ip=dhcp");
    }
    line.take("rd.neednet");
}

/// Tells whether dracut mounts a folder at an address.
pub fn is_nfs(address: &str) -> bool {
    ["nfs:", "nfs4:"].iter().any(|scheme| address.starts_with(scheme))
}

/// Checks whether an initrd can mount the folder that its image is in (`livenet`, and `nfs_fetch_url` of dracut's `nfs-lib.sh`).
fn over_nfs(initramfs: &Initramfs, root: &str, found: &mut Comparison) {
    // Behind the options and the server, or what stands for them.
    if !root.rsplit([':', '}']).next().is_some_and(|path| path.starts_with('/') && path.len() > 1) {
        found.wrong(
            &format!("root={root}"),
            "it must be root=live:nfs:OPTIONS:HOST:/FOLDER/image.squashfs, or nfs:HOST:/FOLDER/image.squashfs",
        );
    }
    for (module, has) in [("livenet", initramfs.has_livenet()), ("nfs", initramfs.has_nfs())] {
        if !has {
            found.wrong_by_itself(format!(
                "root=live:nfs: the initrd has no {module} module and cannot mount it; make it with dracut's livenet and nfs"
            ));
        }
    }
    if !initramfs.nfs_lacks.is_empty() {
        found.wrong_by_itself(format!(
            "root=live:nfs: the initrd has no {}, which mounting over NFS takes: install nfs-utils and the list of protocols \
             (Debian: nfs-common and netbase; Gentoo: iana-etc or baselayout) before dracut runs",
            initramfs.nfs_lacks.join(" and no ")
        ));
    }
}

/// Checks the words `root=`: there is one, and the last one, which dracut takes, says what is right.
fn root(
    roots: &[(&str, Option<&str>)],
    right: &str,
    found: &mut Comparison,
    mut is_right: impl FnMut(&str) -> Option<bool>,
) {
    if roots.is_empty() {
        found.missing(right, "the initramfs does not know its root");
    }
    for (word, value) in roots.iter().rev().take(1) {
        if is_right(value.unwrap_or_default()) != Some(true) {
            found.wrong(word, format!("it must be {right}"));
        }
    }
}

/// Tells whether genkernel's initramfs mounts the medium by NFS (`findnfsmount` of `defaults/initrd.scripts`).
fn mounts_nfs(line: &mut Line<'_>) -> bool {
    let is_nfs = |(_, value): &(&str, Option<&str>)| *value == Some("/dev/nfs");
    ["real_root", "root"].map(|key| line.take(key).last().is_some_and(is_nfs)).contains(&true)
}

fn genkernel(squashfs: &Squashfs<'_>, line: &mut Line<'_>, found: &mut Comparison) {
    for (word, value) in line.take("root") {
        if value.is_some_and(|value| value.starts_with("live:")) {
            found.wrong(word, "this is dracut's; the initrd was made by genkernel, which does not know it");
        }
    }
    for key in ["rd.live.dir", "rd.live.squashimg", "rd.live.ram", "rd.live.image"] {
        for (word, _) in line.take(key) {
            found.wrong(word, "this is dracut's; the initrd was made by genkernel, which does not know it");
        }
    }
    let path = match squashfs {
        Squashfs::Iso { path, .. } => format!("/{path}"),
        // It looks for media among devices alone; a file is mounted by `loop=`.
        Squashfs::InInitrd { path, .. } => (*path).to_owned(),
        Squashfs::Fetched { .. } if mounts_nfs(line) => {
            found.not_judged.push("its root is on an NFS server that is not here".to_owned());
            return;
        }
        Squashfs::Fetched { .. } => {
            found.wrong_by_itself(
                "the squashfs is neither on the medium nor in the initrd, and genkernel's initramfs cannot fetch it",
            );
            return;
        }
    };
    for (key, right) in [("looptype", "squashfs"), ("loop", path.as_str())] {
        let taken = line.take(key);
        if taken.is_empty() {
            found.missing(&format!("{key}={right}"), "genkernel's initramfs finds its root by it");
        }
        for (word, value) in taken {
            if value != Some(right) {
                found.wrong(word, format!("it must be {key}={right}"));
            }
        }
    }
    if !line.has("cdroot") {
        found.missing("cdroot", "genkernel's initramfs looks for live media only with it");
    }
    line.take("cdroot");
    for (word, _) in line.take("docache") {
        if matches!(squashfs, Squashfs::InInitrd { .. }) {
            found.wrong(word, "the squashfs is in memory already; this makes a second copy");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::cmdline::{Choice, CommandLine, Medium, SQUASHFS, SQUASHFS_IN_INITRD, Wanted};
    use crate::formats::initramfs::Files;

    const FETCHED: Squashfs<'_> = Squashfs::Fetched { on_iso: None, is_gentoos: false };

    fn initramfs(modules: &[&str]) -> Initramfs {
        Initramfs {
            family: None,
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
            kernels: BTreeSet::new(),
            segments: Vec::new(),
            unpacked: 0,
            program: None,
            cmdline: BTreeMap::new(),
            nfs_lacks: Vec::new(),
            verity: Default::default(),
            files: Files::default(),
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_of_gentoos_own_are_asked_for_where_the_system_is_gentoos() {
        let words = words("root=live:CDLABEL=Live-1 rd.live.image");
        for (is_gentoos, missing) in [(true, 1), (false, 0)] {
            let iso = Squashfs::Iso { volume_id: "Live-1", path: "LiveOS/squashfs.img", is_gentoos };
            let found = compare(&initramfs(&[]), Family::Dracut, &iso, &words);
            assert_eq!((found.missing.len(), found.contradicting.len()), (missing, 0), "{found:?}");
        }
    }

    #[test]
    fn every_line_of_the_model_is_right() {
        let live = initramfs(&["livenet", "nfs"]);
        let inside = format!("/{SQUASHFS_IN_INITRD}");
        let media = [
            (
                Medium::Iso { volume_id: "X-1".to_owned() },
                Squashfs::Iso { volume_id: "X-1", path: SQUASHFS, is_gentoos: true },
            ),
            (Medium::InInitrd, Squashfs::InInitrd { path: &inside, on_iso: None, is_gentoos: false }),
            (Medium::Http { url: "http://host/image.squashfs".to_owned() }, FETCHED),
            (Medium::Nfs { options: "vers=3,tcp".to_owned(), folder: "host:/folder".to_owned() }, FETCHED),
        ];
        let mut compared = 0;
        for family in [Family::Dracut, Family::Genkernel] {
            for (medium, squashfs) in &media {
                for choice in [Choice::Default, Choice::Cached, Choice::Accessibility] {
                    let wanted = Wanted { family, medium, bootargs: &[], choice, console: None };
                    let Ok(line) = CommandLine::new(&wanted) else { continue };
                    let found = compare(&live, family, squashfs, &words(&line.to_string()));
                    assert!(found.is_right(), "{line}: {found:?}");
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 16);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let iso = Squashfs::Iso { volume_id: "X-1", path: "image.squashfs", is_gentoos: true };
        let inside = Squashfs::InInitrd { path: "/image.squashfs.img", on_iso: None, is_gentoos: false };
        let bare = Squashfs::InInitrd { path: "/image.squashfs", on_iso: None, is_gentoos: false };
        let whole = Squashfs::Fetched { on_iso: Some("image.squashfs"), is_gentoos: false };
        let iso_inside =
            Squashfs::InInitrd { path: "/x.iso", on_iso: Some("image.squashfs"), is_gentoos: false };
        use Family::{Dracut, Genkernel};
        for (family, squashfs, line, expected) in [
            (
                Dracut,
                &iso,
                "root=live:CDLABEL=X-2 rd.live.dir=/ rd.live.squashimg=image.squashfs cdroot",
                "X-2",
            ),
            (Dracut, &iso, "root=live:CDLABEL=X-1 rd.live.squashimg=image.squashfs cdroot", "LiveOS"),
            (Dracut, &iso, "root=live:CDLABEL=X-1 rd.live.dir=/ rd.live.squashimg=image.squashfs", "cdroot"),
            (
                Dracut,
                &iso,
                "rd.live.dir=/ rd.live.squashimg=image.squashfs cdroot",
                "root=live:CDLABEL=X-1 is missing",
            ),
            (Dracut, &inside, "root=live:/image.squashfs", "root=live:/image.squashfs.img"),
            (Dracut, &inside, "root=live:/image.squashfs.img rd.live.ram=1", "second copy"),
            (Dracut, &inside, "looptype=squashfs loop=/image.squashfs cdroot", "genkernel's"),
            (Dracut, &bare, "root=live:/image.squashfs", ".img or .iso"),
            (Dracut, &FETCHED, "root=live:http://h/i ip=dhcp", "livenet"),
            (Dracut, &FETCHED, "root=live:http://h/i ip=off", "ip=dhcp"),
            (Dracut, &FETCHED, "root=nbd:h:live", "no nbd module"),
            (Dracut, &FETCHED, "root=live:/dev/nbd0 netroot=nbd:h:live", "root=live:http"),
            (Dracut, &FETCHED, "root=/dev/sda9", "root=live:http"),
            (Dracut, &whole, "root=live:http://h/x.iso", "rd.live.squashimg=image.squashfs"),
            (Dracut, &iso_inside, "root=live:/x.iso", "rd.live.squashimg=image.squashfs"),
            (Genkernel, &inside, "root=live:/image.squashfs.img", "dracut's"),
            (Genkernel, &bare, "looptype=squashfs loop=/other cdroot", "loop=/image.squashfs"),
            (Genkernel, &bare, "looptype=squashfs loop=/image.squashfs", "cdroot"),
            (Genkernel, &FETCHED, "root=live:http://h/i", "cannot fetch"),
            (Dracut, &FETCHED, "root=live:nfs:vers=3:h:/i/image.squashfs", "no nfs module"),
            (Dracut, &FETCHED, "root=live:nfs4:h:/i/image.squashfs", "no livenet module"),
            (Dracut, &FETCHED, "root=live:nfs:${nfs}image.squashfs", "it must be root=live:nfs:OPTIONS"),
            (Dracut, &FETCHED, "root=live:nfs:10.0.0.1:image.squashfs", "it must be root=live:nfs:OPTIONS"),
        ] {
            let found = compare(&initramfs(&[]), family, squashfs, &words(line));
            let text = format!("{:?}{:?}", found.missing, found.contradicting);
            assert!(text.contains(expected), "{line}: {expected}: {text}");
        }
    }

    #[test]
    fn what_only_the_machine_or_a_server_knows_is_not_judged() {
        let iso = Squashfs::Iso { volume_id: "X-1", path: "LiveOS/squashfs.img", is_gentoos: false };
        use Family::{Dracut, Genkernel};
        for (family, squashfs, line, is_judged) in [
            (Dracut, &FETCHED, "root=live:http://h/i", true),
            (Dracut, &FETCHED, "root=nbd:h:live ip=dhcp", false),
            (Dracut, &FETCHED, "root=nfs:h:/srv/live", false),
            (Dracut, &FETCHED, "root=/dev/nfs nfsroot=h:/srv/live", false),
            (Dracut, &FETCHED, "root=/dev/sda1 netroot=iscsi:h::::iqn.x", false),
            (Dracut, &FETCHED, "root=dhcp", false),
            (
                Genkernel,
                &FETCHED,
                "real_root=/dev/nfs nfsroot=h:/srv looptype=squashfs loop=/i cdroot",
                false,
            ),
            (Dracut, &iso, "root=live:/dev/sr0", false),
            (Dracut, &iso, "rd.live.image root=CDLABEL=X-1", true),
            (Dracut, &iso, "inst.stage2=hd:LABEL=X-1 quiet", true),
            (Dracut, &FETCHED, "inst.stage2=http://h/os/ ip=dhcp", true),
            (Dracut, &FETCHED, "inst.repo=nfs:h:/os", false),
            (Dracut, &iso, "root=live:CDLABEL=X-1 rd.live.image", true),
        ] {
            let modules = initramfs(&["livenet", "nbd", "nfs", "iscsi", "network"]);
            let found = compare(&modules, family, squashfs, &words(line));
            assert!(found.is_right(), "{line}: {found:?}");
            assert_eq!(found.not_judged.is_empty(), is_judged, "{line}: {found:?}");
        }
    }

    #[test]
    fn the_images_own_words_are_harmless() {
        let line = words("dokeymap quiet root=live:/i.img console=ttyS0 rd.live.ram=0");
        let found = compare(
            &initramfs(&[]),
            Family::Dracut,
            &Squashfs::InInitrd { path: "/i.img", on_iso: None, is_gentoos: false },
            &line,
        );
        assert!(found.is_right());
        assert_eq!(found.harmless, ["dokeymap", "quiet", "console=ttyS0"]);
    }
}
