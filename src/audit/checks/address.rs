//! Addresses from which an initramfs is told to fetch its image: what each of them leads to.

use super::select::{initrd_of, linux, set_menus};
use crate::audit::facts::{EntryFacts, Facts, Kind, MenuFacts, Part};
use crate::audit::report::Outcome;
use crate::audit::set::names_in_set;
use crate::cmdline::compare::{INSTALLER, is_nfs, network_root};

/// A word that says where the image is, and what has to be there.
struct Source {
    /// How the word begins.
    start: &'static str,
    /// What may be there.
    kinds: &'static [Kind],
    /// Whether it is one of dracut's, which ignores those of others.
    is_dracuts: bool,
}

const fn source(start: &'static str, kinds: &'static [Kind], is_dracuts: bool) -> Source {
    Source { start, kinds, is_dracuts }
}

/// The words: of dracut's livenet, Fedora's anaconda (`boot-options.rst`), Debian's live-boot (`live-boot(7)`), Ubuntu's casper (`casper(7)`), Alpine's
/// mkinitfs (`initramfs-init`), Arch's archiso (`mkinitcpio-archiso`, `README.bootparams`).
const SOURCES: [Source; 10] = [
    source("root=live:", &[Kind::Squashfs, Kind::Iso], true),
    source("inst.stage2=", &[Kind::Squashfs], true),
    source("inst.repo=", &[Kind::Squashfs], true),
    source("fetch=", &[Kind::Squashfs, Kind::Iso], false),
    source("httpfs=", &[Kind::Squashfs, Kind::Iso], false),
    source("ftpfs=", &[Kind::Squashfs, Kind::Iso], false),
    source("url=", &[Kind::Iso], false),
    source("iso-url=", &[Kind::Iso], false),
    source("modloop=", &[Kind::Squashfs], false),
    source(ARCHISO, &[Kind::Squashfs], false),
];

/// Anaconda's have the address of a folder, or of the image.
const ANACONDA_IMAGES: [&str; 2] = ["images/install.img", "LiveOS/squashfs.img"];

/// Arch's has the address of a folder: the image is below it, in a folder for the machine.
const ARCHISO: &str = "archiso_http_srv=";
const ARCHISO_FOLDERS: [&str; 3] = ["x86_64", "aarch64", "i686"];

/// What is at an address.
#[derive(Clone, Copy)]
enum Found<'a> {
    /// A file of the set.
    Part(&'a Part),
    /// The ISO that is audited.
    Iso,
    /// Nothing that is here.
    Nothing,
}

/// An address that a line has.
pub(super) struct Address<'a> {
    /// As it is written.
    text: &'a str,
    /// What may be there.
    kinds: &'static [Kind],
    /// What is there.
    found: Found<'a>,
}

impl Address<'_> {
    /// Tells whether the ISO itself is there.
    pub(super) fn is_iso(&self) -> bool {
        matches!(self.found, Found::Iso)
    }
}

/// Returns the addresses by which an entry of the set finds its image.
pub(super) fn of_entry<'a>(facts: &'a Facts, menu: &MenuFacts, entry: &'a EntryFacts) -> Vec<Address<'a>> {
    let is_others = initrd_of(facts, menu, entry).is_none_or(|initrd| initrd.family().is_none());
    let folder = menu.file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut all = Vec::new();
    for word in &entry.words {
        let known = SOURCES.iter().filter(|source| is_others || source.is_dracuts).find_map(|source| {
            let text = word.strip_prefix(source.start)?;
            (text.contains("://") || text.contains("${") || is_nfs(text)).then_some((source, text))
        });
        let Some((source, text)) = known else { continue };
        let files = match source.start {
            ARCHISO => below(text, entry),
            // Behind the options and the server, or what stands for them, the path there.
            _ if is_nfs(text) => vec![text.rsplit([':', '}']).next().unwrap_or(text).to_owned()],
            start
                if start.strip_suffix('=').is_some_and(|key| INSTALLER.contains(&key))
                    && !text.ends_with(".img") =>
            {
                ANACONDA_IMAGES.map(|image| format!("{}/{image}", text.trim_end_matches('/'))).to_vec()
            }
            _ => vec![text.to_owned()],
        };
        let found = files.iter().map(|file| find(facts, file, folder, source.kinds));
        let found = found.reduce(|first, next| if matches!(first, Found::Nothing) { next } else { first });
        all.push(Address { text, kinds: source.kinds, found: found.unwrap_or(Found::Nothing) });
    }
    all
}

