//! The checks: each looks at the facts and says what it found.

mod address;
mod arch;
mod code;
mod initrds;
mod iso;
mod lean;
mod lines;
mod lists;
mod memory;
mod parts;
mod provenance;
mod secure;
mod select;
mod set;
mod signatures;
mod verity;

pub(super) use self::lines::is_image;
pub use self::lines::is_of_the_way;

use self::memory::memory;
use self::select::count;
use super::facts::Facts;
use super::report::{Check, Outcome, Report, SCHEMA, Verdict, file_lines};
use crate::formats::iso9660::IsoError;

/// What a check is: its name, and the function that looks.
type Row = (Check, fn(&Check, &Facts) -> Outcome);

const fn row(id: &'static str, what: &'static str, look: fn(&Check, &Facts) -> Outcome) -> Row {
    (Check { id, what }, look)
}

/// All checks, in the order of reports.
const ROWS: [Row; 35] = [
    row("readable", "everything could be read", readable),
    row("iso-structure", "the ISO is whole", iso::structure),
    row("iso-boot", "El Torito: what firmware is offered to start", iso::boot),
    row("loaders", "boot loaders are programs, and whole", arch::loaders),
    row("arch", "boot loaders, kernels and initrds are for one architecture", arch::arch),
    row(
        "secure-boot",
        "who signed programs of UEFI, and whom the shim among them knows",
        secure::secure_boot,
    ),
    row("volume-id", "the volume id, and that menus look for it", iso::volume_id),
    row(
        "iso-contents",
        "kernel, initrd and squashfs are on the ISO, and all that its menus name",
        iso::contents,
    ),
    row("iso-checksums", "the checksums on the ISO itself (`livecd/verify`)", iso::own_checksums),
    row("kernel", "the netboot kernels are the ISO's, byte for byte", parts::kernel),
    row(
        "initrd",
        "the netboot initrds are the ISO's, byte for byte; lean ones lack modules and firmware alone",
        initrds::initrd,
    ),
    row("squashfs", "the netboot squashfs is the ISO's, byte for byte", parts::squashfs),
    row("combined", "what is inside the combined initrds: the ISO's initrd and squashfs", initrds::combined),
    row("pairs", "each kernel is booted with the initrd that it has on the ISO", initrds::pairs),
    row("verity", "the hashes by which initrds have the squashfs checked block by block", verity::verity),
    row("initramfs", "every archive of every initrd unpacks", initrds::initramfs),
    row("squashfs-image", "the superblock of every squashfs", parts::squashfs_image),
    row("modules", "the initrd has the modules of the kernel it is booted with", initrds::modules),
    row("iso-menu", "the command lines of the ISO's menus", lines::iso_menu),
    row("ipxe", "the command lines and `initrd=` names of the iPXE scripts", lines::ipxe),
    row("pxelinux", "the command lines of PXELINUX's menus", lines::pxelinux),
    row(
        "grub-net",
        "the command lines of GRUB's network menus, and of entries of the Boot Loader Specification",
        lines::grub_net,
    ),
    row("drift", "the image's own arguments are the same on the ISO and in the set", lines::drift),
    row(
        "references",
        "every file that scripts and menus name is there; variables and labels",
        lines::references,
    ),
    row("digests", "lists of checksums", lists::digests),
    row("manifest", "the manifest of `stagegraph build`", lists::manifest),
    row("signatures", "signatures by OpenPGP", signatures::signatures),
    row("unsigned", "with a keyring: what boots and nobody signed", signatures::unsigned),
    row("code-signatures", "signatures by CMS, which iPXE verifies", code::code_signatures),
    row("provenance", "what builders say that it is made of", provenance::provenance),
    row("limits", "sizes that formats, boot loaders and servers can bear", set::limits),
    row("memory", "the least memory to boot with", set::memory),
    row("names", "names that mirrors and servers put where they belong", set::names),
    row("links", "no link leads out of the set", set::links),
    row("leftovers", "files that nothing names", set::leftovers),
];

/// All checks, in the order of reports.
pub const CHECKS: [Check; ROWS.len()] = {
    let mut checks = [Check { id: "", what: "" }; ROWS.len()];
    let mut index = 0;
    while index < ROWS.len() {
        checks[index] = ROWS[index].0;
        index += 1;
    }
    checks
};

/// Tells whether there is a check of that name.
pub fn is_check(id: &str) -> bool {
    CHECKS.iter().any(|check| check.id == id)
}

/// Judges what was found out.
pub(super) fn judge(facts: &Facts) -> Report {
    let checks: Vec<Outcome> = ROWS.iter().map(|(check, look)| look(check, facts)).collect();
    let mut report = Report {
        schema: SCHEMA,
        iso: facts.iso.name.clone(),
        netboot: facts.set.clone(),
        verdict: Verdict::None,
        checks,
        iso_parts: file_lines(facts.iso.parts.values()),
        netboot_files: file_lines(facts.parts.values()),
        memory: memory(facts),
    };
    report.allow(&[]);
    report
}

/// Reports an ISO of which nothing can be read.
pub(super) fn unusable_iso(iso: &str, set: &str, error: &IsoError) -> Report {
    let mut checks: Vec<Outcome> =
        ROWS.iter().map(|(check, _)| Outcome::new(check).says("", "not looked at")).collect();
    checks[1].differs(iso, error.to_string(), "fetch it again, or build it again");
    let mut report = Report {
        schema: SCHEMA,
        iso: iso.rsplit('/').next().unwrap_or(iso).to_owned(),
        netboot: set.to_owned(),
        verdict: Verdict::None,
        checks,
        iso_parts: Default::default(),
        netboot_files: Default::default(),
        memory: Vec::new(),
    };
    report.allow(&[]);
    report
}

fn readable(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    outcome.looked();
    for (subject, why) in &facts.unreadable {
        outcome.unreadable(subject, why);
    }
    for name in &facts.odd {
        outcome.warns(
            name,
            "is no plain file, or has a name that is no text: it was not looked at",
            "remove it, or rename it",
        );
    }
    outcome.says(format!("the ISO and {}", count(facts.parts.len(), "file", "files")), "")
}
