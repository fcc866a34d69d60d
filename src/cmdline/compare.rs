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
    },
    /// Neither: the initramfs has to fetch it.
    Fetched,
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

fn dracut(initramfs: &Initramfs, squashfs: &Squashfs<'_>, line: &mut Line<'_>, found: &mut Comparison) {
    for key in GENKERNEL {
        for (word, _) in line.take(key) {
            found.wrong(word, "this is genkernel's; the initrd was made by dracut, which does not know it");
        }
    }
    let roots = line.take("root");
    let ram: Vec<_> = line.take("rd.live.ram").into_iter().filter(|(_, value)| is_yes(*value)).collect();
    let directory = line.take("rd.live.dir").last().and_then(|(_, value)| *value).unwrap_or("LiveOS");
    let image = line.take("rd.live.squashimg").last().and_then(|(_, value)| *value).unwrap_or("squashfs.img");
    match squashfs {
        Squashfs::Iso { volume_id, path, is_gentoos } => {
            let right = format!("root=live:CDLABEL={volume_id}");
            root(&roots, &right, found, |value| {
                let label = value.strip_prefix("live:")?;
                // By what is in the volume itself, which is not judged.
                if label.starts_with("UUID=") || label.starts_with("/dev/disk/by-uuid/") {
                    return Some(true);
                }
                if let Some(label) = label.strip_prefix("/dev/disk/by-label/") {
                    return Some(label.replace("\\x20", " ") == *volume_id);
                }
                let label = label.strip_prefix("CDLABEL=").or_else(|| label.strip_prefix("LABEL="))?;
                // A blank is written \x20 for udev.
                Some(label.replace("\\x20", " ") == *volume_id)
            });
            let named = format!("{}/{image}", directory.trim_matches('/'));
            if named.trim_start_matches('/') != *path {
                let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
                found.wrong_by_itself(format!(
                    "rd.live.dir and rd.live.squashimg name /{}: the squashfs is at /{path}: rd.live.dir=/{folder} \
                     rd.live.squashimg={file}",
                    named.trim_start_matches('/')
                ));
            }
            if line.take("cdroot").is_empty() && *is_gentoos {
                found.missing("cdroot", "Gentoo's live system looks for it");
            }
        }
        Squashfs::InInitrd { path } => {
            let right = format!("root=live:{path}");
            root(&roots, &right, found, |value| Some(value.strip_prefix("live:")? == *path));
            if !path.ends_with(".img") && !path.ends_with(".iso") {
                found.wrong_by_itself(format!(
                    "{right}: dracut takes a local file only if its name ends in .img or .iso; put it there under such a name"
                ));
            }
            for (word, _) in ram {
                found.wrong(word, "the squashfs is in memory already; this makes a second copy");
            }
        }
        Squashfs::Fetched => {
            root(&roots, "root=live:http://HOST/image.squashfs", found, |value| {
                let address = value.strip_prefix("live:")?;
                let fetched =
                    ["http://", "https://", "ftp://", "tftp://", "nfs://", "torrent://", "nfs:", "${"];
                Some(fetched.iter().any(|scheme| address.starts_with(scheme)))
            });
            if !initramfs.has_livenet() {
                found.wrong_by_itself(
                    "root=live:http: the initrd has no livenet module and cannot fetch it; make it with dracut's livenet, or put \
                     the squashfs into the initrd",
                );
            }
            let ip = line.take("ip");
            for (word, _) in ip.iter().filter(|(_, value)| matches!(value, Some("off" | "none"))) {
                found.wrong(word, "the initramfs needs the network to fetch its root: ip=dhcp");
            }
            if ip.is_empty() && line.take("rd.neednet").is_empty() {
                found.missing("ip=dhcp", "the initramfs has no network without it");
            }
        }
    }
}

/// Checks the words `root=`: there is one, and the last one, which dracut takes, says what is right.
fn root(
    roots: &[(&str, Option<&str>)],
    right: &str,
    found: &mut Comparison,
    is_right: impl Fn(&str) -> Option<bool>,
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
        Squashfs::InInitrd { path } => (*path).to_owned(),
        Squashfs::Fetched => {
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

    fn initramfs(modules: &[&str]) -> Initramfs {
        Initramfs {
            family: None,
            modules: modules.iter().map(|module| (*module).to_owned()).collect(),
            kernels: BTreeSet::new(),
            segments: Vec::new(),
            unpacked: 0,
            program: None,
            cmdline: BTreeMap::new(),
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
        let live = initramfs(&["livenet"]);
        let inside = format!("/{SQUASHFS_IN_INITRD}");
        let media = [
            (
                Medium::Iso { volume_id: "X-1".to_owned() },
                Squashfs::Iso { volume_id: "X-1", path: SQUASHFS, is_gentoos: true },
            ),
            (Medium::InInitrd, Squashfs::InInitrd { path: &inside }),
            (Medium::Http { url: "http://host/image.squashfs".to_owned() }, Squashfs::Fetched),
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
        assert_eq!(compared, 13);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let iso = Squashfs::Iso { volume_id: "X-1", path: "image.squashfs", is_gentoos: true };
        let inside = Squashfs::InInitrd { path: "/image.squashfs.img" };
        let bare = Squashfs::InInitrd { path: "/image.squashfs" };
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
            (Dracut, &Squashfs::Fetched, "root=live:http://h/i ip=dhcp", "livenet"),
            (Dracut, &Squashfs::Fetched, "root=live:http://h/i", "ip=dhcp"),
            (Genkernel, &inside, "root=live:/image.squashfs.img", "dracut's"),
            (Genkernel, &bare, "looptype=squashfs loop=/other cdroot", "loop=/image.squashfs"),
            (Genkernel, &bare, "looptype=squashfs loop=/image.squashfs", "cdroot"),
            (Genkernel, &Squashfs::Fetched, "root=live:http://h/i", "cannot fetch"),
        ] {
            let found = compare(&initramfs(&[]), family, squashfs, &words(line));
            let text = format!("{:?}{:?}", found.missing, found.contradicting);
            assert!(text.contains(expected), "{line}: {expected}: {text}");
        }
    }

    #[test]
    fn the_images_own_words_are_harmless() {
        let line = words("dokeymap quiet root=live:/i.img console=ttyS0 rd.live.ram=0");
        let found = compare(&initramfs(&[]), Family::Dracut, &Squashfs::InInitrd { path: "/i.img" }, &line);
        assert!(found.is_right());
        assert_eq!(found.harmless, ["dokeymap", "quiet", "console=ttyS0"]);
    }
}