/// Returns where archiso looks for its image.
fn below(address: &str, entry: &EntryFacts) -> Vec<String> {
    let base =
        entry.words.iter().rev().find_map(|word| word.strip_prefix("archisobasedir=")).unwrap_or("arch");
    let (address, base) = (address.trim_end_matches('/'), base.trim_matches('/'));
    let file = |folder: &&str| format!("{address}/{base}/{folder}/airootfs.sfs");
    ARCHISO_FOLDERS.iter().map(file).collect()
}

fn find<'a>(facts: &'a Facts, address: &str, folder: &str, kinds: &[Kind]) -> Found<'a> {
    let names = names_in_set(address, folder).unwrap_or_default();
    if let Some(part) = names.iter().find_map(|name| facts.parts.get(name)) {
        return if is_the_iso(facts, part) { Found::Iso } else { Found::Part(part) };
    }
    // The ISO need not lie in the set.
    let is_iso = kinds.contains(&Kind::Iso) && names.last().is_some_and(|name| *name == facts.iso.name);
    if is_iso { Found::Iso } else { Found::Nothing }
}

/// Tells whether a file of the set has the bytes of the ISO.
pub(super) fn is_the_iso(facts: &Facts, part: &Part) -> bool {
    part.kind == Kind::Iso && part.digest().is_some() && part.digest() == facts.iso.digest()
}

/// Checks that what an initramfs fetches is of the set, and of the right kind.
pub(super) fn judge(
    facts: &Facts,
    menu: &MenuFacts,
    entry: &EntryFacts,
    subject: &str,
    outcome: &mut Outcome,
) {
    if menu.on_iso {
        return;
    }
    for Address { text, kinds, found } in of_entry(facts, menu, entry) {
        let wanted = match kinds {
            [Kind::Iso] => "ISO",
            _ => "squashfs",
        };
        match found {
            Found::Iso => {}
            Found::Part(part) if part.kind == Kind::Iso && kinds.contains(&Kind::Iso) => {
                if part.digest().is_some() {
                    outcome.differs(
                        subject,
                        format!("fetches {}, which is not the ISO {}", part.name, facts.iso.name),
                        "publish the ISO itself under that name, or correct the address",
                    );
                }
            }
            Found::Part(part) if kinds.contains(&part.kind) => {}
            Found::Nothing if wanted == "ISO" && facts.of_kind(Kind::Iso).next().is_none() => outcome.warns(
                subject,
                format!("{text} is not here: whether it is the ISO {} is not judged", facts.iso.name),
                "see that it is that ISO, or publish it with the set",
            ),
            // A server of file systems may have it anywhere, under any name.
            Found::Nothing if is_nfs(text) => outcome.warns(
                subject,
                format!("{text} is not here: whether it is the ISO's {wanted} is not judged"),
                format!("see that it is that {wanted}, or export the folder of the set"),
            ),
            Found::Part(_) | Found::Nothing => {
                if facts.is_listed {
                    outcome.differs(
                        subject,
                        format!("{text} is no {wanted} of this set"),
                        format!("publish the ISO's {wanted} under that name, or correct the address"),
                    );
                }
            }
        }
    }
}

/// Tells whether every entry of the set has its image from elsewhere: from the ISO, or from a server's file system.
pub(super) fn needs_no_squashfs(facts: &Facts) -> bool {
    let mut entries =
        set_menus(facts).flat_map(|menu| linux(menu).map(move |entry| (menu, entry))).peekable();
    entries.peek().is_some()
        && entries.all(|(menu, entry)| {
            let brings_iso = entry.initrds.iter().any(|loaded| {
                let part = loaded.part.as_ref().and_then(|name| facts.parts.get(name));
                part.is_some_and(|part| part.kind == Kind::Iso)
            });
            let fetches_iso = of_entry(facts, menu, entry)
                .iter()
                .any(|address| address.is_iso() || address.kinds == [Kind::Iso]);
            brings_iso || fetches_iso || mounts_root(entry)
        })
}

/// Tells whether an entry's root is a server's file system or block device: dracut's words, and those of live-boot and casper.
fn mounts_root(entry: &EntryFacts) -> bool {
    let value = |key: &str| entry.words.iter().rev().find_map(|word| word.strip_prefix(key));
    let is_network = |key: &str| value(key).is_some_and(|root| network_root(root).is_some());
    ["root=", "netroot=", "real_root="].into_iter().any(is_network)
        || value("root=live:").is_some_and(|root| root.starts_with("nfs:"))
        || ["nfsroot=", "nbdroot=", "archiso_nfs_srv=", "archiso_nbd_srv="]
            .iter()
            .any(|key| value(key).is_some())
}
